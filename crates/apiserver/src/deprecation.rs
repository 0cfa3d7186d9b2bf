//! Kinds that have a successor: they work, and whoever uses them is told.

use api::KindInfo;

/// Marks requests for them in the audit log.
pub(crate) const ANNOTATION: &str = "k8s.io/deprecated";

/// What is said of a deprecated kind: since when, and what there is instead (`APILifecycleDeprecated` and
/// `APILifecycleReplacement` in `staging/src/k8s.io/api`).
pub(crate) fn warning(info: &KindInfo) -> Option<&'static str> {
    match (info.group, info.kind) {
        ("", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        ("", "Endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        _ => None,
    }
}
