use std::time::Duration;

use client::Tasks;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::Config;
use crate::runtime::hollow::Hollow;
use crate::runtime::{ContainerSpec, PodIdentity, Runtime, SandboxSpec};
use crate::testing::{Ca, Signed};

pub(super) struct Node {
    pub(super) ca: Ca,
    port: u16,
    pub(super) tasks: Tasks,
    pub(super) hollow: Hollow,
}

fn identity() -> PodIdentity {
    PodIdentity { namespace: "ns".into(), name: "web".into(), uid: "u1".into(), grace_period_seconds: 0 }
}

/// An API server that knows one token, and gives node `box2` the metrics and the token's owner his sight of pods. What
/// is asked beside is never answered.
async fn review(
    request: http::Request<kube::client::Body>,
) -> Result<http::Response<http_body_util::Full<bytes::Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut review: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let spec = review["spec"].clone();
    review["status"] = match path.rsplit('/').next() {
        Some("tokenreviews") if spec["token"] == "good" => {
            json!({"authenticated": true, "user": {"username": "scraper", "groups": ["system:authenticated"]}})
        }
        Some("tokenreviews") => json!({"authenticated": false}),
        Some("subjectaccessreviews") => {
            assert_eq!(spec["resourceAttributes"]["name"], "box1");
            let asked = (spec["user"].as_str(), spec["resourceAttributes"]["subresource"].as_str());
            let allowed = [(Some("system:node:box2"), Some("metrics")), (Some("scraper"), Some("pods"))];
            json!({"allowed": spec["resourceAttributes"]["verb"] == "get" && allowed.contains(&asked)})
        }
        _ => std::future::pending().await,
    };
    let answer = bytes::Bytes::from(review.to_string());
    Ok(http::Response::builder().status(201).body(http_body_util::Full::from(answer)).unwrap())
}

/// A node whose one pod ran `echo hello` and then runs `httpd`.
pub(super) async fn node() -> Node {
    node_with(|_| ()).await
}

/// A node that is told something else than usual.
pub(super) async fn node_with(change: impl FnOnce(&mut Config)) -> Node {
    let ca = Ca::new("kubernetes");
    let shown = ca.sign("system:node:box1", "system:nodes");
    let certificate = Arc::new(Certificate::from_pem(&shown.certificate, &shown.key).unwrap());
    let serving = Serving { certificate, client_ca_pem: ca.pem.clone() };
    let hollow = Hollow::default();
    hollow.ensure_network("10.0.0.0/24".parse().unwrap()).await.unwrap();
    let sandbox = hollow.run_sandbox(&SandboxSpec { pod: identity(), ..SandboxSpec::default() }).await.unwrap();
    let spec = Container { name: "c".into(), image: Some("i".into()), ..Container::default() };
    let hash = crate::pod::container_hash(&spec);
    for (count, command) in [vec!["echo", "hello"], vec!["httpd"]].into_iter().enumerate() {
        let command = Some(command.into_iter().map(str::to_owned).collect());
        let (sandbox_id, restart_count) = (sandbox.id.clone(), count as i32);
        let spec = ContainerSpec {
            pod: identity(),
            name: "c".into(),
            hash: hash.clone(),
            sandbox_id,
            restart_count,
            command,
            ..Default::default()
        };
        let id = hollow.create_container(&spec).await.unwrap();
        hollow.start_container(&id).await.unwrap();
    }
    let ip = IpAddr::from([127, 0, 0, 1]);
    let client = kube::Client::new(tower::service_fn(review), "default");
    let machine = hollow.machine().await.unwrap();
    let mut config = Config::new("box1", ip, "/nonexistent");
    change(&mut config);
    let kubelet = crate::testing::kubelet(&hollow, &machine, config, &client);
    let tasks = Tasks::new();
    let pods = Pods::new(kubelet.clone(), client, &tasks);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "u1"},
        "spec": {"containers": [{"name": "c", "image": "i", "command": ["httpd"]}, {"name": "new", "image": "i"}]}
    }))
    .unwrap();
    hollow.break_image("i", "none");
    pods.set(Arc::new(pod));
    let listener = bind(&serving, 0).await.unwrap();
    let port = listener.port();
    tasks.spawn(serve(listener, kubelet, pods));
    Node { ca, port, tasks, hollow }
}

impl Node {
    /// A connection of a client with this certificate.
    pub(super) async fn connect(&self, signed: Option<&Signed>) -> Option<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots(&self.ca.pem).unwrap());
        let config = match signed {
            Some(signed) => {
                let key = certified_key(&signed.certificate, &signed.key).unwrap();
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
    }

    /// What a client with this certificate gets; `None` if it is not even heard.
    async fn get(&self, signed: Option<&Signed>, path: &str) -> Option<(u16, String)> {
        self.get_with(signed, None, path).await
    }

    /// The same with a token.
    async fn get_with(&self, signed: Option<&Signed>, token: Option<&str>, path: &str) -> Option<(u16, String)> {
        let mut request = http::Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.answer_to(signed, request.body(http_body_util::Full::default()).unwrap()).await
    }

    /// What a client gets for any request.
    async fn answer_to(
        &self,
        signed: Option<&Signed>,
        request: http::Request<http_body_util::Full<bytes::Bytes>>,
    ) -> Option<(u16, String)> {
        let stream = self.connect(signed).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_must_prove_who_he_is_and_have_the_right() {
    let node = node().await;
    let master = node.ca.sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
    assert_eq!(node.get(Some(&master), "/healthz").await, Some((200, "ok".into())));
    assert_eq!(node.get(None, "/healthz").await, Some((401, "Unauthorized".into())));
    let other_node = node.ca.sign("system:node:box2", api::well_known::GROUP_NODES);
    let (code, message) = node.get(Some(&other_node), "/healthz").await.unwrap();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "Forbidden (user=system:node:box2, verb=get, resource=nodes, subresource(s)=[healthz proxy])\n"
    );
    assert_eq!(node.get(Some(&other_node), "/metrics").await.unwrap().0, 200, "the narrow right is enough");
    for (token, path, code) in [
        ("good", "/pods", 200),
        ("good", "/stats/summary", 403),
        ("good", "/containerLogs/ns/web/c", 403),
        ("good", "/no/such/path", 403),
        ("bad", "/pods", 401),
    ] {
        assert_eq!(node.get_with(None, Some(token), path).await.unwrap().0, code, "{token} {path}");
    }
    let stranger = Ca::new("other").sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
    assert_eq!(node.get(Some(&stranger), "/healthz").await, None);
    assert!(node.tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_out() {
    let node = node().await;
    let mut silent = Vec::new();
    for _ in 0..4 * door::MAX_STRANGERS {
        silent.push(TcpStream::connect(("127.0.0.1", node.port)).await.unwrap());
    }
    let mut nameless = Vec::new();
    for _ in 0..2 * door::MAX_STRANGERS {
        nameless.push(node.connect(None).await.expect("the newest stranger is let in"));
    }
    let master = node.ca.sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
    assert_eq!(node.get(Some(&master), "/healthz").await, Some((200, "ok".into())));
    assert_eq!(node.get_with(None, Some("good"), "/pods").await.unwrap().0, 200);
    let (mut first, mut byte) = (nameless.swap_remove(0), [0]);
    let read = tokio::io::AsyncReadExt::read(&mut first, &mut byte);
    let read = tokio::time::timeout(Duration::from_secs(5), read).await;
    assert!(!matches!(read.expect("it was sent away"), Ok(1..)));
    assert!(node.tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_this_life_and_the_last_are_served() {
    let node = node().await;
    let master = node.ca.sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
    for (path, status, body) in [
        ("/containerLogs/ns/web/c", 200, "httpd\n"),
        ("/containerLogs/ns/web/c?previous=true", 200, "hello\n"),
        ("/containerLogs/ns/web/c?tailLines=0", 200, ""),
        ("/containerLogs/ns/web/c?limitBytes=2", 200, "ht"),
        ("/containerLogs/ns/web/c?tailLines=x", 400, "tailLines: Invalid value: \"x\": must be a non-negative integer"),
        ("/containerLogs/ns/web/no", 404, "container no is not valid for pod web"),
        ("/containerLogs/ns/web/new", 400, "container \"new\" in pod \"web\" is waiting to start: ContainerCreating"),
        ("/containerLogs/ns/web/c?stream=Stdout", 200, "httpd\n"),
        ("/containerLogs/ns/web/c?stream=Stderr", 200, ""),
        (
            "/containerLogs/ns/web/c?stream=all",
            400,
            "stream: Unsupported value: \"all\": supported values: \"All\", \"Stderr\", \"Stdout\"",
        ),
        ("/containerLogs/ns/nobody/c", 404, "pod \"nobody\" not found"),
    ] {
        assert_eq!(node.get(Some(&master), path).await, Some((status, body.to_owned())), "{path}");
    }
    let (status, pods) = node.get(Some(&master), "/pods").await.unwrap();
    assert!(status == 200 && pods.contains("\"PodList\"") && pods.contains("\"uid\":\"u1\""));
    node.hollow.kill_sandbox("ns", "web");
    assert!(node.tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_as_json_and_as_metrics() {
    let node = node().await;
    let master = node.ca.sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
    let (status, body) = node.get(Some(&master), "/stats/summary").await.unwrap();
    assert_eq!(status, 200, "{body}");
    let summary: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&summary["node"]["nodeName"], &summary["pods"][0]["podRef"]["name"]), (&json!("box1"), &json!("web")));
    let container = &summary["pods"][0]["containers"][0];
    assert_eq!((&container["name"], &container["memory"]["workingSetBytes"]), (&json!("c"), &json!(16 << 20)));
    // A hundredth of a core, as precisely as a second is measured.
    let busy = container["cpu"]["usageNanoCores"].as_u64().unwrap();
    assert!((9_000_000..11_000_000).contains(&busy), "{busy}");
    assert_eq!(container["logs"]["usedBytes"], 6);
    let (_, cpu_only) = node.get(Some(&master), "/stats/summary?only_cpu_and_memory=true").await.unwrap();
    assert!(!cpu_only.contains("ephemeral-storage") && cpu_only.contains("usageNanoCores"));

    let (_, resource) = node.get(Some(&master), "/metrics/resource").await.unwrap();
    assert!(
        resource.contains("container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"web\"} 16777216 ")
    );
    let (_, own) = node.get(Some(&master), "/metrics").await.unwrap();
    assert!(
        own.contains("kubelet_running_pods 1\n")
            && own.contains("kubelet_running_containers{container_state=\"running\"} 1\n")
    );
    let (_, cadvisor) = node.get(Some(&master), "/metrics/cadvisor").await.unwrap();
    assert!(cadvisor.contains("container_network_receive_bytes_total{container=\"\",interface=\"eth0\","));
    let (_, configuration) = node.get(Some(&master), "/configz").await.unwrap();
    assert!(configuration.contains("\"maxPods\":110"));
    assert!(node.tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn health_is_told_to_anyone_on_the_machine() {
    let listener = health::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(health::serve(listener));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (path, code) in [("/healthz", 200), ("/pods", 404)] {
        let request = http::Request::get(path).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), code, "{path}");
    }
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_moved_named_and_removed() {
    let node = node().await;
    let master = node.ca.sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
    node.hollow.mend_image("i");
    node.hollow.put_image("i", 7);
    node.hollow.break_image("none:1", "manifest unknown");
    for (method, path, body, code, expected) in [
        ("POST", "/images/load", "app:1\napp:2\n", 200, "{\"loaded\":[\"app:1\",\"app:2\"]}"),
        ("POST", "/images/load", "", 400, "the archive has no image in it"),
        ("POST", "/images/tag?reference=app:1&name=quay.io%2Fx%2Fapp:1", "", 200, "{\"tagged\":[\"quay.io/x/app:1\"]}"),
        (
            "POST",
            "/images/tag?reference=app:1&name=No",
            "",
            400,
            "couldn't parse image name \"No\": invalid reference format",
        ),
        ("GET", "/images/save?reference=app:1&reference=app:2", "", 200, "app:1\napp:2\n"),
        ("GET", "/images/save", "", 400, "reference: between 1 and 64 are needed"),
        ("GET", "/images/inspect?reference=none:1", "", 404, "No such image: none:1"),
        ("POST", "/images/pull?reference=none:1", "", 502, "manifest unknown"),
        ("POST", "/images/push?reference=none:1", "", 502, "manifest unknown"),
        ("POST", "/images/push?reference=app:1", "", 200, "{\"pushed\":[\"app:1\"]}"),
        ("DELETE", "/images?reference=app:2", "", 200, "{\"removed\":[\"app:2\"]}"),
        ("DELETE", "/images?reference=app:2", "", 404, "No such image: app:2"),
        ("DELETE", "/images", "", 400, "reference: exactly one is needed"),
    ] {
        let body = http_body_util::Full::from(bytes::Bytes::from(body));
        let request = http::Request::builder().method(method).uri(path).body(body).unwrap();
        let answer = node.answer_to(Some(&master), request).await.unwrap();
        assert_eq!(answer, (code, expected.to_owned()), "{method} {path}");
    }
    let (_, list) = node.get(Some(&master), "/images").await.unwrap();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let names: Vec<&str> = list["items"].as_array().unwrap().iter().map(|i| i["names"][0].as_str().unwrap()).collect();
    assert_eq!(names, ["app:1", "i", "quay.io/x/app:1"]);
    // Nobody but who may write to the node's proxy.
    let other = node.ca.sign("system:node:box2", api::well_known::GROUP_NODES);
    assert_eq!(node.get(Some(&other), "/images").await.unwrap().0, 403);
    assert!(node.tasks.stop(Duration::from_secs(5)).await);
}
