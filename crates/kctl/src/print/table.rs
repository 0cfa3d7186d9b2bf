//! The server's Tables (`meta.k8s.io/v1`) as kubectl prints them.

use serde_json::Value;

use crate::object;

/// What asks a server for Tables; one that cannot make them answers with objects.
pub const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Narrowest column, and space between columns (`tabwriter` in `k8s.io/cli-runtime/pkg/printers/tabwriter.go`).
const COLUMN_WIDTH_MIN: usize = 6;
const PADDING: usize = 3;

/// What of a Table is shown.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Columns of lower priority too.
    pub wide: bool,
    /// A first column with the namespace.
    pub with_namespace: bool,
    /// A last column with all labels.
    pub show_labels: bool,
    /// Columns with single labels.
    pub label_columns: Vec<String>,
    /// `pod/web` instead of `web`: what to put before the slash.
    pub kind_prefix: Option<String>,
    /// No headings.
    pub no_headers: bool,
    /// A first column with the type of each event.
    pub events: bool,
}

/// Prints the Tables of one resource: headings once, later rows below them in columns that only grow.
#[derive(Clone, Debug, Default)]
pub struct Printer {
    options: Options,
    columns: Vec<(String, usize)>,
    widths: Vec<usize>,
    headed: bool,
}

impl Printer {
    /// A printer that has printed nothing yet.
    pub fn new(options: Options) -> Printer {
        Printer { options, ..Printer::default() }
    }

    /// The text for the rows of `table`. `event` is the type of the event that brought them.
    pub fn print(&mut self, table: &Value, event: &str) -> String {
        self.learn_columns(table);
        let mut rows: Vec<Vec<String>> = Vec::new();
        if !self.headed && !self.options.no_headers {
            rows.push(self.headings());
        }
        self.headed = true;
        rows.extend(object::items(table, &["rows"]).iter().map(|row| self.cells(row, event)));
        layout(&rows, &mut self.widths)
    }

    /// Later Tables of a watch leave the definitions out.
    fn learn_columns(&mut self, table: &Value) {
        let definitions = object::items(table, &["columnDefinitions"]);
        if definitions.is_empty() {
            return;
        }
        let shown = |d: &&Value| self.options.wide || d["priority"].as_i64().unwrap_or(0) == 0;
        let numbered = (0..).zip(definitions).filter(|(_, d)| shown(d));
        self.columns = numbered.map(|(i, d)| (object::text(d, &["name"]).to_uppercase(), i)).collect();
    }

    fn headings(&self) -> Vec<String> {
        let mut headings = self.leading("EVENT", "NAMESPACE");
        headings.extend(self.columns.iter().map(|(name, _)| name.clone()));
        let label = |l: &String| l.rsplit('/').next().unwrap_or(l).to_uppercase();
        headings.extend(self.options.label_columns.iter().map(label));
        headings.extend(self.options.show_labels.then(|| "LABELS".to_owned()));
        headings
    }

    fn cells(&self, row: &Value, event: &str) -> Vec<String> {
        let object = &row["object"];
        let mut cells = self.leading(event, object::namespace(object).unwrap_or(""));
        let first = cells.len();
        cells.extend(self.columns.iter().map(|(_, i)| cell(&row["cells"][*i])));
        if let (Some(prefix), Some(name)) = (&self.options.kind_prefix, cells.get_mut(first)) {
            *name = format!("{prefix}/{name}");
        }
        let labels = &object["metadata"]["labels"];
        let label = |l: &String| labels[l].as_str().unwrap_or("<none>").to_owned();
        cells.extend(self.options.label_columns.iter().map(label));
        cells.extend(self.options.show_labels.then(|| object::joined_pairs(labels)));
        cells
    }

    fn leading(&self, event: &str, namespace: &str) -> Vec<String> {
        let event = self.options.events.then(|| event.to_owned());
        event.into_iter().chain(self.options.with_namespace.then(|| namespace.to_owned())).collect()
    }
}

/// A cell on one line.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    };
    match text.split_once(['\n', '\r', '\u{c}']) {
        Some((first, _)) => format!("{first}..."),
        None => text,
    }
}

/// Rows in columns. `widths` are those of earlier rows and are kept for later ones.
pub fn layout(rows: &[Vec<String>], widths: &mut Vec<usize>) -> String {
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let width = (cell.chars().count() + PADDING).max(COLUMN_WIDTH_MIN);
            match widths.get_mut(i) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if i + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[i].saturating_sub(cell.chars().count())));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(names: &[&str]) -> Value {
        let row = |name: &&str| {
            json!({"cells": [name, 1, "10.0.0.1"],
                   "object": {"metadata": {"name": name, "namespace": "default", "labels": {"b": "2", "a": "1"}}}})
        };
        json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Data", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": names.iter().map(row).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn tables_look_as_in_kubectl() {
        let wide = Options { wide: true, ..Options::default() };
        let labels = Options { show_labels: true, with_namespace: true, ..Options::default() };
        let kind = Options { kind_prefix: Some("pod".to_owned()), no_headers: true, ..Options::default() };
        let column = Options { label_columns: vec!["x/a".to_owned(), "b".to_owned()], ..Options::default() };
        for (options, expected) in [
            (Options::default(), "NAME       DATA\na          1\nlongname   1\n"),
            (wide, "NAME       DATA   IP\na          1      10.0.0.1\nlongname   1      10.0.0.1\n"),
            (
                labels,
                "NAMESPACE   NAME       DATA   LABELS\ndefault     a          1      a=1,b=2\ndefault     longname   1      a=1,b=2\n",
            ),
            (kind, "pod/a          1\npod/longname   1\n"),
            (column, "NAME       DATA   A        B\na          1      <none>   2\nlongname   1      <none>   2\n"),
        ] {
            assert_eq!(Printer::new(options).print(&table(&["a", "longname"]), ""), expected);
        }
    }

    #[test]
    fn columns_of_a_watch_only_grow() {
        let mut printer = Printer::new(Options::default());
        assert_eq!(printer.print(&table(&["longname"]), ""), "NAME       DATA\nlongname   1\n");
        let mut event = table(&["a"]);
        event["columnDefinitions"] = json!(null);
        assert_eq!(printer.print(&event, ""), "a          1\n");
    }
}
