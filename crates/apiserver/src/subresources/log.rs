//! `pods/log`: asked of the pod's kubelet, and passed on as it comes.

use axum::body::Body;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};

use crate::call::Call;
use crate::connect::find;
use crate::respond::{self, ApiResponse};
use crate::status::ApiError;

/// The parameters a kubelet understands.
const PARAMETERS: [&str; 7] =
    ["follow", "previous", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "limitBytes"];

/// How much of a kubelet's refusal is passed on.
const MAX_REFUSAL_BYTES: usize = 4096;

/// Streams a container's log.
pub(crate) async fn get(call: &Call) -> Result<ApiResponse, ApiError> {
    let pod = find::pod(&call.shared, &call.info).await?;
    let container = find::container(&call.query, &pod)?;
    let Some(node) = api::pods::node_name(&pod) else {
        // Upstream answers an empty log: nothing has run yet.
        return Ok(respond::text(StatusCode::OK, ""));
    };
    let node = find::node(&call.shared, node)?;
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
