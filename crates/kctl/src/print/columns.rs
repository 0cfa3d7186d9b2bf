//! `-o custom-columns=NAME:.metadata.name,…`.

use serde_json::Value;

use super::table;
use crate::Error;
use crate::jsonpath::Template;

/// Headings and what stands below them.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns(Vec<(String, Template)>);

impl Columns {
    /// Reads `HEADING:path,…`.
    pub fn parse(text: &str) -> Result<Columns, Error> {
        let pairs = text.split(',').map(|part| {
            part.split_once(':').ok_or_else(|| {
                Error::message(format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"))
            })
        });
        let columns = pairs.map(|pair| pair.and_then(|(heading, path)| Ok((heading.to_owned(), read(path)?))));
        columns.collect::<Result<_, _>>().map(Columns)
    }

    /// Reads a file: headings in the first line, paths in the second.
    pub fn parse_file(text: &str) -> Result<Columns, Error> {
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let (headings, paths) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        if headings.len() != paths.len() || headings.is_empty() {
            return Err(Error::message(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headings.len(),
                paths.len()
            )));
        }
        let columns = headings.iter().zip(paths).map(|(heading, path)| Ok(((*heading).to_owned(), read(path)?)));
        columns.collect::<Result<_, Error>>().map(Columns)
    }

    /// The table of these objects.
    pub fn render(&self, objects: &[&Value], headings: bool) -> Result<String, Error> {
        let mut rows = Vec::new();
        if headings {
            rows.push(self.0.iter().map(|(heading, _)| heading.clone()).collect());
        }
        for object in objects {
            let cells = self.0.iter().map(|(_, path)| {
                let found = path.find(object).map_err(|e| Error::message(e.to_string()))?;
                Ok(if found.is_empty() { "<none>".to_owned() } else { joined(&found) })
            });
            rows.push(cells.collect::<Result<Vec<String>, Error>>()?);
        }
        Ok(table::layout(&rows, &mut Vec::new()))
    }
}

fn read(path: &str) -> Result<Template, Error> {
    Template::parse_path(path).map_err(|e| Error::message(e.to_string()))
}

fn joined(values: &[Value]) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    };
    values.iter().map(text).collect::<Vec<_>>().join(",")
}
