//! `pods/exec`, `pods/attach`, `pods/portforward`: the same request, with the same upgrade, to the pod's kubelet.

use std::sync::Arc;

use api::Subresource;
use axum::body::Body;
use http::request::Parts;
use k8s_openapi::api::core::v1::Pod;

use super::{find, proxy};
use crate::query::{Query, encode};
use crate::request::RequestInfo;
use crate::respond::ApiResponse;
use crate::server::Shared;
use crate::status::ApiError;

/// What the API calls the streams, and what the kubelet calls them.
const STREAMS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];

pub(super) async fn run(
    shared: &Arc<Shared>,
    info: &RequestInfo,
    query: &Query,
    parts: Parts,
    body: Body,
) -> Result<ApiResponse, ApiError> {
    let pod = find::pod(shared, info).await?;
    let path = kubelet_path(info.subresource, query, &pod)?;
    let unassigned = || ApiError::BadRequest(format!("pod {} does not have a host assigned", name(&pod)));
    let node = find::node(shared, api::pods::node_name(&pod).ok_or_else(unassigned)?)?;
    if !proxy::is_upgrade(&parts.headers) {
        return Err(ApiError::BadRequest("Upgrade request required".into()));
    }
    let (request, upgrade) = proxy::outgoing(parts, body, &path)?;
    let answer = shared.kubelets.send(&node, request).await?;
    proxy::answer(shared, upgrade, answer)
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}

/// Names are DNS labels or subdomains and need no escaping.
fn kubelet_path(subresource: Option<Subresource>, query: &Query, pod: &Pod) -> Result<String, ApiError> {
    let place = format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or(""), name(pod));
    if subresource == Some(Subresource::PortForward) {
        let ports = query.all("ports").chain(query.all("port")).map(encode).collect::<Vec<_>>().join(",");
        let query = if ports.is_empty() { String::new() } else { format!("?port={ports}") };
        return Ok(format!("/portForward/{place}{query}"));
    }
    let container = find::container(query, pod)?;
    let on = STREAMS.iter().filter(|(name, _)| query.flag(name));
    let mut parameters: Vec<String> = on.map(|(_, kubelet)| format!("{kubelet}=1")).collect();
    let verb = if subresource == Some(Subresource::Exec) {
        parameters.extend(query.all("command").map(|word| format!("command={}", encode(word))));
        "exec"
    } else {
        "attach"
    };
    Ok(format!("/{verb}/{place}/{container}?{}", parameters.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_become_the_kubelets() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns", "name": "web"}, "spec": {"containers": [{"name": "c"}]},
        }))
        .unwrap();
        for (subresource, query, expected) in [
            (
                Subresource::Exec,
                "command=sh&command=-c&command=echo+%26&stdout=true&stdin=false&tty=1",
                "/exec/ns/web/c?output=1&tty=1&command=sh&command=-c&command=echo%20%26",
            ),
            (Subresource::Attach, "container=c&stdin=true&stderr=true", "/attach/ns/web/c?input=1&error=1"),
            (Subresource::PortForward, "ports=80&ports=443", "/portForward/ns/web?port=80,443"),
            (Subresource::PortForward, "", "/portForward/ns/web"),
        ] {
            let path = kubelet_path(Some(subresource), &Query::parse(Some(query)), &pod);
            assert_eq!(path.unwrap(), expected);
        }
        let wrong = kubelet_path(Some(Subresource::Exec), &Query::parse(Some("container=d")), &pod).unwrap_err();
        assert_eq!(wrong.to_string(), "container d is not valid for pod web");
    }
}
