//! `pods/eviction`: a graceful deletion that says why. No PodDisruptionBudgets are served, so none stands in its way and
//! it is never answered with 429.

use axum::body::Body;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use serde_json::json;

use crate::admission::{self, Attributes, Effects, Operation};
use crate::body;
use crate::call::Call;
use crate::metadata::{check_namespace, now};
use crate::respond::{self, ApiResponse};
use crate::status::ApiError;
use crate::storage::{Current, Write};
use crate::verbs::delete;

/// Evicts a pod.
pub(crate) async fn create(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let json = call.json_body(request_body).await?;
    let decoded = body::decode(&api::eviction::KIND, &json, &call.query)?;
    check_namespace(decoded.object.metadata(), call.info.namespace.as_deref())?;
    call.shared.cache.catch_up().await?;
    call.namespace_takes_new().await?;
    let named = decoded.object.metadata().name.as_deref().unwrap_or("");
    let eviction = decoded.object.as_any().downcast_ref::<Eviction>();
    let options = eviction.and_then(|e| e.delete_options.clone()).unwrap_or_default();
    let mut options = delete::checked(options)?;
    // An eviction is a creation too, and may be tried out as one.
    options.dry_run |= call.query.dry_run()?;
    let (subject, key) = (call.info.subject(), call.info.key());
    let change = |current: &Current, _: &_| mark(call, current, named, &options);
    let marked = match call.shared.modify(call.info.kind, &subject, &key, false, change).await {
        // Only a node is asked first whose pod it is.
        Err(ApiError::NotFound(_)) if call.user.node().is_none() => {
            check_name(call, named)?;
            return Err(ApiError::NotFound(subject));
        }
        marked => marked?,
    };
    if options.resource_version.is_some() {
        // The version asked for was the one before the mark.
        options.resource_version = Some(version_of(&marked.json)?);
    }
    delete::delete_one(call, &key, &subject, &options).await?;
    let mut response = respond::json(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    );
    respond::warn(&mut response, &decoded.warnings);
    Ok(response)
}

fn check_name(call: &Call, given: &str) -> Result<(), ApiError> {
    if given == call.name() {
        return Ok(());
    }
    Err(ApiError::BadRequest("name in URL does not match name in Eviction object".into()))
}

fn version_of(json: &[u8]) -> Result<String, ApiError> {
    let pod: Pod = serde_json::from_slice(json).map_err(|e| ApiError::Internal(format!("a pod as written: {e}")))?;
    Ok(pod.metadata.resource_version.unwrap_or_default())
}

/// What makes a pod one that is being evicted (`addConditionAndDeletePod` upstream): nothing, if it is not the pod that
/// was meant, or only a trial.
fn mark(call: &Call, current: &Current, named: &str, options: &delete::Options) -> Result<Write, ApiError> {
    let mut effects = Effects::default();
    let attributes: Attributes<'_> = call.attributes(Operation::Create, Some(&*current.object));
    // It brings no pod, and whoever may not have this one evicted may not mark it, either.
    admission::validate(&attributes, None, &mut effects)?;
    check_name(call, named)?;
    delete::check_preconditions(&call.info.subject(), current, options)?;
    let mut object = current.object.clone_object();
    let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() else {
        return Err(ApiError::Internal("only pods are evicted".into()));
    };
    if options.dry_run || api::pods::is_terminal(pod) || api::pods::is_terminating(pod) {
        return Ok(Write::Keep);
    }
    api::eviction::mark(pod, now());
    object.metadata_mut().resource_version = None;
    Ok(Write::Put(object, effects))
}
