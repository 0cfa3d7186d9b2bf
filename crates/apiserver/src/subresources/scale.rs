//! `/scale`: how many replicas a workload wants, as `autoscaling/v1` Scale.

use api::apply::Conflict;
use api::{Object, Subresource};
use axum::body::Body;
use http::StatusCode;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::{Value, json};

use crate::admission::Effects;
use crate::body::{self, Decoded};
use crate::call::Call;
use crate::metadata::{check_applied, check_identity};
use crate::negotiate;
use crate::options::APPLY_PATCH;
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write};
use crate::tracking::{Tracking, writer};
use crate::verbs::apply::Config;
use crate::verbs::step::{check_uid, check_version};
use crate::verbs::{self, patch};

/// The number of replicas of an object.
pub(crate) async fn get(call: &Call) -> Result<ApiResponse, ApiError> {
    call.shared.cache.catch_up().await?;
    let entry = call.shared.cache.of(call.info.kind).get(&call.info.key());
    let not_found = || ApiError::NotFound(Subject { group: "autoscaling".into(), ..call.info.subject().sub("scale") });
    let entry = entry.ok_or_else(not_found)?;
    answer(call, entry.json())
}

/// Sets it to what a Scale says.
pub(crate) async fn update(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let json = call.json_body(request_body).await?;
    write(call, |_| body::decode(&api::scale::KIND, &json, &call.query)).await
}

/// Patches the Scale.
pub(crate) async fn patch(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    if negotiate::content_type(&call.headers) == APPLY_PATCH {
        return apply(call, request_body).await;
    }
    let sent = patch::read(call, request_body).await?;
    write(call, |scale| {
        let patched = sent.apply(api::scale::KIND.info, scale)?;
        patch::decode(&api::scale::KIND, &patched, call)
    })
    .await
}

/// Writes what `wanted` makes of the present Scale.
async fn write(call: &Call, wanted: impl Fn(Value) -> Result<Decoded, ApiError>) -> Result<ApiResponse, ApiError> {
    let subject = call.info.subject();
    let (dry_run, tracking) = (call.query.dry_run()?, call.tracking());
    let written = call
        .shared
        .modify(call.info.kind, &subject, &call.info.key(), dry_run, |current, _| {
            let mut decoded = wanted(api::scale::of(controller(&*current.object)?).to_value())?;
            check_identity(decoded.object.metadata_mut(), call.info.namespace.as_deref(), call.name())?;
            scaled(&subject, &tracking, current, &*decoded.object)
        })
        .await?;
    answer(call, &written.json)
}

/// Applies a Scale. What it says of the replicas is applied to the object itself, whose managers it concerns
/// (`ScaleHandler` in `k8s.io/apimachinery/pkg/util/managedfields`).
async fn apply(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let Config { value: config, warnings } = verbs::apply::read(call, &api::scale::KIND, request_body).await?;
    let (subject, info, dry_run) = (call.info.subject(), call.info.kind.info, call.query.dry_run()?);
    let manager = call.query.get("fieldManager").unwrap_or("");
    let mut of_parent = json!({"apiVersion": info.api_version(), "kind": info.kind});
    if let Some(replicas) = config["spec"]["replicas"].as_i64() {
        of_parent["spec"] = json!({"replicas": replicas});
    }
    let change = |current: &Current, _: &_| {
        let live = std::str::from_utf8(&current.plain).map_err(|e| ApiError::Internal(e.to_string()))?;
        let applied = writer(info, manager, Some(Subresource::Scale))
            .apply(Some(live), &of_parent, &current.managed, call.query.flag("force"))
            .map_err(|conflicts| ApiError::ApplyConflict(conflicts.into_iter().map(as_of_scale).collect()))?;
        let mut scale = config.clone();
        scale["spec"]["replicas"] = applied.object["spec"]["replicas"].clone();
        let mut decoded = body::decode(&api::scale::KIND, &scale.to_string().into(), &call.query)?;
        check_applied(decoded.object.metadata_mut(), call.info.namespace.as_deref(), call.name())?;
        scaled(&subject, &Tracking::Applied(applied.managed), current, &*decoded.object)
    };
    let written = call.shared.modify(call.info.kind, &subject, &call.info.key(), dry_run, change).await?;
    let mut response = answer(call, &written.json)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Whoever applies a Scale knows the others by the Scale's version.
fn as_of_scale(mut conflict: Conflict) -> Conflict {
    conflict.manager = conflict.manager.replace(" using v1", " using autoscaling/v1");
    conflict
}

fn controller(object: &dyn Object) -> Result<&ReplicationController, ApiError> {
    object.as_any().downcast_ref().ok_or(ApiError::PathNotFound)
}

/// The object with the replicas of `scale`.
fn scaled(subject: &Subject, tracking: &Tracking, current: &Current, scale: &dyn Object) -> Result<Write, ApiError> {
    if let Some(uid) = scale.metadata().uid.as_deref().filter(|uid| !uid.is_empty()) {
        check_uid(&subject.clone().sub("scale"), current, uid)?;
    }
    check_version(subject, current, scale)?;
    let errors = scale.validate();
    if !errors.is_empty() {
        return Err(ApiError::Invalid(
            Subject { kind: "Scale", group: "autoscaling".into(), ..subject.clone() },
            errors,
        ));
    }
    let Some(scale) = scale.as_any().downcast_ref::<Scale>() else { return Err(ApiError::PathNotFound) };
    let mut new = controller(&*current.object)?.clone();
    api::scale::apply(scale, &mut new);
    let mut new: Box<dyn Object> = Box::new(new);
    new.prepare_update(&*current.object);
    new.metadata_mut().resource_version = None;
    let managed = Some(tracking.updated(current, &*new, None, Some(Subresource::Scale)));
    Ok(Write::Put(new, Effects { managed, ..Effects::default() }))
}

fn answer(call: &Call, json: &[u8]) -> Result<ApiResponse, ApiError> {
    let object = (call.info.kind.decode)(json).map_err(|e| ApiError::Internal(e.to_string()))?.object;
    let scale = api::scale::of(controller(&*object)?).encode();
    Ok(respond::object(StatusCode::OK, &api::scale::KIND, scale.into(), call.output))
}
