//! `/proxy` below nodes, pods and services: where it leads, and how to get there.
//!
//! Names are `[scheme:]name[:port]`. Compare `ResourceLocation` of `pkg/registry/core/{node,pod,service}`: services lead
//! to one of their ready endpoints, and to addresses of pods only, never to what somebody wrote into an Endpoints object.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Node, Pod, Service};

use super::links::Links;
use super::{find, http1, insecure, proxy, rewrite};
use crate::request::RequestInfo;
use crate::respond::ApiResponse;
use crate::server::Shared;
use crate::status::ApiError;
use crate::subresources::kubelet;

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

pub(super) async fn run(
    shared: &Arc<Shared>,
    info: &RequestInfo,
    mut parts: Parts,
    body: Body,
) -> Result<ApiResponse, ApiError> {
    shared.cache.catch_up().await?;
    let target = target(shared, info)?;
    let rest = rest(parts.uri.path(), info.namespace.is_some());
    let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let is_upgrade = proxy::is_upgrade(&parts.headers);
    let prefix = prefix(info);
    if rest.is_empty() && !is_upgrade && matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(moved(&format!("{prefix}/{query}")));
    }
    let path = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    if let Some(forwarded) = HeaderValue::try_from(format!("{prefix}{rest}")).ok().filter(|_| !is_upgrade) {
        parts.headers.insert(FORWARDED_URI, forwarded);
    }
    let method = parts.method.clone();
    let (request, upgrade) = proxy::outgoing(parts, body, &path)?;
    let called = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let answer = target.send(shared, request).await.map_err(|why| match is_upgrade {
        true => ApiError::Backend(format!("error dialing backend: {why}")),
        false => ApiError::Unavailable(format!("error trying to reach service: {why}")),
    })?;
    let answer = proxy::answer(shared, upgrade, answer)?;
    if is_upgrade {
        return Ok(answer);
    }
    Ok(rewrite::respond(Links { prefix, backend: target.names()?, called }, &method, answer))
}

/// The path of the proxy itself.
fn prefix(info: &RequestInfo) -> String {
    let namespace = info.namespace.as_deref().map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
    let name = info.name.as_deref().unwrap_or("");
    format!("/api/v1/{namespace}{}/{name}/proxy", info.kind.info.plural)
}

/// Relative links on the page behind need the slash.
fn moved(location: &str) -> ApiResponse {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().extend(HeaderValue::try_from(location).ok().map(|location| (header::LOCATION, location)));
    response
}

/// What follows `/proxy` in the path, as it was written: `/api/v1/namespaces/ns/pods/name/proxy` has seven segments.
fn rest(path: &str, namespaced: bool) -> &str {
    let mut rest = path;
    for _ in 0..if namespaced { 7 } else { 5 } {
        rest = rest.trim_start_matches('/');
        rest = rest.find('/').map_or("", |slash| &rest[slash..]);
    }
    rest
}

/// Where a proxy leads.
#[derive(Debug)]
enum Target {
    /// A node's kubelet, over TLS that both sides verify.
    Kubelet(Box<Node>),
    /// Anything else.
    Address { https: bool, ip: IpAddr, port: u16 },
}

impl Target {
    /// How it may be called in addresses.
    fn names(&self) -> Result<Vec<String>, ApiError> {
        Ok(match self {
            Target::Kubelet(node) => vec![kubelet::authority(node)?],
            Target::Address { https, ip, port } => {
                let usual = (*port == usual_port(*https))
                    .then(|| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() });
                [SocketAddr::new(*ip, *port).to_string()].into_iter().chain(usual).collect()
            }
        })
    }

    async fn send(
        &self,
        shared: &Shared,
        request: http::Request<Body>,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Target::Kubelet(node) => Ok(http1::exchange(shared.kubelets.connect(node).await?, request).await?),
            Target::Address { https, ip, port } => {
                let address = SocketAddr::new(*ip, *port).to_string();
                let stream = http1::connect(&address).await?;
                if !https {
                    return Ok(http1::exchange(stream, request).await?);
                }
                let stream = tokio::time::timeout(http1::CONNECT_MAX, insecure::connect(*ip, stream)).await;
                let stream = stream.map_err(|_| "net/http: TLS handshake timeout")??;
                Ok(http1::exchange(stream, request).await?)
            }
        }
    }
}

/// A name taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn of(id: &'a str) -> Option<Named<'a>> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let valid = !name.is_empty() && matches!(scheme, "" | "http" | "https");
        valid.then_some(Named { scheme, name, port })
    }

    fn https(&self) -> bool {
        self.scheme == "https"
    }

    fn default_port(&self) -> u16 {
        usual_port(self.https())
    }
}

fn target(shared: &Shared, info: &RequestInfo) -> Result<Target, ApiError> {
    let singular = info.kind.info.singular;
    let id = info.name.as_deref().unwrap_or("");
    let named = Named::of(id).ok_or_else(|| ApiError::BadRequest(format!("invalid {singular} request {id:?}")))?;
    let namespace = info.namespace.as_deref();
    match singular {
        "node" => node_target(&named, find::node(shared, named.name)?),
        "pod" => pod_target(&named, &find::object(shared, "Pod", namespace, named.name)?),
        _ => {
            let service = find::object(shared, "Service", namespace, named.name)?;
            let endpoints = find::object(shared, "Endpoints", namespace, named.name);
            let is_pod = |address: &EndpointAddress| is_pods_own(shared, namespace, address);
            let unavailable = || ApiError::Unavailable(format!("no endpoints available for service {id:?}"));
            service_target(&named, &service, &endpoints.map_err(|_| unavailable())?, is_pod)?.ok_or_else(unavailable)
        }
    }
}

fn usual_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

fn number(port: &str) -> Result<u16, ApiError> {
    let number = port.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| ApiError::BadRequest(format!("invalid port {port:?}")))
}

/// Never the API server's own host, its neighbours or many at once (`IsProxyableIP`).
fn proxyable(text: &str) -> Result<IpAddr, ApiError> {
    let refused = || ApiError::BadRequest("address not allowed".into());
    let ip: IpAddr = text.parse().map_err(|_| refused())?;
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local { Err(refused()) } else { Ok(ip) }
}

fn node_target(named: &Named<'_>, node: Node) -> Result<Target, ApiError> {
    let kubelet_port = kubelet::port(&node).to_string();
    if named.port.is_empty() || named.port == kubelet_port {
        return Ok(Target::Kubelet(Box::new(node)));
    }
    let ip = proxyable(api::nodes::internal_ip(&node).unwrap_or_default())?;
    Ok(Target::Address { https: named.https(), ip, port: number(named.port)? })
}

fn pod_target(named: &Named<'_>, pod: &Pod) -> Result<Target, ApiError> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let first = containers.flat_map(|c| c.ports.iter().flatten()).map(|port| port.container_port).next();
    let port = match (named.port, first) {
        ("", Some(first)) => u16::try_from(first).unwrap_or(named.default_port()),
        ("", None) => named.default_port(),
        (port, _) => number(port)?,
    };
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    Ok(Target::Address { https: named.https(), ip: proxyable(ip.unwrap_or_default())?, port })
}

/// One of the ready endpoints that have the port; `None` where there is none.
fn service_target(
    named: &Named<'_>,
    service: &Service,
    endpoints: &Endpoints,
    is_pod: impl Fn(&EndpointAddress) -> bool,
) -> Result<Option<Target>, ApiError> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let port_name = match named.port.parse::<i32>() {
        Ok(number) => {
            let message = || format!("no service port {number} found for service {:?}", named.name);
            let port = ports.iter().find(|port| port.port == number);
            port.ok_or_else(|| ApiError::Unavailable(message()))?.name.as_deref().unwrap_or("")
        }
        Err(_) => named.port,
    };
    let mut found = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let port = subset.ports.iter().flatten().find(|port| port.name.as_deref().unwrap_or("") == port_name);
        let port = port.and_then(|port| u16::try_from(port.port).ok());
        let addresses = subset.addresses.iter().flatten();
        found.extend(port.into_iter().flat_map(|port| addresses.clone().map(move |address| (address, port))));
    }
    // Asking about each until one fits is cheap: nearly always the first does.
    while !found.is_empty() {
        let (address, port) = found.swap_remove(rand::random_range(0..found.len()));
        if is_pod(address) {
            return Ok(Some(Target::Address { https: named.https(), ip: proxyable(&address.ip)?, port }));
        }
    }
    Ok(None)
}

/// Whether the address is that of the pod it names.
fn is_pods_own(shared: &Shared, namespace: Option<&str>, address: &EndpointAddress) -> bool {
    let pod = address.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let Some(name) = pod.and_then(|target| target.name.as_deref()) else { return false };
    let Ok(pod) = find::object::<Pod>(shared, "Pod", namespace, name) else { return false };
    let status = pod.status.unwrap_or_default();
    status.pod_ip.as_deref() == Some(&*address.ip) || status.pod_ips.iter().flatten().any(|ip| ip.ip == address.ip)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(target: Result<Target, ApiError>) -> String {
        match target {
            Ok(Target::Kubelet(_)) => "kubelet".into(),
            Ok(Target::Address { https, ip, port }) => format!("{} {ip}:{port}", if https { "https" } else { "http" }),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_rest_of_the_path_is_kept_as_it_was_written() {
        for (path, namespaced, expected) in [
            ("/api/v1/namespaces/ns/pods/proxy/proxy/a%2Fb//c/", true, "/a%2Fb//c/"),
            ("/api/v1/nodes/n/proxy", false, ""),
            ("/api/v1/nodes/n/proxy/", false, "/"),
            ("//api/v1/nodes/n/proxy/pods", false, "/pods"),
        ] {
            assert_eq!(rest(path, namespaced), expected, "{path}");
        }
    }

    #[test]
    fn names_have_a_scheme_before_and_a_port_behind() {
        for (id, expected) in [
            ("web", Some(("", "web", ""))),
            ("web:80", Some(("", "web", "80"))),
            ("https:web:", Some(("https", "web", ""))),
            ("ftp:web:1", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            let named = Named::of(id);
            assert_eq!(named.map(|n| (n.scheme, n.name, n.port)), expected, "{id}");
        }
    }

    #[test]
    fn pods_are_reached_at_the_port_named_or_their_first() {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
            "status": {"podIP": "10.1.2.3"},
        }))
        .unwrap();
        for (id, expected) in
            [("p", "http 10.1.2.3:8080"), ("https:p:9", "https 10.1.2.3:9"), ("p:x", "invalid port \"x\"")]
        {
            assert_eq!(shown(pod_target(&Named::of(id).unwrap(), &pod)), expected, "{id}");
        }
        for ip in ["127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", ""] {
            let pod: Pod = serde_json::from_value(json!({"status": {"podIP": ip}})).unwrap();
            assert_eq!(shown(pod_target(&Named::of("p").unwrap(), &pod)), "address not allowed", "{ip}");
        }
    }

    #[test]
    fn services_lead_to_ready_pods_of_the_port_named() {
        let service: Service = serde_json::from_value(json!({
            "spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]},
        }))
        .unwrap();
        let endpoints: Endpoints = serde_json::from_value(json!({"metadata": {}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.9.9.9"}], "ports": [{"name": "web", "port": 8080}]},
            {"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "admin", "port": 8081}]},
        ]}))
        .unwrap();
        let is_pod = |address: &EndpointAddress| address.ip != "10.9.9.9";
        let find = |id: &str| {
            let found = service_target(&Named::of(id).unwrap(), &service, &endpoints, is_pod);
            found.map(|target| target.map_or_else(|| "none".to_owned(), |target| shown(Ok(target))))
        };
        assert_eq!(find("s:web").unwrap(), "http 10.0.0.1:8080");
        assert_eq!(find("https:s:80").unwrap(), "https 10.0.0.1:8080");
        assert_eq!(find("s:admin").unwrap(), "none", "not ready");
        assert_eq!(find("s").unwrap(), "none", "which port?");
        assert_eq!(find("s:82").unwrap_err().to_string(), "no service port 82 found for service \"s\"");
    }
}
