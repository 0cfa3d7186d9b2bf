//! `pods/log`: asked of the pod's kubelet, and passed on as it comes.

use axum::body::Body;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::call::Call;
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};

/// The parameters a kubelet understands.
const PARAMETERS: [&str; 7] =
    ["follow", "previous", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "limitBytes"];

/// How much of a kubelet's refusal is passed on.
const MAX_REFUSAL_BYTES: usize = 4096;

/// Streams a container's log.
pub(crate) async fn get(call: &Call) -> Result<ApiResponse, ApiError> {
    call.shared.cache.catch_up().await?;
    let entry = call.shared.cache.of(call.info.kind).get(&call.info.key());
    let entry = entry.ok_or_else(|| ApiError::NotFound(call.info.subject()))?;
    let pod = (call.info.kind.decode)(entry.json()).map_err(|e| ApiError::Internal(e.to_string()))?.object;
    let Some(pod) = pod.as_any().downcast_ref::<Pod>() else {
        return Err(ApiError::Internal("only pods have logs".into()));
    };
    let container = container(call, pod)?;
    let Some(node) = api::pods::node_name(pod) else {
        // Upstream answers an empty log: nothing has run yet.
        return Ok(respond::text(StatusCode::OK, ""));
    };
    let node = node_object(call, node)?;
    let path = path(call, &container)?;
    let answer = call.shared.kubelets.get(&node, &path).await?;
    if answer.status() == StatusCode::OK {
        let text = HeaderValue::from_static("text/plain");
        return Ok(respond::with_type(StatusCode::OK, text, Body::new(answer.into_body())));
    }
    let code = answer.status();
    let refusal = Limited::new(answer.into_body(), MAX_REFUSAL_BYTES).collect().await;
    let refusal = refusal.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    Err(match code {
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => ApiError::BadRequest(refusal.trim().to_owned()),
        _ => ApiError::Internal(format!("the kubelet answered {code}: {}", refusal.trim())),
    })
}

/// The container asked for, or the only one; upstream's words where that is not clear.
fn container(call: &Call, pod: &Pod) -> Result<String, ApiError> {
    let spec = pod.spec.clone().unwrap_or_default();
    let names: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let pod_name = call.name();
    match call.query.get("container") {
        Some(asked) if names.contains(&asked) || init.contains(&asked) => Ok(asked.to_owned()),
        Some(asked) => Err(ApiError::BadRequest(format!("container {asked} is not valid for pod {pod_name}"))),
        None => match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            many => {
                let init = match init.as_slice() {
                    [] => String::new(),
                    init => format!(" or one of the init containers: [{}]", init.join(" ")),
                };
                Err(ApiError::BadRequest(format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]{init}",
                    many.join(" ")
                )))
            }
        },
    }
}

fn node_object(call: &Call, name: &str) -> Result<Node, ApiError> {
    let kind = api::kinds::by_kind("v1", "Node").ok_or(ApiError::PathNotFound)?;
    let missing = || ApiError::NotFound(Subject::new(kind.info, name));
    let entry = call.shared.cache.of(kind).get(&kind.info.registry_key(None, name)).ok_or_else(missing)?;
    let object = (kind.decode)(entry.json()).map_err(|e| ApiError::Internal(e.to_string()))?.object;
    object.as_any().downcast_ref::<Node>().cloned().ok_or_else(missing)
}

/// The kubelet's path. Names are DNS labels and need no escaping; parameters are checked here, where the client can be
/// told in API terms.
fn path(call: &Call, container: &str) -> Result<String, ApiError> {
    let namespace = call.info.namespace.as_deref().unwrap_or("");
    let mut parameters = Vec::new();
    for name in PARAMETERS {
        let Some(value) = call.query.get(name) else { continue };
        let fits = match name {
            "follow" | "previous" | "timestamps" => matches!(value, "true" | "false" | "1" | "0"),
            "sinceTime" => value.parse::<jiff::Timestamp>().is_ok(),
            "tailLines" => value.parse::<u64>().is_ok(),
            _ => value.parse::<u64>().is_ok_and(|n| n > 0),
        };
        if !fits {
            return Err(ApiError::BadRequest(format!("invalid value {value:?} for query parameter {name}")));
        }
        parameters.push(format!("{name}={}", value.replace('+', "%2B")));
    }
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    Ok(format!("/containerLogs/{namespace}/{}/{container}{query}", call.name()))
}
