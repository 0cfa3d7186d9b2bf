//! `pods/binding`: gives a pod its node, once.

use api::field::{self, Path};
use axum::body::Body;
use http::StatusCode;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::call::Call;
use crate::metadata::{check_namespace, now};
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write};

/// Binds a pod to the node a Binding names.
pub(crate) async fn create(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let json = call.json_body(body).await?;
    let binding: Value = serde_json::from_slice(&json)
        .map_err(|e| ApiError::BadRequest(format!("Binding in version \"v1\" cannot be handled as a Binding: {e}")))?;
    let name = pod_name(call, &binding)?;
    let subject = Subject { name: name.clone(), ..call.info.subject().sub("binding") };
    let node = target(&subject, &binding)?;
    let annotations = binding["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let key = call.info.kind.info.registry_key(call.info.namespace.as_deref(), &name);
    let dry_run = call.query.dry_run()?;
    call.shared
        .modify(call.info.kind, &Subject::new(call.info.kind.info, &name), &key, dry_run, |current, _| {
            bind(&subject, current, &node, &annotations, &binding["metadata"]["uid"])
        })
        .await?;
    Ok(respond::json(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// The pod's name, from the URL or, at the older path `/bindings`, from the Binding.
fn pod_name(call: &Call, binding: &Value) -> Result<String, ApiError> {
    let given = binding["metadata"]["name"].as_str().unwrap_or("");
    let namespace = binding["metadata"]["namespace"].as_str().map(Into::into);
    let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta { namespace, ..Default::default() };
    check_namespace(&metadata, call.info.namespace.as_deref())?;
    match call.info.name.as_deref() {
        None if given.is_empty() => Err(ApiError::BadRequest("name is required".into())),
        None => Ok(given.to_owned()),
        Some(name) if given.is_empty() || given == name => Ok(name.to_owned()),
        Some(name) => Err(ApiError::BadRequest(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ))),
    }
}

fn target(subject: &Subject, binding: &Value) -> Result<String, ApiError> {
    let path = Path::new("target");
    let mut errors = Vec::new();
    let kind = binding["target"]["kind"].as_str().unwrap_or("");
    if !kind.is_empty() && kind != "Node" {
        errors.push(field::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    let node = binding["target"]["name"].as_str().unwrap_or("");
    if node.is_empty() {
        errors.push(field::required(&path.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(node.to_owned());
    }
    Err(ApiError::Invalid(Subject { kind: "Binding", ..subject.clone() }, errors))
}

fn bind(
    subject: &Subject,
    current: &Current,
    node: &str,
    annotations: &serde_json::Map<String, Value>,
    uid: &Value,
) -> Result<Write, ApiError> {
    let conflict = |message: String| Err(ApiError::Conflict(subject.clone(), message));
    let name = &subject.name;
    let mut object = current.object.clone_object();
    let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() else {
        return Err(ApiError::Internal("only pods are bound".into()));
    };
    if let Some(uid) = uid.as_str().filter(|u| !u.is_empty() && Some(*u) != pod.metadata.uid.as_deref()) {
        let have = pod.metadata.uid.as_deref().unwrap_or("");
        return conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"));
    }
    if api::pods::is_terminating(pod) {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(has) = api::pods::node_name(pod) {
        return conflict(format!("pod {name} is already assigned to node {has:?}"));
    }
    pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
    let known = pod.metadata.annotations.take().unwrap_or_default();
    let given = annotations.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
    pod.metadata.annotations =
        Some(known.into_iter().chain(given).collect()).filter(|a: &std::collections::BTreeMap<_, _>| !a.is_empty());
    pod.metadata.resource_version = None;
    scheduled(pod);
    Ok(Write::Put(object, Vec::new()))
}

/// Sets the condition `PodScheduled`, which also wipes what the scheduler said of earlier failures.
fn scheduled(pod: &mut Pod) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(now())),
        ..PodCondition::default()
    });
}
