//! DELETE: at once, or first a mark and later the end, when others still have to tidy up.
//!
//! [`plan`] decides, purely. Compare `rest.BeforeDelete`, `deletionFinalizersForGarbageCollection` and the pod's
//! `CheckGracefulDelete` upstream.

use api::field::{Path, invalid, not_supported};
use api::metadata::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use api::well_known::SYSTEM_PRIORITY_CLASSES;
use api::{KindInfo, Object, Verb};
use axum::body::Body;
use futures::StreamExt;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions, Time};
use serde_json::json;

use super::list::{answer, list_metadata, selected};
use crate::admission::{self, Attributes, Effects, Operation};
use crate::allocators;
use crate::cache::Filter;
use crate::call::Call;
use crate::metadata::now;
use crate::options::dry_run_error;
use crate::query::Query;
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write, Written};

/// How many objects of a collection are deleted at once.
const CONCURRENT_DELETES: usize = 16;

/// What becomes of the objects an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `DeleteOptions`, from body or query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    grace_period_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    propagation: Option<Propagation>,
    /// `orphanDependents=false`: whoever asks so is told whether the object is still there.
    says_whether_gone: bool,
    pub(crate) dry_run: bool,
}

pub(super) async fn delete(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let options = options(call, request_body).await?;
    stays(call)?;
    let (written, uid) = delete_one(call, &call.info.key(), &call.info.subject(), &options).await?;
    let info = call.info.kind.info;
    if !written.removed && options.says_whether_gone {
        return Ok(call.wrote(StatusCode::ACCEPTED, written, &[]));
    }
    if !written.removed || shows_what_is_gone(info) {
        return Ok(call.wrote(StatusCode::OK, written, &[]));
    }
    let mut details = json!({"name": call.name(), "kind": info.plural, "uid": uid});
    if !info.group.is_empty() {
        details["group"] = json!(info.group);
    }
    Ok(respond::succeeded(StatusCode::OK, details, call.output.encoding))
}

/// A class the system's own pods name is not deleted by its name, be it there or not (`Delete` of
/// `pkg/registry/scheduling/priorityclass/storage`).
fn stays(call: &Call) -> Result<(), ApiError> {
    let is_of_system = SYSTEM_PRIORITY_CLASSES.iter().any(|(name, ..)| *name == call.name());
    if call.info.kind.info.plural != "priorityclasses" || !is_of_system {
        return Ok(());
    }
    Err(ApiError::Forbidden(call.info.subject(), "this is a system priority class and cannot be deleted".into()))
}

/// Kinds whose deletion is answered with the object even if it is gone (`ReturnDeletedObject` in each kind's storage
/// upstream).
pub(crate) fn shows_what_is_gone(info: &KindInfo) -> bool {
    const PLURALS: [&str; 7] = [
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "podtemplates",
        "resourcequotas",
        "serviceaccounts",
        "services",
    ];
    info.group.is_empty() && PLURALS.contains(&info.plural)
}

/// Deletes the object under `key` as `options` say; gives its UID too.
pub(crate) async fn delete_one(
    call: &Call,
    key: &str,
    subject: &Subject,
    options: &Options,
) -> Result<(Written, String), ApiError> {
    let mut uid = String::new();
    let now = now();
    let written = call
        .shared
        .modify(call.info.kind, subject, key, options.dry_run, |current, _| {
            uid = current.object.metadata().uid.clone().unwrap_or_default();
            check_preconditions(subject, current, options)?;
            let attributes = attributes(call, current);
            let mut effects = Effects::default();
            admission::validate(&attributes, None, &mut effects)?;
            write(current, options, now, effects)
        })
        .await?;
    Ok((written, uid))
}

/// What admission is told of a deletion; the request may name a whole collection.
fn attributes<'a>(call: &'a Call, current: &'a Current) -> Attributes<'a> {
    let metadata = current.object.metadata();
    let plain = call.attributes(Operation::Delete, Some(&*current.object));
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or(""));
    Attributes { subresource: None, namespace, name, ..plain }
}

/// The object must be the one that is meant (`BeforeDelete`, which names objects by their kind).
pub(crate) fn check_preconditions(subject: &Subject, current: &Current, options: &Options) -> Result<(), ApiError> {
    let uid = current.object.metadata().uid.as_deref().unwrap_or("");
    let version = current.revision.to_string();
    // Namespaces are looked after by a storage of their own.
    if current.object.as_any().is::<Namespace>() {
        let failed = |what: &str, wanted: &str, is: &str| {
            let message = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}");
            Err(ApiError::Conflict(subject.clone(), message))
        };
        return match (&options.uid, &options.resource_version) {
            (Some(other), _) if other != uid => failed("UID", other, uid),
            (_, Some(other)) if *other != version => failed("ResourceVersion", other, &version),
            _ => Ok(()),
        };
    }
    let message = match (&options.uid, &options.resource_version) {
        (Some(other), _) if other != uid => format!(
            "the UID in the precondition ({other}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        ),
        (_, Some(other)) if *other != version => format!(
            "the ResourceVersion in the precondition ({other}) does not match the ResourceVersion in record ({version}). \
             The object might have been modified"
        ),
        _ => return Ok(()),
    };
    let name = current.object.metadata().name.as_deref().unwrap_or("");
    Err(ApiError::Conflict(Subject::named(subject.group_of_kind(), subject.kind, name), message))
}

fn write(current: &Current, options: &Options, now: Timestamp, mut effects: Effects) -> Result<Write, ApiError> {
    match plan(&*current.object, options, now) {
        Deletion::Remove(mut last) => {
            last.metadata_mut().resource_version = None;
            effects.ops.extend(allocators::release(&*current.object));
            Ok(Write::Remove(last, effects))
        }
        Deletion::Mark(mut marked) => {
            marked.metadata_mut().resource_version = None;
            Ok(Write::Put(marked, effects))
        }
        Deletion::UnderWay => Ok(Write::Keep),
    }
}

/// What a deletion does.
enum Deletion {
    /// The object ends now, and looks so at last.
    Remove(Box<dyn Object>),
    /// The object is told to end.
    Mark(Box<dyn Object>),
    /// It has been told so already.
    UnderWay,
}

/// What must happen so that `old` is deleted as `options` say. On a marked object the same options change nothing.
fn plan(old: &dyn Object, options: &Options, now: Timestamp) -> Deletion {
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
        // A second deletion may only shorten the grace.
        (Some(at), left) if left > grace => {
            let earlier = at.0.saturating_sub(SignedDuration::from_secs(left - grace)).unwrap_or(at.0);
            mark(&mut *new, earlier, grace);
            marked(new)
        }
        (Some(_), _) if grace == 0 && !has_finalizers => Deletion::Remove(new),
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

/// The options of a request: in its body, or else in its query. Who sends a body says all of it there; only a dry run that
/// is asked for in the query is one beside a body, too, where upstream deletes.
async fn options(call: &Call, request_body: Body) -> Result<Options, ApiError> {
    let json = call.json_body(request_body).await?;
    if json.is_empty() {
        return checked(in_query(call.info.verb, &call.query)?);
    }
    let mut options = checked(in_body(&json)?)?;
    options.dry_run |= call.query.dry_run()?;
    Ok(options)
}

fn in_query(verb: Verb, query: &Query) -> Result<DeleteOptions, ApiError> {
    // A version says of a collection how it is listed.
    let text = |key: &str| query.get(key).filter(|_| verb == Verb::Delete).map(str::to_owned);
    let policy = query.all("propagationPolicy").next();
    let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
    Ok(DeleteOptions {
        preconditions: (preconditions != Preconditions::default()).then_some(preconditions),
        grace_period_seconds: query.integer("gracePeriodSeconds")?,
        orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
        propagation_policy: policy.map(Into::into),
        dry_run: query.has("dryRun").then(|| query.all("dryRun").map(str::to_owned).collect()),
        ..DeleteOptions::default()
    })
}

/// Every group has `DeleteOptions` of its own, which are all the same, whatever the group.
fn in_body(json: &[u8]) -> Result<DeleteOptions, ApiError> {
    let options: Option<DeleteOptions> = serde_json::from_slice(json).map_err(|error| {
        let prefix = if error.is_data() { "DeleteOptions cannot be read" } else { NO_JSON };
        ApiError::BadRequest(format!("{prefix}: {}", api::decode::go_error(json, &error)))
    })?;
    let options = options.unwrap_or_default();
    let (kind, version) = (options.kind.as_deref().unwrap_or(""), options.api_version.as_deref().unwrap_or(""));
    if version.matches('/').count() > 1 {
        return Err(ApiError::BadRequest(format!("unexpected GroupVersion string: {version}")));
    }
    if matches!(kind, "" | "DeleteOptions") {
        return Ok(options);
    }
    let version = if version.is_empty() { "meta.k8s.io/v1" } else { version };
    Err(ApiError::BadRequest(format!("no kind {kind:?} is registered for version {version:?} in scheme {SCHEME:?}")))
}

/// How a body that is no JSON is refused.
const NO_JSON: &str = "couldn't get version/kind; json parse error";
/// Where upstream knows options from.
const SCHEME: &str = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27";

/// What `given` asks for, if it makes sense (`ValidateDeleteOptions`).
pub(crate) fn checked(given: DeleteOptions) -> Result<Options, ApiError> {
    let mut errors = api::field::ErrorList::new();
    let propagation = wanted(&given, &mut errors);
    let dry_runs: Vec<&str> = given.dry_run.iter().flatten().map(String::as_str).collect();
    errors.extend(dry_run_error(&dry_runs));
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Subject::options("DeleteOptions"), errors));
    }
    let preconditions = given.preconditions.unwrap_or_default();
    Ok(Options {
        grace_period_seconds: given.grace_period_seconds,
        uid: preconditions.uid,
        resource_version: preconditions.resource_version,
        propagation,
        says_whether_gone: given.orphan_dependents == Some(false),
        dry_run: !dry_runs.is_empty(),
    })
}

const POLICIES: [&str; 4] = ["Foreground", "Background", "Orphan", "nil"];

fn wanted(given: &DeleteOptions, errors: &mut api::field::ErrorList) -> Option<Propagation> {
    let path = Path::new("propagationPolicy");
    match (given.propagation_policy.as_deref(), given.orphan_dependents) {
        (Some(policy), Some(_)) => {
            errors.push(invalid(&path, policy, "orphanDependents and deletionPropagation cannot be both set"));
            None
        }
        (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some(other), None) => {
            errors.push(not_supported(&path, other, &POLICIES));
            None
        }
        (None, None) => None,
    }
}

/// Deletes what a selection holds, a page of it if so asked, and answers with the list as it was before
/// (`DeleteCollection` of the store in `k8s.io/apiserver/pkg/registry/generic/registry`).
pub(super) async fn delete_collection(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let options = options(call, request_body).await?;
    let info = call.info.kind.info;
    let filter = Filter::parse(info, call.info.namespace.as_deref(), None, &call.query)?;
    let snapshot = selected(call, &filter).await?;
    let deletions = snapshot.items.clone().into_iter().map(|entry| {
        let options = &options;
        async move {
            let subject = Subject::new(info, entry.name());
            match delete_one(call, &entry.key, &subject, options).await {
                // Someone else was faster: it is gone, which is what was asked for.
                Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
    });
    let results: Vec<_> = futures::stream::iter(deletions).buffered(CONCURRENT_DELETES).collect().await;
    results.into_iter().collect::<Result<(), _>>()?;
    let metadata = list_metadata(&filter, &snapshot);
    answer(call, &metadata, snapshot)
}

#[cfg(test)]
mod tests {
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
