//! What a deletion does to an object, decided purely. Compare `rest.BeforeDelete`,
//! `deletionFinalizersForGarbageCollection` and the pod's `CheckGracefulDelete` upstream.

use api::Object;
use api::metadata::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::options::{Options, Propagation};

/// What a deletion does.
pub(super) enum Deletion {
    /// The object ends now, and looks so at last.
    Remove(Box<dyn Object>),
    /// The object is told to end.
    Mark(Box<dyn Object>),
    /// It has been told so already.
    UnderWay,
}

impl Deletion {
    /// Whether the object ends now, but has not been told so.
    pub(super) fn marks(&self, old: &dyn Object) -> bool {
        let mark = |object: &dyn Object| {
            let metadata = object.metadata();
            (metadata.deletion_timestamp.clone(), metadata.deletion_grace_period_seconds)
        };
        matches!(self, Deletion::Remove(last) if mark(&**last) != mark(old))
    }
}

/// What must happen so that `old` is deleted as `options` say. On a marked object the same options change nothing.
pub(super) fn plan(old: &dyn Object, options: &Options, now: Timestamp) -> Deletion {
    if let Some(namespace) = old.as_any().downcast_ref::<Namespace>() {
        return plan_namespace(namespace, options, now);
    }
    let mut new = old.clone_object();
    let finalizers = finalizers(old, propagation(old, options));
    new.metadata_mut().finalizers = Some(finalizers).filter(|f| !f.is_empty());
    let metadata = old.metadata();
    let has_finalizers = new.metadata().finalizers.is_some();
    let grace = old.as_any().downcast_ref::<Pod>().map(|pod| pod_grace(pod, options));
    if grace.is_none() && !has_finalizers {
        return Deletion::Remove(old.clone_object());
    }
    // What ends gracefully is marked before it ends, also if it is given no time.
    let grace = grace.unwrap_or(0);
    let marked = |new| if grace == 0 && !has_finalizers { Deletion::Remove(new) } else { Deletion::Mark(new) };
    match (&metadata.deletion_timestamp, metadata.deletion_grace_period_seconds.unwrap_or(0)) {
        // It was to end at once, and whoever was to end it has stopped half way.
        (Some(_), 0) if !has_finalizers => Deletion::Remove(new),
        // A second deletion may only shorten the grace.
        (Some(at), left) if left > grace => {
            let earlier = at.0.saturating_sub(SignedDuration::from_secs(left - grace)).unwrap_or(at.0);
            mark(&mut *new, earlier, grace);
            marked(new)
        }
        (Some(_), _) if new.metadata().finalizers == metadata.finalizers => Deletion::UnderWay,
        (Some(_), _) => Deletion::Mark(new),
        (None, _) => {
            let at = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
            mark(&mut *new, at, grace);
            let metadata = new.metadata_mut();
            metadata.generation = metadata.generation.map(|g| g + 1);
            marked(new)
        }
    }
}

fn mark(object: &mut dyn Object, at: Timestamp, grace: i64) {
    let metadata = object.metadata_mut();
    metadata.deletion_timestamp = Some(Time(at));
    metadata.deletion_grace_period_seconds = Some(grace);
}

/// How long a pod gets to stop. One that never had a node, or has stopped, needs no time.
fn pod_grace(pod: &Pod, options: &Options) -> i64 {
    if api::pods::node_name(pod).is_none() || api::pods::is_terminal(pod) {
        return 0;
    }
    let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE_SECONDS);
    let seconds = options.grace_period_seconds.unwrap_or(own);
    if seconds < 0 { 1 } else { seconds }
}

const DEFAULT_GRACE_SECONDS: i64 = 30;

/// A namespace is told to end once; what is to become of what it owns, too, is told then.
fn plan_namespace(namespace: &Namespace, options: &Options, now: Timestamp) -> Deletion {
    let spec_holds = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty());
    let metadata_holds = namespace.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
    match (&namespace.metadata.deletion_timestamp, spec_holds || metadata_holds) {
        (_, false) => Deletion::Remove(Box::new(namespace.clone())),
        (Some(_), true) => Deletion::UnderWay,
        (None, true) => {
            let mut marked = namespace.clone();
            marked.metadata.finalizers = Some(finalizers(namespace, options.propagation)).filter(|f| !f.is_empty());
            marked.metadata.deletion_timestamp = Some(Time(now));
            marked.status.get_or_insert_default().phase = Some("Terminating".to_owned());
            Deletion::Mark(Box::new(marked))
        }
    }
}

/// What becomes of what `old` owns (`DefaultGarbageCollectionPolicy` of the strategies upstream). A replication controller
/// leaves its pods, as it did before there was anybody to collect them; Events own nothing.
fn propagation(old: &dyn Object, options: &Options) -> Option<Propagation> {
    let has = |finalizer: &str| old.metadata().finalizers.iter().flatten().any(|f| f == finalizer);
    if old.as_any().is::<Event>() {
        return Some(Propagation::Background);
    }
    let is_said = options.propagation.is_some() || has(FINALIZER_FOREGROUND) || has(FINALIZER_ORPHAN);
    let by_default = old.as_any().is::<ReplicationController>() && !is_said;
    if by_default { Some(Propagation::Orphan) } else { options.propagation }
}

/// The finalizers an object has while what it owns is dealt with as asked. Without a wish nothing changes.
fn finalizers(old: &dyn Object, propagation: Option<Propagation>) -> Vec<String> {
    let mut finalizers = old.metadata().finalizers.clone().unwrap_or_default();
    let wanted = match propagation {
        None => return finalizers,
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some(FINALIZER_FOREGROUND),
        Some(Propagation::Orphan) => Some(FINALIZER_ORPHAN),
    };
    finalizers.retain(|f| f != FINALIZER_FOREGROUND && f != FINALIZER_ORPHAN || Some(f.as_str()) == wanted);
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|f| f == wanted)
    {
        finalizers.push(wanted.to_owned());
    }
    finalizers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str, grace: i64) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [], "nodeName": node, "terminationGracePeriodSeconds": grace},
        }))
        .unwrap()
    }

    fn says(old: &dyn Object, options: &Options) -> String {
        match plan(old, options, Timestamp::UNIX_EPOCH) {
            Deletion::Remove(last) => match &last.metadata().deletion_timestamp {
                Some(at) => {
                    format!("remove, marked {:?}", (at.0.as_second(), last.metadata().deletion_grace_period_seconds))
                }
                None => "remove".into(),
            },
            Deletion::UnderWay => "under way".into(),
            Deletion::Mark(marked) => {
                let m = marked.metadata();
                let at = m.deletion_timestamp.as_ref().map(|t| t.0.as_second());
                let finalizers = m.finalizers.clone().unwrap_or_default().join("+");
                format!("mark {at:?} {:?} {finalizers}", m.deletion_grace_period_seconds)
            }
        }
    }

    fn with(grace: Option<i64>, propagation: Option<Propagation>) -> Options {
        Options { grace_period_seconds: grace, propagation, ..Options::default() }
    }

    #[test]
    fn pods_get_their_grace_and_everything_else_ends_at_once() {
        let cases: [(&str, Pod, Options, &str); 6] = [
            ("a pod on a node gets its own grace", pod("n", 20), with(None, None), "mark Some(20) Some(20) "),
            ("the client may ask for another", pod("n", 20), with(Some(5), None), "mark Some(5) Some(5) "),
            ("or for none", pod("n", 20), with(Some(0), None), "remove, marked (0, Some(0))"),
            ("a pod without a node needs none", pod("", 20), with(None, None), "remove, marked (0, Some(0))"),
            ("a negative grace is a second", pod("n", 20), with(Some(-3), None), "mark Some(1) Some(1) "),
            (
                "orphaning leaves a finalizer",
                pod("", 20),
                with(None, Some(Propagation::Orphan)),
                "mark Some(0) Some(0) orphan",
            ),
        ];
        for (sentence, pod, options, expected) in cases {
            assert_eq!(says(&pod, &options), expected, "{sentence}");
        }
    }

    #[test]
    fn a_second_deletion_may_only_shorten_the_grace() {
        let Deletion::Mark(marked) = plan(&pod("n", 20), &with(None, None), Timestamp::UNIX_EPOCH) else { panic!() };
        assert_eq!(says(&*marked, &with(None, None)), "under way");
        assert_eq!(says(&*marked, &with(Some(60), None)), "under way");
        assert_eq!(says(&*marked, &with(Some(4), None)), "mark Some(4) Some(4) ");
        assert_eq!(says(&*marked, &with(Some(0), None)), "remove, marked (0, Some(0))");
    }

    #[test]
    fn who_says_nothing_orphans_the_pods_of_a_replication_controller_and_nothing_else() {
        let nothing = with(None, None);
        let mut rc = ReplicationController::default();
        assert_eq!(says(&rc, &nothing), "mark Some(0) Some(0) orphan");
        assert_eq!(says(&rc, &with(None, Some(Propagation::Background))), "remove");
        rc.metadata.finalizers = Some(vec![FINALIZER_FOREGROUND.into()]);
        assert_eq!(says(&rc, &nothing), "mark Some(0) Some(0) foregroundDeletion", "as it was said before");
        assert_eq!(says(&k8s_openapi::api::core::v1::Secret::default(), &nothing), "remove");
        for any in [Propagation::Foreground, Propagation::Orphan] {
            assert_eq!(says(&Event::default(), &with(None, Some(any))), "remove", "an event owns nothing");
        }
    }

    #[test]
    fn a_namespace_waits_for_its_finalizers() {
        let mut namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}})).unwrap();
        let Deletion::Mark(marked) = plan(&namespace, &with(None, None), Timestamp::UNIX_EPOCH) else { panic!() };
        assert_eq!(says(&*marked, &with(None, None)), "under way");
        assert_eq!(
            says(&namespace, &with(None, Some(Propagation::Foreground))),
            "mark Some(0) None foregroundDeletion"
        );
        namespace.spec = None;
        assert_eq!(says(&namespace, &with(None, None)), "remove");
    }

    proptest::proptest! {
        #[test]
        fn a_plan_applied_leaves_nothing_to_do(
            grace in proptest::option::of(-2i64..100),
            own in 0i64..100,
            on_node: bool,
            policy in 0..4,
        ) {
            let propagation = match policy {
                0 => None,
                1 => Some(Propagation::Background),
                2 => Some(Propagation::Foreground),
                _ => Some(Propagation::Orphan),
            };
            let options = with(grace, propagation);
            let pod = pod(if on_node { "n" } else { "" }, own);
            if let Deletion::Mark(marked) = plan(&pod, &options, Timestamp::UNIX_EPOCH) {
                proptest::prop_assert_eq!(says(&*marked, &options), "under way");
            }
        }
    }
}
