//! What the checks share: walking a pod's containers, and upstream's way of putting a finding into words
//! (`policy/helpers.go`, `policy/visitor.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext};

use super::Violation;

pub(super) fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("{:?}", item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn containers_named(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// The names of the containers for which `is_bad` holds.
pub(super) fn bad(spec: &PodSpec, is_bad: impl Fn(&Container) -> bool) -> Vec<&str> {
    api::pods::all_containers(spec).filter(|c| is_bad(c)).map(|c| c.name.as_str()).collect()
}

/// The same by the container's security context.
pub(super) fn bad_context(spec: &PodSpec, is_bad: impl Fn(&SecurityContext) -> bool) -> Vec<&str> {
    bad(spec, |c| c.security_context.as_ref().is_some_and(&is_bad))
}

/// Who set something: the pod, containers, or both.
pub(super) fn setters(pod: bool, containers: &[&str]) -> Vec<String> {
    let pod = pod.then(|| "pod".to_owned());
    pod.into_iter().chain((!containers.is_empty()).then(|| containers_named(containers))).collect()
}

/// A finding, unless there is nobody to blame.
pub(super) fn blame(setters: &[String], reason: &str, says: impl FnOnce(&str) -> String) -> Option<Violation> {
    (!setters.is_empty()).then(|| Violation { reason: reason.to_owned(), detail: says(&setters.join(" and ")) })
}

/// The words used for something forbidden, each once.
pub(super) fn words<'a>(of: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    of.collect()
}
