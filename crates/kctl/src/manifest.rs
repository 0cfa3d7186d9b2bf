//! Objects from files: `-f` takes files, folders and `-`, YAML and JSON, several documents, lists.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::object;
use crate::{Console, Error};

/// Which files; flags as in kubectl.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Files {
    /// The files that contain the objects; - reads standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    pub filename: Vec<String>,
    /// Process the directory used in -f recursively
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// An object and where it is from.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The file, or `STDIN`.
    pub source: String,
    /// The object.
    pub object: Value,
}

impl Files {
    /// Whether no file was named.
    pub fn is_empty(&self) -> bool {
        self.filename.is_empty()
    }

    /// Reads everything.
    pub fn read(&self, console: &mut Console) -> Result<Vec<Manifest>, Error> {
        let mut manifests = Vec::new();
        for name in &self.filename {
            if name == "-" {
                let mut text = String::new();
                console
                    .input
                    .read_to_string(&mut text)
                    .map_err(|e| Error::message(format!("error reading STDIN: {e}")))?;
                manifests.extend(parse("STDIN", &text)?);
                continue;
            }
            for path in self.expand(Path::new(name))? {
                let source = path.display().to_string();
                let text = std::fs::read_to_string(&path)
                    .map_err(|e| Error::message(format!("error reading [{source}]: {e}")))?;
                manifests.extend(parse(&source, &text)?);
            }
        }
        if manifests.is_empty() { Err(Error::message("no objects passed")) } else { Ok(manifests) }
    }

    /// A file as itself, a folder as its manifests in order.
    fn expand(&self, path: &Path) -> Result<Vec<PathBuf>, Error> {
        if !path.exists() {
            return Err(Error::message(format!("the path \"{}\" does not exist", path.display())));
        }
        if !path.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let unreadable = |e: std::io::Error| Error::message(format!("error reading [{}]: {e}", path.display()));
        let mut found = Vec::new();
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path).map_err(unreadable)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            if entry.is_dir() {
                if self.recursive {
                    found.extend(self.expand(&entry)?);
                }
            } else if entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
                found.push(entry);
            }
        }
        Ok(found)
    }
}

/// The objects of one text, lists opened.
fn parse(source: &str, text: &str) -> Result<Vec<Manifest>, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::message(format!("error parsing {source}: {e}"));
    let documents = match text.trim_start().starts_with('{') {
        true => serde_json::Deserializer::from_str(text)
            .into_iter::<Value>()
            .collect::<Result<Vec<_>, _>>()
            .or_else(|e| api::yaml::parse_all(text).map_err(|_| failed(&e)))?,
        false => api::yaml::parse_all(text).map_err(|e| failed(&e))?,
    };
    let mut manifests = Vec::new();
    for document in documents {
        for object in opened(document) {
            for (field, value) in [("kind", object::kind(&object)), ("apiVersion", object::api_version(&object))] {
                if value.is_empty() {
                    return Err(Error::message(format!(
                        "error validating \"{source}\": error validating data: {field} not set"
                    )));
                }
            }
            manifests.push(Manifest { source: source.to_owned(), object });
        }
    }
    Ok(manifests)
}

/// The objects of a `List`, or the object itself.
fn opened(mut document: Value) -> Vec<Value> {
    let is_list = object::kind(&document).ends_with("List") && document["items"].is_array();
    match document["items"].take() {
        Value::Array(items) if is_list => items,
        items => {
            if !items.is_null() {
                document["items"] = items;
            } else if let Some(fields) = document.as_object_mut() {
                fields.remove("items");
            }
            vec![document]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_documents_and_lists_are_opened() {
        let text = r#"{"kind":"List","apiVersion":"v1","items":[{"kind":"Pod","apiVersion":"v1"},{"kind":"Node","apiVersion":"v1"}]}
                      {"kind":"Service","apiVersion":"v1"}"#;
        let kinds: Vec<String> = parse("x", text).unwrap().iter().map(|m| object::kind(&m.object).to_owned()).collect();
        assert_eq!(kinds, ["Pod", "Node", "Service"]);
        let error = parse("x", r#"{"apiVersion":"v1"}"#).unwrap_err().to_string();
        assert_eq!(error, "error: error validating \"x\": error validating data: kind not set");
    }

    #[test]
    fn folders_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (name, kind) in [("b.json", "B"), ("a.json", "A"), ("c.txt", "C")] {
            std::fs::write(folder.path().join(name), format!(r#"{{"kind":"{kind}","apiVersion":"v1"}}"#)).unwrap();
        }
        let files = Files { filename: vec![folder.path().display().to_string()], recursive: false };
        let found = files.read(&mut Console::standard()).unwrap();
        assert_eq!(found.iter().map(|m| object::kind(&m.object)).collect::<Vec<_>>(), ["A", "B"]);
        let missing = Files { filename: vec!["/does/not/exist".to_owned()], recursive: false };
        let error = missing.read(&mut Console::standard()).unwrap_err().to_string();
        assert_eq!(error, "error: the path \"/does/not/exist\" does not exist");
    }
}
