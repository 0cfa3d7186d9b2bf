//! `kctl label` and `kctl annotate`: pairs set (`key=value`) and taken away (`key-`).

use serde_json::{Map, Value, json};

use super::{DryRun, Selectors, Subject, subjects};
use crate::manifest::Files;
use crate::session::Session;
use crate::{Console, Error, error, object};

/// Which map of the metadata is changed, and what messages call it.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    field: &'static str,
    done: &'static str,
    undone: &'static str,
}

/// `kctl label`.
pub const LABELS: Pairs = Pairs { field: "labels", done: "labeled", undone: "unlabeled" };
/// `kctl annotate`.
pub const ANNOTATIONS: Pairs = Pairs { field: "annotations", done: "annotated", undone: "annotated" };

/// Update labels or annotations.
#[derive(Debug, clap::Args)]
pub struct Label {
    /// TYPE NAME … KEY=VALUE … KEY- …
    arguments: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selectors: Selectors,
    /// Select all resources in the namespace of the specified resource types
    #[arg(long)]
    all: bool,
    /// If true, allow labels to be overwritten, otherwise reject label updates that overwrite existing labels
    #[arg(long)]
    overwrite: bool,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    dry_run: DryRun,
}

/// What to change: `None` takes the key away.
type Changes = Vec<(String, Option<String>)>;

impl Label {
    /// Changes each object.
    pub async fn run(&self, pairs: Pairs, session: &Session, console: &mut Console) -> Result<(), Error> {
        let (resources, changes) = split(&self.arguments)?;
        if changes.is_empty() {
            let singular = pairs.field.trim_end_matches('s');
            return Err(Error::message(format!("at least one {singular} update is required")));
        }
        let mut errors = Vec::new();
        for subject in subjects(session, console, &self.files, &resources, &self.selectors, self.all).await? {
            errors.extend(self.change(pairs, session, console, &subject, &changes).await.err());
        }
        error::all(errors)
    }

    async fn change(
        &self,
        pairs: Pairs,
        session: &Session,
        console: &mut Console,
        subject: &Subject,
        changes: &Changes,
    ) -> Result<(), Error> {
        let object = session.get(&subject.path()).await?;
        let present = &object["metadata"][pairs.field];
        let (patch, message) = plan(pairs, present, changes, self.overwrite)?;
        for missing in changes.iter().filter(|(key, value)| value.is_none() && present[key].is_null()) {
            console.line(&format!("{} \"{}\" not found.", pairs.field.trim_end_matches('s'), missing.0))?;
        }
        if !patch.is_empty() && self.dry_run != DryRun::Client {
            let mut body = json!({"metadata": {pairs.field: patch}});
            if !self.overwrite {
                // What was checked is what is changed.
                body["metadata"]["resourceVersion"] = json!(object::text(&object, &["metadata", "resourceVersion"]));
            }
            session.patch(&self.dry_run.path(&subject.path()), "application/merge-patch+json", &body).await?;
        }
        console.line(&format!("{} {message}{}", subject.shown(), self.dry_run.suffix()))
    }
}

/// The patch for one object and the word for it.
fn plan(
    pairs: Pairs,
    present: &Value,
    changes: &Changes,
    overwrite: bool,
) -> Result<(Map<String, Value>, &'static str), Error> {
    let mut patch = Map::new();
    for (key, value) in changes {
        let before = present[key].as_str();
        match value {
            Some(value) if before == Some(value) => {}
            Some(_) if before.is_some() && !overwrite => {
                return Err(Error::message(format!(
                    "'{key}' already has a value ({}), and --overwrite is false",
                    before.unwrap_or("")
                )));
            }
            Some(value) => drop(patch.insert(key.clone(), json!(value))),
            None if before.is_some() => drop(patch.insert(key.clone(), Value::Null)),
            None => {}
        }
    }
    let message = match patch.values().all(Value::is_null) {
        _ if patch.is_empty() && pairs.field == "labels" => "not labeled",
        true if !patch.is_empty() => pairs.undone,
        _ => pairs.done,
    };
    Ok((patch, message))
}

/// Resources and names first, then the changes.
fn split(arguments: &[String]) -> Result<(Vec<String>, Changes), Error> {
    let is_change = |a: &String| a.contains('=') || a.ends_with('-');
    let at = arguments.iter().position(is_change).unwrap_or(arguments.len());
    let mut changes = Changes::new();
    for argument in &arguments[at..] {
        let change = match (argument.split_once('='), argument.strip_suffix('-')) {
            (Some((key, value)), _) => (key.to_owned(), Some(value.to_owned())),
            (None, Some(key)) => (key.to_owned(), None),
            _ => {
                return Err(Error::message(
                    "all resources must be specified before label changes: ".to_owned() + argument,
                ));
            }
        };
        if changes.iter().any(|(key, other)| *key == change.0 && other.is_some() != change.1.is_some()) {
            return Err(Error::message(format!(
                "can not both modify and remove a label in the same command: {}",
                change.0
            )));
        }
        changes.push(change);
    }
    Ok((arguments[..at].to_vec(), changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_from_names_and_planned() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let present = json!({"a": "1", "b": "2"});
        for (line, overwrite, expected) in [
            ("pod web c=3", false, Ok((json!({"c": "3"}), "labeled"))),
            ("pod web a=1", false, Ok((json!({}), "not labeled"))),
            ("pod web a-", false, Ok((json!({"a": null}), "unlabeled"))),
            ("pod web x-", false, Ok((json!({}), "not labeled"))),
            ("pod web a=9", true, Ok((json!({"a": "9"}), "labeled"))),
            ("pod web a=9", false, Err("error: 'a' already has a value (1), and --overwrite is false")),
            ("pod web a=9 a-", true, Err("error: can not both modify and remove a label in the same command: a")),
            ("pod web a=9 rc", true, Err("error: all resources must be specified before label changes: rc")),
        ] {
            let found = split(&words(line)).and_then(|(resources, changes)| {
                assert_eq!(resources, ["pod", "web"]);
                plan(LABELS, &present, &changes, overwrite)
            });
            let found = found.map(|(patch, message)| (Value::Object(patch), message)).map_err(|e| e.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{line}");
        }
    }
}
