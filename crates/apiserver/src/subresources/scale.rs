//! `/scale`: how many replicas a workload wants, as `autoscaling/v1` Scale, whatever its kind.

use api::field::{self, Path};
use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::Call;
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write};
use crate::verbs::patch;

/// The number of replicas of an object.
pub(crate) async fn get(call: &Call) -> Result<ApiResponse, ApiError> {
    call.shared.cache.catch_up().await?;
    let entry = call.shared.cache.of(call.info.kind).get(&call.info.key());
    let entry = entry.ok_or_else(|| ApiError::NotFound(call.info.subject()))?;
    let object = parse(entry.json())?;
    Ok(respond::encoded(StatusCode::OK, scale_of(&object).to_string().into(), call.output.encoding))
}

/// Sets it to what a Scale says.
pub(crate) async fn update(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let json = call.json_body(body).await?;
    let scale: Value = serde_json::from_slice(&json)
        .map_err(|e| ApiError::BadRequest(format!("Scale in version \"v1\" cannot be handled as a Scale: {e}")))?;
    write(call, |_| Ok(scale.clone())).await
}

/// Patches the Scale.
pub(crate) async fn patch(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let patch = patch::read(call, body).await?;
    write(call, |scale| patch.apply(call.info.kind.info, scale).map_err(patch::patch_error)).await
}

async fn write(call: &Call, wanted: impl Fn(Value) -> Result<Value, ApiError>) -> Result<ApiResponse, ApiError> {
    let subject = call.info.subject();
    let dry_run = call.query.dry_run()?;
    let written = call
        .shared
        .modify(call.info.kind, &subject, &call.info.key(), dry_run, |current, _| {
            let object = parse(&current.json)?;
            let scale = wanted(scale_of(&object))?;
            scaled(call, &subject, current, object, &scale)
        })
        .await?;
    let scale = scale_of(&parse(&written.json)?);
    Ok(respond::encoded(StatusCode::OK, scale.to_string().into(), call.output.encoding))
}

fn parse(json: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(json).map_err(|e| ApiError::Internal(e.to_string()))
}

/// The object with the replicas of `scale`.
fn scaled(
    call: &Call,
    subject: &Subject,
    current: &Current,
    mut object: Value,
    scale: &Value,
) -> Result<Write, ApiError> {
    let given = scale["metadata"]["resourceVersion"].as_str().filter(|rv| !rv.is_empty());
    if given.is_some_and(|rv| rv != current.revision.to_string()) {
        return Err(ApiError::Conflict(subject.clone(), crate::storage::MODIFIED.to_owned()));
    }
    let name = scale["metadata"]["name"].as_str().unwrap_or("");
    if !name.is_empty() && name != subject.name {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            subject.name
        )));
    }
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        number => number.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(|| {
            ApiError::BadRequest(format!("Scale cannot be handled: spec.replicas: {number} is no 32-bit integer"))
        })?,
    };
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let error = field::invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(ApiError::Invalid(Subject { kind: "Scale", group: "autoscaling", ..subject.clone() }, vec![error]));
    }
    object["spec"]["replicas"] = json!(replicas);
    let decoded = (call.info.kind.decode)(object.to_string().as_bytes());
    let mut new = decoded.map_err(|e| ApiError::Internal(e.to_string()))?.object;
    new.prepare_update(&*current.object);
    new.metadata_mut().resource_version = None;
    Ok(Write::Put(new, Vec::new()))
}

fn scale_of(object: &Value) -> Value {
    let from = &object["metadata"];
    let mut metadata = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !from[field].is_null() {
            metadata.insert(field.to_owned(), from[field].clone());
        }
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)});
    let selector = selector(&object["spec"]["selector"]);
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": status,
    })
}

/// A selector as text: of a ReplicationController a map, of newer kinds a LabelSelector.
fn selector(selector: &Value) -> String {
    if selector["matchLabels"].is_object() || selector["matchExpressions"].is_array() {
        let typed = serde_json::from_value(selector.clone()).unwrap_or_default();
        return api::selector::Selector::from_label_selector(&typed).map(|s| s.to_string()).unwrap_or_default();
    }
    let pairs = selector.as_object().into_iter().flatten();
    pairs.filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?))).collect::<Vec<_>>().join(",")
}
