//! The options of a write, checked before anything else is done (`ValidateCreateOptions` and its like in
//! `k8s.io/apimachinery/pkg/apis/meta/v1/validation`).

use api::Verb;
use api::field::{ErrorList, Path, forbidden, not_supported, required};

use crate::query::Query;
use crate::status::{ApiError, Subject};

/// The media type of a configuration to apply.
pub(crate) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Everything wrong with the options of a creation, update or patch. `content_type` is the patch's.
pub(crate) fn check(verb: Verb, query: &Query, content_type: &str) -> Result<(), ApiError> {
    let (kind, is_patch) = match verb {
        Verb::Create => ("CreateOptions", false),
        Verb::Update => ("UpdateOptions", false),
        Verb::Patch => ("PatchOptions", true),
        _ => return Ok(()),
    };
    let mut errors = ErrorList::new();
    let manager = query.get("fieldManager").unwrap_or("");
    let path = Path::new("fieldManager");
    match (is_patch && content_type == APPLY_PATCH, query.get("force").is_some()) {
        (true, _) if manager.is_empty() => errors.push(required(&path, "is required for apply patch")),
        (false, true) if is_patch => {
            errors.push(forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        _ => {}
    }
    errors.extend(api::apply::manager_errors(manager, &path));
    if let Some(other) = query.all("dryRun").find(|v| !matches!(*v, "" | "All")) {
        errors.push(not_supported(&Path::new("dryRun"), other, &["All"]));
    }
    match query.get("fieldValidation") {
        None | Some("Ignore" | "Strict" | "Warn") => {}
        Some(other) => {
            errors.push(not_supported(&Path::new("fieldValidation"), other, &["", "Ignore", "Strict", "Warn"]));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::Invalid(Subject::options(kind), errors)) }
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
                    "UpdateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": supported values: \"All\"",
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
        ];
        for (verb, query, media_type, message) in cases {
            let outcome = check(verb, &Query::parse(Some(query)), media_type);
            assert_eq!(outcome.err().map(|e| e.to_string()).as_deref(), message, "{query}");
        }
    }
}
