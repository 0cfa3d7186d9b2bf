//! The options of a request, checked before anything else is done (`ValidateCreateOptions` and its like in
//! `k8s.io/apimachinery/pkg/apis/meta/v1/validation`, `ValidateListOptions` in `.../meta/internalversion/validation`).

use api::Verb;
use api::field::{ErrorList, Path, forbidden, not_supported, required};

use crate::query::Query;
use crate::status::{ApiError, Subject};

/// Values of `resourceVersionMatch`.
const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// The media type of a configuration to apply.
pub(crate) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Refuses options that make no sense. `content_type` is the body's.
pub(crate) fn check(verb: Verb, query: &Query, content_type: &str) -> Result<(), ApiError> {
    let (kind, errors) = match verb {
        Verb::Create => ("CreateOptions", write_errors(query, false, false)),
        Verb::Update => ("UpdateOptions", write_errors(query, false, false)),
        Verb::Patch => ("PatchOptions", write_errors(query, true, content_type == APPLY_PATCH)),
        Verb::List | Verb::DeleteCollection => ("ListOptions", list_errors(query)),
        Verb::Watch => ("ListOptions", watch_errors(query)),
        _ => return Ok(()),
    };
    if kind == "ListOptions" {
        query.integer("limit")?;
        query.integer("timeoutSeconds")?;
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::Invalid(Subject::options(kind), errors)) }
}

fn list_errors(query: &Query) -> ErrorList {
    let (path, mut errors) = (Path::new("resourceVersionMatch"), ErrorList::new());
    let revision = query.get("resourceVersion");
    if let Some(match_) = query.get("resourceVersionMatch") {
        if revision.is_none() {
            errors.push(forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if query.get("continue").is_some() {
            errors.push(forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(match_, EXACT | NOT_OLDER_THAN) {
            errors.push(not_supported(&path, match_, &[EXACT, NOT_OLDER_THAN, ""]));
        }
        if match_ == EXACT && revision == Some("0") {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(forbidden(&path, detail));
        }
    }
    if query.has("sendInitialEvents") {
        errors.push(forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list"));
    }
    errors
}

/// A watch from no version begins with what there is, as if it had asked for it (`SetListOptionsDefaults`).
pub(crate) fn initial_events_by_default(query: &Query) -> bool {
    let is_said = query.has("sendInitialEvents") || query.get("resourceVersionMatch").is_some();
    query.flag("watch") && !is_said && matches!(query.get("resourceVersion"), None | Some("0"))
}

/// What a watch may ask for (`validateWatchOptions`, KEP-3157).
fn watch_errors(query: &Query) -> ErrorList {
    let (path, mut errors) = (Path::new("resourceVersionMatch"), ErrorList::new());
    let by_default = initial_events_by_default(query);
    let (initial, match_) = (query.has("sendInitialEvents") || by_default, query.get("resourceVersionMatch"));
    let match_ = if by_default { Some(NOT_OLDER_THAN) } else { match_ };
    if initial && match_ != Some(NOT_OLDER_THAN) {
        let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(forbidden(&path, detail));
    }
    let Some(match_) = match_ else { return errors };
    if !initial {
        let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(forbidden(&path, detail));
    }
    if match_ != NOT_OLDER_THAN {
        errors.push(not_supported(&path, match_, &[NOT_OLDER_THAN]));
    }
    if query.get("continue").is_some() {
        errors.push(forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
    }
    errors
}

fn write_errors(query: &Query, is_patch: bool, is_apply: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let manager = query.get("fieldManager").unwrap_or("");
    let path = Path::new("fieldManager");
    match (is_apply, query.get("force").is_some()) {
        (true, _) if manager.is_empty() => errors.push(required(&path, "is required for apply patch")),
        (false, true) if is_patch => {
            errors.push(forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        _ => {}
    }
    errors.extend(api::apply::manager_errors(manager, &path));
    errors.extend(dry_run_error(&query.all("dryRun").collect::<Vec<_>>()));
    match query.get("fieldValidation") {
        None | Some("Ignore" | "Strict" | "Warn") => {}
        Some(other) => {
            errors.push(not_supported(&Path::new("fieldValidation"), other, &["", "Ignore", "Strict", "Warn"]));
        }
    }
    errors
}

/// What is wrong with the values of `dryRun`, shown all (`ValidateDryRun`).
pub(crate) fn dry_run_error(values: &[&str]) -> Option<api::field::Error> {
    values.iter().find(|value| **value != "All")?;
    let mut error = not_supported(&Path::new("dryRun"), "", &["All"]);
    error.message = error.message.replacen("\"\"", &serde_json::json!(values).to_string(), 1);
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused_as_upstream_refuses_them() {
        let cases = [
            (Verb::Create, "dryRun=All&fieldManager=a&fieldValidation=Strict", "", None),
            (
                Verb::Patch,
                "",
                APPLY_PATCH,
                Some(
                    "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
                ),
            ),
            (
                Verb::Patch,
                "force=true",
                "application/merge-patch+json",
                Some(
                    "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
                ),
            ),
            (
                Verb::Update,
                "dryRun=Some",
                "",
                Some(
                    "UpdateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"",
                ),
            ),
            (
                Verb::Create,
                "fieldManager=a%0Ab",
                "",
                Some(
                    "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
                ),
            ),
            (Verb::Patch, "fieldManager=a&force=false", APPLY_PATCH, None),
            (Verb::List, "resourceVersion=5&resourceVersionMatch=Exact&limit=1", "", None),
            (
                Verb::List,
                "resourceVersionMatch=Exact",
                "",
                Some(
                    "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                ),
            ),
            (
                Verb::List,
                "resourceVersion=0&resourceVersionMatch=Exact",
                "",
                Some(
                    "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ),
            ),
            (
                Verb::List,
                "sendInitialEvents=true",
                "",
                Some(
                    "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
                ),
            ),
            (Verb::Watch, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "", None),
            (Verb::Watch, "watch=1&resourceVersion=0", "", None),
            (
                Verb::Watch,
                "watch=1&continue=a",
                "",
                Some(
                    "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
                ),
            ),
            (
                Verb::List,
                "sendInitialEvents=",
                "",
                Some(
                    "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
                ),
            ),
            (
                Verb::Watch,
                "sendInitialEvents=true",
                "",
                Some(
                    "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
            ),
            (
                Verb::Watch,
                "resourceVersion=5&resourceVersionMatch=NotOlderThan",
                "",
                Some(
                    "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ),
            ),
        ];
        for (verb, query, media_type, message) in cases {
            let outcome = check(verb, &Query::parse(Some(query)), media_type);
            assert_eq!(outcome.err().map(|e| e.to_string()).as_deref(), message, "{query}");
        }
    }
}
