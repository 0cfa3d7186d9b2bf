//! `pods/binding`: gives a pod its node, once.

use api::Kind;
use axum::body::Body;
use http::StatusCode;
use k8s_openapi::api::core::v1::{Binding, Pod};
use serde_json::json;

use crate::admission::Effects;
use crate::body;
use crate::call::Call;
use crate::metadata::{check_namespace, now};
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write};

/// Binds a pod to the node a Binding names.
pub(crate) async fn create(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let json = call.json_body(request_body).await?;
    let decoded = body::decode(&api::binding::KIND, &json, &call.query)?;
    // One that ends at this moment has its pods deleted, bound or not: the cache need not be newer.
    call.namespace_takes_new().await?;
    let name = pod_name(call, decoded.object.metadata())?;
    let subject = Subject::new(pods().info, &name).sub("binding");
    let errors = decoded.object.validate();
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Subject { kind: "Binding", ..subject }, errors));
    }
    let Some(binding) = decoded.object.as_any().downcast_ref::<Binding>() else {
        return Err(ApiError::Internal("a Binding is expected".into()));
    };
    let kind = pods();
    let info = kind.info;
    let key = info.registry_key(call.info.namespace.as_deref(), &name);
    let dry_run = call.query.dry_run()?;
    call.shared
        .modify(kind, &Subject::new(info, &name), &key, dry_run, |current, _| bind(&subject, current, binding))
        .await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    let mut response = respond::json(StatusCode::CREATED, &status);
    respond::warn(&mut response, &decoded.warnings);
    Ok(response)
}

fn pods() -> &'static Kind {
    api::kinds::by_kind("v1", "Pod").expect("pods are in the table of kinds")
}

/// The pod's name, from the URL or, at the older path `/bindings`, from the Binding.
fn pod_name(
    call: &Call,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Result<String, ApiError> {
    check_namespace(metadata, call.info.namespace.as_deref())?;
    let given = metadata.name.clone().filter(|n| !n.is_empty());
    if let Some(name) = &call.info.name {
        let is_same = given.as_ref() == Some(name);
        let differs = || ApiError::BadRequest("name in URL does not match name in Binding object".into());
        return if is_same { Ok(name.clone()) } else { Err(differs()) };
    }
    given.ok_or_else(|| ApiError::BadRequest("name is required".into()))
}

fn bind(subject: &Subject, current: &Current, binding: &Binding) -> Result<Write, ApiError> {
    let mut object = current.object.clone_object();
    let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() else {
        return Err(ApiError::Internal("only pods are bound".into()));
    };
    api::binding::bind(binding, pod, now()).map_err(|e| ApiError::Conflict(subject.clone(), e.to_string()))?;
    pod.metadata.resource_version = None;
    Ok(Write::Put(object, Effects::default()))
}
