//! Applies the steps of a plan: claims first, then creations in growing batches or deletions all at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use api::owners;
use client::{EventType, object_reference};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Error;
use serde_json::json;
use tokio::task::JoinSet;

use super::Replication;
use super::plan::Action;
use super::replicas::Replicas;
use crate::context::Key;
use crate::pod::PodInfo;
use crate::rest::{self, Rest};

/// The first batch of creations; each batch that succeeds is followed by one twice its size. An owner whose pods
/// cannot be created (a quota, a template that is refused) so fails once, not 500 times.
const FIRST_BATCH: usize = 1;

/// Applies `actions` for `owner`; the first error is returned when everything else has been tried.
pub(super) async fn execute<R: Replicas>(
    controller: &Replication<R>,
    key: &Key,
    owner: &Arc<R>,
    actions: Vec<Action>,
) -> Result<(), Error> {
    let path = rest::path::<Pod>(Some(&key.namespace));
    let (mut creations, mut doomed) = (0, Vec::new());
    let mut rechecked = false;
    for action in actions {
        match action {
            Action::Adopt(pod) => {
                // The cache may not know yet that the owner is gone; a pod adopted by a ghost would be collected.
                if !std::mem::replace(&mut rechecked, true) && !still_wanted(controller, key, &**owner).await? {
                    return Ok(());
                }
                let mut references = pod.common.owners.clone();
                references.push(owners::controller_reference(&**owner));
                set_owners(&controller.rest, &path, &pod, &references).await?;
            }
            Action::Release(pod) => {
                let mut references = pod.common.owners.clone();
                references.retain(|r| Some(r.uid.as_str()) != owner.meta().uid.as_deref());
                rest::ignore_not_found(set_owners(&controller.rest, &path, &pod, &references).await)?;
            }
            Action::Create(count, why) => {
                tracing::debug!(object = ?key, reason = ?why, count, "creating pods");
                creations += count;
            }
            Action::Delete(pod, why) => {
                tracing::debug!(object = ?key, reason = ?why, pod = &*pod.name, "deleting pod");
                doomed.push(pod);
            }
        }
    }
    if creations == 0 && doomed.is_empty() {
        return Ok(());
    }
    let uids: HashSet<_> = doomed.iter().map(|pod| pod.uid.clone()).collect();
    controller.expectations.expect(key, creations, uids, Instant::now());
    create(controller, key, owner, creations, &path).await?;
    delete(controller, key, owner, doomed, &path).await
}

async fn still_wanted<R: Replicas>(controller: &Replication<R>, key: &Key, owner: &R) -> Result<bool, Error> {
    let live = controller.rest.get_metadata(&rest::path::<R>(Some(&key.namespace)), &key.name).await?;
    Ok(live.is_some_and(|live| live.uid == owner.meta().uid && live.deletion_timestamp.is_none()))
}

/// Sets the owners of exactly the pod that was planned for.
async fn set_owners(rest: &Rest, path: &str, pod: &PodInfo, references: &[OwnerReference]) -> Result<(), Error> {
    // An empty list is no list, as everywhere in the API.
    let references = (!references.is_empty()).then_some(references);
    let patch = json!({"metadata": {
        "uid": pod.uid,
        "resourceVersion": pod.version,
        "ownerReferences": references,
    }});
    rest.merge_patch(path, &pod.name, None, &patch).await.map(|_| ())
}

async fn create<R: Replicas>(
    controller: &Replication<R>,
    key: &Key,
    owner: &Arc<R>,
    count: usize,
    path: &str,
) -> Result<(), Error> {
    if count == 0 {
        return Ok(());
    }
    let body: Arc<[u8]> = rest::encode(&new_pod(&**owner)).into();
    let reference = object_reference(&**owner);
    let (mut left, mut batch) = (count, FIRST_BATCH);
    while left > 0 {
        let size = batch.min(left);
        left -= size;
        let failed = create_batch(controller, key, &body, size, path, &reference).await;
        if let Some(error) = failed {
            controller.expectations.creations_cancelled(key, left);
            // In a namespace that is being emptied no later attempt will fare better.
            return if rest::is_namespace_terminating(&error) { Ok(()) } else { Err(error) };
        }
        batch *= 2;
    }
    Ok(())
}

/// Creates `size` pods at once, each in a task of its own so that all cores take part; returns an error if any failed.
async fn create_batch<R: Replicas>(
    controller: &Replication<R>,
    key: &Key,
    body: &Arc<[u8]>,
    size: usize,
    path: &str,
    owner: &ObjectReference,
) -> Option<Error> {
    let mut batch = JoinSet::new();
    for _ in 0..size {
        let (rest, path, body) = (controller.rest.clone(), path.to_owned(), body.to_vec());
        batch.spawn(async move { rest.create(&path, body).await });
    }
    let mut failed = None;
    while let Some(joined) = batch.join_next().await {
        match joined {
            Ok(Ok(pod)) => {
                let message = format!("Created pod: {}", pod.metadata.name);
                controller.recorder.event(owner, EventType::Normal, "SuccessfulCreate", message);
            }
            Ok(Err(error)) => {
                controller.expectations.creations_cancelled(key, 1);
                if !rest::is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", message(&error));
                    controller.recorder.event(owner, EventType::Warning, "FailedCreate", message);
                }
                failed = Some(error);
            }
            Err(panic) => {
                controller.expectations.creations_cancelled(key, 1);
                failed = Some(Error::Service(Box::new(panic)));
            }
        }
    }
    failed
}

async fn delete<R: Replicas>(
    controller: &Replication<R>,
    key: &Key,
    owner: &Arc<R>,
    doomed: Vec<Arc<PodInfo>>,
    path: &str,
) -> Result<(), Error> {
    let owner = object_reference(&**owner);
    let mut deletions = JoinSet::new();
    for pod in doomed {
        let (rest, path) = (controller.rest.clone(), path.to_owned());
        deletions.spawn(async move {
            let result = rest.delete(&path, &pod.name, &rest::only_uid(&pod.uid)).await;
            (pod, result)
        });
    }
    let mut failed = None;
    while let Some(joined) = deletions.join_next().await {
        match joined {
            Ok((pod, Ok(()))) => {
                controller.recorder.event(
                    &owner,
                    EventType::Normal,
                    "SuccessfulDelete",
                    format!("Deleted pod: {}", pod.name),
                );
            }
            Ok((pod, Err(error))) => {
                controller.expectations.deletion_observed(key, &pod.uid);
                let message = format!("Error deleting pod \"{}\": {}", pod.name, message(&error));
                controller.recorder.event(&owner, EventType::Warning, "FailedDelete", message);
                failed = Some(error);
            }
            Err(panic) => failed = Some(Error::Service(Box::new(panic))),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The pod that `owner`'s template describes.
fn new_pod<R: Replicas>(owner: &R) -> Pod {
    let template = owner.template().cloned().unwrap_or_default();
    let described = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: owner.meta().name.as_ref().map(|name| format!("{name}-")),
            namespace: owner.meta().namespace.clone(),
            labels: described.labels,
            annotations: described.annotations,
            finalizers: described.finalizers,
            owner_references: Some(vec![owners::controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Writes the status that `owner` carries.
pub(super) async fn write_status<R: Replicas>(rest: &Rest, key: &Key, owner: R) -> Result<(), Error> {
    let path = rest::path::<R>(Some(&key.namespace));
    let written = rest.replace(&path, &key.name, Some("status"), rest::encode(&owner)).await.map(|_| ());
    rest::ignore_not_found(written)
}

/// An error as events tell it: what the server said, where it said something.
pub(super) fn message(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
