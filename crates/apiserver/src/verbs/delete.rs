//! DELETE: at once, or first a mark and later the end, when others still have to tidy up.
//!
//! In reading order: [`options`] (what the client says), [`plan`] (what that means for an object, decided purely), and here
//! what is done.

mod options;
mod plan;

use api::KindInfo;
use axum::body::Body;
use futures::StreamExt;
use http::StatusCode;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::list::{answer, list_metadata, selected};
use crate::admission::{self, Attributes, Effects, Operation};
use crate::allocators;
use crate::cache::Filter;
use crate::call::Call;
use crate::metadata::now;
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write, Written};
pub(crate) use options::{Options, checked};
use plan::{Deletion, plan};

/// How many objects of a collection are deleted at once.
const CONCURRENT_DELETES: usize = 16;

pub(super) async fn delete(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let options = options::read(call, request_body).await?;
    if let Some(why) = (call.info.kind.stays)(call.name()) {
        return Err(ApiError::Forbidden(call.info.subject(), why.to_owned()));
    }
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

/// Deletes the object under `key` as `options` say; gives its UID too. What ends gracefully is told to end before it ends,
/// also if it is given no time, so that whoever watches sees both (`updateForGracefulDeletionAndFinalizers`).
pub(crate) async fn delete_one(
    call: &Call,
    key: &str,
    subject: &Subject,
    options: &Options,
) -> Result<(Written, String), ApiError> {
    let first = delete_once(call, key, subject, options).await?;
    if !first.goes_on {
        return Ok((first.written, first.uid));
    }
    // It has another version by now, and is to be the same.
    let again = Options { uid: Some(first.uid.clone()), resource_version: None, ..options.clone() };
    match delete_once(call, key, subject, &again).await {
        // Whoever saw the mark may have been faster.
        Err(ApiError::NotFound(_)) => Ok((Written { removed: true, ..first.written }, first.uid)),
        last => last.map(|last| (last.written, last.uid)),
    }
}

/// One step of a deletion.
struct Step {
    written: Written,
    uid: String,
    /// It was marked only, and is to end now.
    goes_on: bool,
}

async fn delete_once(call: &Call, key: &str, subject: &Subject, options: &Options) -> Result<Step, ApiError> {
    let (mut uid, mut goes_on) = (String::new(), false);
    let now = now();
    let written = call
        .shared
        .modify(call.info.kind, subject, key, options.dry_run, |current, _| {
            uid = current.object.metadata().uid.clone().unwrap_or_default();
            check_preconditions(subject, current, options)?;
            let attributes = attributes(call, current);
            let mut effects = Effects::default();
            admission::validate(&attributes, None, &mut effects)?;
            let deletion = plan(&*current.object, options, now);
            goes_on = !options.dry_run && deletion.marks(&*current.object);
            write(current, deletion, goes_on, effects)
        })
        .await?;
    Ok(Step { written, uid, goes_on })
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

fn write(current: &Current, deletion: Deletion, is_first: bool, mut effects: Effects) -> Result<Write, ApiError> {
    match deletion {
        Deletion::Remove(mut last) => {
            last.metadata_mut().resource_version = None;
            if is_first {
                return Ok(Write::Put(last, effects));
            }
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

/// Deletes what a selection holds, a page of it if so asked, and answers with the list as it was before
/// (`DeleteCollection` of the store in `k8s.io/apiserver/pkg/registry/generic/registry`).
pub(super) async fn delete_collection(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let options = options::read(call, request_body).await?;
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
