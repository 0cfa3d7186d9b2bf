//! What a terminating namespace says about what is left in it
//! (`pkg/controller/namespace/deletion/status_condition_utils.go`).

use std::collections::BTreeMap;

use api::KindInfo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Remaining, in_turn};

/// The namespace's status, if it should say something else than it does.
pub(super) fn plan(
    namespace: &Namespace,
    remaining: &[Remaining],
    failures: &[(&'static KindInfo, String)],
    now: Timestamp,
) -> Option<NamespaceStatus> {
    let old = namespace.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    // While pods are left, nothing else was asked to go: only of them is told.
    let remaining: Vec<_> = in_turn(remaining).collect();
    for new in wanted(&remaining, failures) {
        set(&mut conditions, new, now);
    }
    let new = NamespaceStatus { phase: Some("Terminating".to_owned()), conditions: Some(conditions) };
    (new != old).then_some(new)
}

/// Type, status, reason, message.
type Said = (&'static str, bool, &'static str, String);

fn wanted(remaining: &[&Remaining], failures: &[(&'static KindInfo, String)]) -> [Said; 5] {
    // Discovery is a table compiled in: these two cannot fail.
    let discovery = "All resources successfully discovered".to_owned();
    let parsing = "All legacy kube types successfully parsed".to_owned();
    [
        ("NamespaceDeletionDiscoveryFailure", false, "ResourcesDiscovered", discovery),
        ("NamespaceDeletionGroupVersionParsingFailure", false, "ParsedGroupVersions", parsing),
        content_failure(failures),
        content_remaining(remaining),
        finalizers_remaining(remaining),
    ]
}

fn content_failure(failures: &[(&'static KindInfo, String)]) -> Said {
    let condition = "NamespaceDeletionContentFailure";
    if failures.is_empty() {
        let message = "All content successfully deleted, may be waiting on finalization".to_owned();
        return (condition, false, "ContentDeleted", message);
    }
    let all: Vec<_> = failures.iter().map(|(kind, error)| format!("{}: {error}", kind.qualified_resource())).collect();
    let message = format!("Failed to delete all resource types, {} remaining: {}", all.len(), all.join(", "));
    (condition, true, "ContentDeletionFailed", message)
}

fn content_remaining(remaining: &[&Remaining]) -> Said {
    let condition = "NamespaceContentRemaining";
    if remaining.is_empty() {
        return (condition, false, "ContentRemoved", "All content successfully removed".to_owned());
    }
    let text =
        |left: &&Remaining| format!("{}.{} has {} resource instances", left.kind.plural, left.kind.group, left.count);
    let mut all: Vec<_> = remaining.iter().map(text).collect();
    all.sort_unstable();
    (condition, true, "SomeResourcesRemain", format!("Some resources are remaining: {}", all.join(", ")))
}

fn finalizers_remaining(remaining: &[&Remaining]) -> Said {
    let condition = "NamespaceFinalizersRemaining";
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in remaining.iter().flat_map(|left| &left.finalizers) {
        *finalizers.entry(finalizer).or_default() += count;
    }
    if finalizers.is_empty() {
        return (condition, false, "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned());
    }
    let all: Vec<_> = finalizers.iter().map(|(f, count)| format!("{f} in {count} resource instances")).collect();
    let message = format!("Some content in the namespace has finalizers remaining: {}", all.join(", "));
    (condition, true, "SomeFinalizersRemain", message)
}

fn set(conditions: &mut Vec<NamespaceCondition>, (type_, status, reason, message): Said, now: Timestamp) {
    let status = if status { "True" } else { "False" };
    let old = conditions.iter().position(|condition| condition.type_ == type_).map(|n| conditions.remove(n));
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time);
    conditions.push(NamespaceCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    });
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{left, terminating};
    use super::*;

    fn message(status: &NamespaceStatus, condition: &str) -> (String, String) {
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == condition).unwrap();
        (condition.status.clone(), condition.message.clone().unwrap())
    }

    #[test]
    fn what_is_left_and_what_keeps_it_is_told() {
        let mut kept = left("pods", 2, 0);
        kept.finalizers.insert("example.com/keep".into(), 2);
        let status = plan(&terminating(), &[kept], &[], Timestamp::UNIX_EPOCH).unwrap();
        let (is, text) = message(&status, "NamespaceContentRemaining");
        assert_eq!(
            (is.as_str(), text.as_str()),
            ("True", "Some resources are remaining: pods. has 2 resource instances")
        );
        let (is, text) = message(&status, "NamespaceFinalizersRemaining");
        assert_eq!(is, "True");
        assert!(text.ends_with("example.com/keep in 2 resource instances"), "{text}");
        assert_eq!(message(&status, "NamespaceDeletionContentFailure").0, "False");
    }

    #[test]
    fn pods_alone_are_told_of_while_there_are_any_and_then_the_rest_in_order() {
        let text = |remaining: &[Remaining]| {
            let status = plan(&terminating(), remaining, &[], Timestamp::UNIX_EPOCH).unwrap();
            message(&status, "NamespaceContentRemaining").1
        };
        let rest = [left("secrets", 1, 0), left("configmaps", 2, 0), left("leases", 1, 0)];
        let with_pods = [rest.to_vec(), vec![left("pods", 3, 0)]].concat();
        assert_eq!(text(&with_pods), "Some resources are remaining: pods. has 3 resource instances");
        let expected = [
            "configmaps. has 2 resource instances",
            "leases.coordination.k8s.io has 1 resource instances",
            "secrets. has 1 resource instances",
        ];
        assert_eq!(text(&rest), format!("Some resources are remaining: {}", expected.join(", ")));
    }

    #[test]
    fn what_is_told_is_not_told_again() {
        let (mut namespace, remaining) = (terminating(), [left("pods", 2, 0)]);
        namespace.status = plan(&namespace, &remaining, &[], Timestamp::UNIX_EPOCH);
        assert_eq!(plan(&namespace, &remaining, &[], Timestamp::MAX), None);
    }
}
