//! Objects as text: which form `-o` asks for, and the forms that are not tables.

pub mod columns;
pub mod table;

use serde_json::Value;

use crate::Error;
use crate::jsonpath::Template;
use crate::object;
use columns::Columns;

/// What `-o` asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// The table of the server.
    Table {
        /// With the columns of lower priority.
        wide: bool,
    },
    /// One document each.
    Yaml,
    /// Indented.
    Json,
    /// `pod/web`.
    Name,
    /// A template.
    JsonPath {
        /// As it was given, for errors.
        text: String,
        /// As it was read.
        template: Template,
        /// Whether the values are printed as a JSON array.
        as_json: bool,
    },
    /// Columns of one's own.
    Columns(Columns),
}

impl Format {
    /// Reads the value of `-o`.
    pub fn parse(text: Option<&str>) -> Result<Format, Error> {
        let text = text.unwrap_or("");
        let (name, argument) = text.split_once('=').map_or((text, None), |(name, argument)| (name, Some(argument)));
        match (name, argument) {
            ("", None) => Ok(Format::Table { wide: false }),
            ("wide", None) => Ok(Format::Table { wide: true }),
            ("yaml", None) => Ok(Format::Yaml),
            ("json", None) => Ok(Format::Json),
            ("name", None) => Ok(Format::Name),
            ("jsonpath" | "jsonpath-as-json", Some(path)) => jsonpath(path.to_owned(), name == "jsonpath-as-json"),
            ("jsonpath-file", Some(file)) => jsonpath(read_file(file)?, false),
            ("custom-columns", Some(columns)) => Ok(Format::Columns(Columns::parse(columns)?)),
            ("custom-columns-file", Some(file)) => Ok(Format::Columns(Columns::parse_file(&read_file(file)?)?)),
            ("jsonpath" | "jsonpath-as-json", None) => {
                Err(Error::message("template format specified but no template given"))
            }
            ("custom-columns", None) => {
                Err(Error::message("custom-columns format specified but no custom columns given"))
            }
            _ => Err(Error::message(format!(
                "unable to match a printer suitable for the output format \"{text}\", allowed formats are: \
                 custom-columns,custom-columns-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,wide,yaml"
            ))),
        }
    }

    /// Whether the server makes this form.
    pub fn is_table(&self) -> bool {
        matches!(self, Format::Table { .. })
    }

    /// An object in this form; tables are made elsewhere.
    pub fn render(&self, value: &Value, name: impl Fn(&Value) -> String) -> Result<String, Error> {
        match self {
            Format::Yaml => Ok(api::yaml::to_string(&sorted(&without_managed_fields(value)))),
            Format::Json => json(&without_managed_fields(value)),
            Format::Name | Format::Table { .. } => {
                Ok(items(value).iter().map(|item| format!("{}\n", name(item))).collect())
            }
            Format::JsonPath { text, template, as_json } => render_jsonpath(text, template, *as_json, value),
            Format::Columns(columns) => columns.render(&items(value), true),
        }
    }
}

/// The objects of a list, or the object itself.
pub fn items(value: &Value) -> Vec<&Value> {
    match value["items"].as_array() {
        Some(items) if object::kind(value).ends_with("List") => items.iter().collect(),
        _ => vec![value],
    }
}

fn read_file(path: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::message(format!("error reading {path}: {e}")))
}

fn jsonpath(text: String, as_json: bool) -> Result<Format, Error> {
    let template = Template::parse(&text).map_err(|e| Error::message(format!("error parsing jsonpath {text}, {e}")))?;
    Ok(Format::JsonPath { text, template, as_json })
}

fn render_jsonpath(text: &str, template: &Template, as_json: bool, value: &Value) -> Result<String, Error> {
    let failed = |e| Error::message(format!("error executing jsonpath \"{text}\": Error executing template: {e}"));
    if as_json {
        json(&Value::Array(template.find(value).map_err(failed)?))
    } else {
        template.render(value).map_err(failed)
    }
}

/// JSON with four spaces, keys sorted, as kubectl has it.
fn json(value: &Value) -> Result<String, Error> {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    sorted(value).serialize(&mut serializer).map_err(|e| Error::message(e.to_string()))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|e| Error::message(e.to_string()))
}

/// The same with the keys of every map in order, whatever order the server and the JSON library keep.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(fields) => {
            let mut pairs: Vec<(&String, &Value)> = fields.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            Value::Object(pairs.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        other => other.clone(),
    }
}

/// `managedFields` are for machines; kubectl hides them too.
fn without_managed_fields(value: &Value) -> Value {
    let mut value = value.clone();
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut value);
    if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(format: &str, value: &Value) -> Result<String, String> {
        let format = Format::parse(Some(format)).map_err(|e| e.to_string())?;
        format.render(value, |o| format!("pod/{}", object::name(o))).map_err(|e| e.to_string())
    }

    #[test]
    fn forms_look_as_in_kubectl() {
        let pod = |name: &str| json!({"kind": "Pod", "metadata": {"name": name, "managedFields": [{}]}, "a": []});
        let list = object::list(vec![pod("x"), pod("y")]);
        assert_eq!(
            render("json", &pod("x")).unwrap(),
            "{\n    \"a\": [],\n    \"kind\": \"Pod\",\n    \"metadata\": {\n        \"name\": \"x\"\n    }\n}\n"
        );
        assert_eq!(render("name", &list).unwrap(), "pod/x\npod/y\n");
        assert_eq!(render("jsonpath={.items[*].metadata.name}", &list).unwrap(), "x y");
        assert_eq!(
            render("jsonpath-as-json={.items[*].metadata.name}", &list).unwrap(),
            "[\n    \"x\",\n    \"y\"\n]\n"
        );
        let columns = render("custom-columns=NAME:.metadata.name,WHAT:.kind,NO:.x.y", &list).unwrap();
        assert_eq!(columns, "NAME   WHAT   NO\nx      Pod    <none>\ny      Pod    <none>\n");
    }

    #[test]
    fn unknown_forms_are_refused() {
        assert!(render("xml", &json!({})).unwrap_err().starts_with("error: unable to match a printer"));
        assert!(render("jsonpath", &json!({})).unwrap_err().contains("no template given"));
        assert!(render("jsonpath={.a", &json!({})).unwrap_err().contains("unclosed action"));
    }
}
