//! `kctl apply -f`: makes objects as their files say, leaving alone what others set. What was applied before is remembered
//! in an annotation, so that a field taken out of the file goes away.

use serde_json::{Value, json};

use api::well_known::LAST_APPLIED;

use super::create::report;
use super::{DryRun, Subject};
use crate::discovery::Discovery;
use crate::manifest::{Files, Manifest};
use crate::print::Format;
use crate::session::{Session, with_query};
use crate::{Console, Error, error, object};

/// How often a patch is made anew because someone else changed the object meanwhile (`maxPatchRetry` upstream).
const CONFLICT_RETRIES_MAX: usize = 5;

/// Apply a configuration to a resource by file name or stdin.
#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Output format
    #[arg(short, long)]
    output: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    dry_run: DryRun,
}

impl Apply {
    /// Applies each object; one that is refused does not stop the others.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        if self.files.is_empty() {
            return Err(Error::message("must specify one of -f and -k"));
        }
        let format = self.output.as_deref().map(|o| Format::parse(Some(o))).transpose()?;
        let manifests = self.files.read(console)?;
        let discovery = Discovery::load(session).await?;
        let mut errors = Vec::new();
        for manifest in manifests {
            errors.extend(self.apply(session, console, &discovery, &manifest, format.as_ref()).await.err());
        }
        error::all(errors)
    }

    async fn apply(
        &self,
        session: &Session,
        console: &mut Console,
        discovery: &Discovery,
        manifest: &Manifest,
        format: Option<&Format>,
    ) -> Result<(), Error> {
        let subject = Subject::of(discovery, session, manifest)?;
        if subject.name.is_empty() {
            return Err(Error::message(format!(
                "error when applying {}: resource name may not be empty",
                manifest.source
            )));
        }
        let modified = annotated(&with_namespace(&manifest.object, &subject));
        for _ in 0..CONFLICT_RETRIES_MAX {
            let current = match session.get(&subject.path()).await {
                Ok(current) => current,
                Err(error) if error.is_not_found() => {
                    let created = self.create(session, &subject, &modified).await;
                    let created =
                        created.map_err(|e| e.when(format!("error when creating \"{}\"", manifest.source)))?;
                    return report(console, &subject, &created, format, "created", self.dry_run);
                }
                Err(error) => return Err(error),
            };
            match self.change(session, console, &subject, &modified, current, format).await {
                Err(error) if error.reason() == Some("Conflict") => {}
                other => {
                    return other
                        .map_err(|e| e.when(format!("error when applying patch from \"{}\"", manifest.source)));
                }
            }
        }
        Err(Error::message(format!("{}: the object changed under every attempt to apply it", subject.shown())))
    }

    async fn create(&self, session: &Session, subject: &Subject, object: &Value) -> Result<Value, Error> {
        match self.dry_run {
            DryRun::Client => Ok(object.clone()),
            _ => session.post(&write_path(self.dry_run, &subject.collection()), object).await,
        }
    }

    async fn change(
        &self,
        session: &Session,
        console: &mut Console,
        subject: &Subject,
        modified: &Value,
        current: Value,
        format: Option<&Format>,
    ) -> Result<(), Error> {
        if current["metadata"]["annotations"][LAST_APPLIED].is_null() {
            console.note(&format!(
                "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by kctl apply. kctl apply \
                 should only be used on resources created declaratively by either kctl create --save-config or kctl apply. The \
                 missing annotation will be patched automatically.",
                subject.resource.qualified_plural(),
                subject.name
            ));
        }
        let (media_type, patch) = three_way(modified, &current)?;
        if patch.as_object().is_none_or(serde_json::Map::is_empty) {
            return report(console, subject, &current, format, "unchanged", self.dry_run);
        }
        let changed = match self.dry_run {
            DryRun::Client => current.clone(),
            _ => session.patch(&write_path(self.dry_run, &subject.path()), media_type, &patch).await?,
        };
        let same = self.dry_run != DryRun::Client
            && current["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
            && !changed["metadata"]["resourceVersion"].is_null();
        report(console, subject, &changed, format, if same { "unchanged" } else { "configured" }, self.dry_run)
    }
}

fn write_path(dry_run: DryRun, path: &str) -> String {
    let mut parameters = vec![("fieldManager", "kubectl-client-side-apply".to_owned())];
    if dry_run == DryRun::Server {
        parameters.push(("dryRun", "All".to_owned()));
    }
    with_query(path, &parameters)
}

fn with_namespace(object: &Value, subject: &Subject) -> Value {
    let mut object = object.clone();
    if let (Some(namespace), None) = (&subject.namespace, object::namespace(&object)) {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

/// The object with itself in the annotation that remembers what was applied.
pub(super) fn annotated(object: &Value) -> Value {
    let mut plain = object.clone();
    if let Some(annotations) = plain["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    if !plain["metadata"]["annotations"].is_object() {
        plain["metadata"]["annotations"] = json!({});
    }
    let text = format!("{plain}\n");
    let mut annotated = plain;
    annotated["metadata"]["annotations"][LAST_APPLIED] = json!(text);
    annotated
}

/// The patch from what is there to what is wanted, and its media type.
fn three_way(modified: &Value, current: &Value) -> Result<(&'static str, Value), Error> {
    let applied = object::text(current, &["metadata", "annotations", LAST_APPLIED]);
    let original: Value = serde_json::from_str(applied).unwrap_or_else(|_| json!({}));
    match api::kinds::by_kind(object::api_version(modified), object::kind(modified)) {
        Some(kind) => {
            let patch = api::patch::three_way_strategic(kind.info, &original, modified, current);
            let patch = patch.map_err(|e| Error::message(format!("cannot make a patch: {e}")))?;
            Ok(("application/strategic-merge-patch+json", patch))
        }
        None => Ok(("application/merge-patch+json", merge_patch(&original, modified, current))),
    }
}

/// A merge patch for kinds whose lists nobody here knows: sets what is wanted and differs, deletes what was applied before
/// and is wanted no longer.
fn merge_patch(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = serde_json::Map::new();
    for (key, wanted) in modified.as_object().into_iter().flatten() {
        let (before, now) = (&original[key], &current[key]);
        if wanted == now {
            continue;
        }
        if wanted.is_object() && now.is_object() {
            let inner = merge_patch(before, wanted, now);
            if inner.as_object().is_some_and(|fields| !fields.is_empty()) {
                patch.insert(key.clone(), inner);
            }
        } else {
            patch.insert(key.clone(), wanted.clone());
        }
    }
    for key in original.as_object().into_iter().flatten().map(|(key, _)| key) {
        if modified.get(key).is_none() && current.get(key).is_some() {
            patch.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_holds_the_object_without_itself() {
        let once = annotated(&json!({"kind": "Pod", "metadata": {"name": "x"}}));
        assert_eq!(annotated(&once), once);
        let text = once["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert!(!text.contains(LAST_APPLIED) && text.ends_with("}\n"));
    }

    #[test]
    fn merge_patches_set_what_differs_and_delete_what_was_taken_out() {
        for (original, modified, current, expected) in [
            (json!({}), json!({"a": 1}), json!({"a": 1, "b": 2}), json!({})),
            (json!({"a": 1}), json!({}), json!({"a": 1, "b": 2}), json!({"a": null})),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 1}), json!({"a": 2})),
            (
                json!({"m": {"x": 1}}),
                json!({"m": {"y": 2}}),
                json!({"m": {"x": 1, "z": 3}}),
                json!({"m": {"x": null, "y": 2}}),
            ),
        ] {
            assert_eq!(merge_patch(&original, &modified, &current), expected);
        }
    }
}
