//! The next step towards an empty namespace.

use std::collections::BTreeMap;

use api::KindInfo;
use k8s_openapi::api::core::v1::Namespace;

/// The finalizer that keeps a namespace until we have emptied it.
const FINALIZER: &str = "kubernetes";

/// What is left of one kind.
#[derive(Clone, Debug)]
pub(super) struct Remaining {
    /// The kind.
    pub(super) kind: &'static KindInfo,
    /// How many objects there are, more than none.
    pub(super) count: usize,
    /// How many of them nobody has deleted yet.
    pub(super) undeleted: usize,
    /// How many objects each finalizer keeps.
    pub(super) finalizers: BTreeMap<String, usize>,
}

/// A step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Deletes all objects of a kind, because their namespace goes.
    DeleteAll(&'static KindInfo),
    /// Lets the namespace go, because it is empty.
    Finalize,
}

/// Whether the namespace waits for us.
pub(super) fn is_ours(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some() && finalizers.into_iter().flatten().any(|f| f == FINALIZER)
}

/// The steps for a namespace with this left in it. Nothing while all that could be deleted is on its way.
pub(super) fn plan(namespace: &Namespace, remaining: &[Remaining]) -> Vec<Action> {
    if !is_ours(namespace) {
        return Vec::new();
    }
    if remaining.is_empty() {
        return vec![Action::Finalize];
    }
    in_turn(remaining).filter(|left| left.undeleted > 0).map(|left| Action::DeleteAll(left.kind)).collect()
}

/// What is to go now. Pods first: nothing they rely on may vanish while they still run (`OrderedNamespaceDeletion`).
pub(super) fn in_turn(remaining: &[Remaining]) -> impl Iterator<Item = &Remaining> {
    let pods = remaining.iter().any(|left| left.kind.plural == "pods");
    remaining.iter().filter(move |left| !pods || left.kind.plural == "pods")
}

/// The namespace without our finalizer.
pub(super) fn finalized(namespace: &Namespace) -> Namespace {
    let mut namespace = namespace.clone();
    let spec = namespace.spec.get_or_insert_default();
    spec.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    namespace
}

/// Namespaces for the tests of this folder.
#[cfg(test)]
pub(super) mod testing {
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::NamespaceSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    pub(crate) fn terminating() -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        namespace.spec = Some(NamespaceSpec { finalizers: Some(vec![FINALIZER.to_owned()]) });
        namespace
    }

    pub(crate) fn left(plural: &str, count: usize, undeleted: usize) -> Remaining {
        let kind = api::kinds().find(|kind| kind.info.plural == plural).unwrap().info;
        Remaining { kind, count, undeleted, finalizers: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{left, terminating};
    use super::*;

    fn summary(actions: &[Action]) -> Vec<&'static str> {
        let text = |action: &Action| match action {
            Action::DeleteAll(kind) => kind.plural,
            Action::Finalize => "finalize",
        };
        actions.iter().map(text).collect()
    }

    #[test]
    fn pods_go_first_then_the_rest_then_the_namespace() {
        let cases = [
            ("pods first", vec![left("configmaps", 2, 2), left("pods", 3, 1)], vec!["pods"]),
            ("pods on their way are waited for", vec![left("configmaps", 2, 2), left("pods", 3, 0)], vec![]),
            ("then all the rest", vec![left("configmaps", 2, 2), left("secrets", 1, 1)], vec!["configmaps", "secrets"]),
            ("what a finalizer keeps is waited for", vec![left("configmaps", 2, 0)], vec![]),
            ("then the namespace", vec![], vec!["finalize"]),
        ];
        for (sentence, remaining, expected) in cases {
            assert_eq!(summary(&plan(&terminating(), &remaining)), expected, "{sentence}");
        }
    }

    #[test]
    fn a_living_namespace_is_left_alone() {
        let remaining = [left("pods", 1, 1)];
        assert!(plan(&Namespace::default(), &remaining).is_empty());
        assert!(plan(&finalized(&terminating()), &[]).is_empty(), "and one that waits for others");
    }

    proptest! {
        #[test]
        fn planning_again_on_the_result_ends_with_nothing(
            counts in proptest::collection::vec(1..5_usize, 3),
            kept in any::<bool>(),
        ) {
            let mut namespace = terminating();
            let mut remaining: Vec<_> =
                ["pods", "configmaps", "secrets"].iter().zip(&counts).map(|(kind, n)| left(kind, *n, *n)).collect();
            for _ in 0..3 {
                for action in plan(&namespace, &remaining) {
                    match action {
                        Action::Finalize => namespace = finalized(&namespace),
                        Action::DeleteAll(kind) if kept => {
                            remaining.iter_mut().filter(|left| left.kind.plural == kind.plural).for_each(|left| left.undeleted = 0);
                        }
                        Action::DeleteAll(kind) => remaining.retain(|left| left.kind.plural != kind.plural),
                    }
                }
            }
            prop_assert!(plan(&namespace, &remaining).is_empty());
            prop_assert_eq!(is_ours(&namespace), kept);
        }
    }
}
