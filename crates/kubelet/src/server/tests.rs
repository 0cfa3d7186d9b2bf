use std::time::Duration;

use client::{Recorder, Tasks};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::env::NodeResources;
use crate::objects::ObjectCache;
use crate::runtime::hollow::Hollow;
use crate::runtime::{ContainerSpec, PodIdentity, Runtime, SandboxSpec};
use crate::testing::{Ca, Signed};
use crate::{Config, Services};

pub(super) struct Node {
    pub(super) ca: Ca,
    port: u16,
    pub(super) tasks: Tasks,
    pub(super) hollow: Hollow,
}

fn identity() -> PodIdentity {
    PodIdentity { namespace: "ns".into(), name: "web".into(), uid: "u1".into(), grace_period_seconds: 0 }
}

/// A node whose one pod ran `echo hello` and then runs `httpd`.
pub(super) async fn node() -> Node {
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
    let (_, network) = watch::channel(true);
    let no_api = tower::service_fn(async |_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>().await
    });
    let client = kube::Client::new(no_api, "default");
    let kubelet = Arc::new(Kubelet {
        started_at: jiff::Timestamp::now(),
        config: Config::new("box1", ip, "/nonexistent"),
        client: client.clone(),
        runtime: Arc::new(hollow.clone()),
        resources: NodeResources { ip, milli_cpu: 0, memory: 0, ephemeral_storage: 0 },
        recorder: Recorder::discard(),
        network,
        services: Services::Fixed(Vec::new()),
        config_maps: ObjectCache::new(client.clone()),
        secrets: ObjectCache::new(client.clone()),
    });
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
        let stream = self.connect(signed).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = http::Request::get(path).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_api_server_is_heard() {
    let node = node().await;
    let master = node.ca.sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
    assert_eq!(node.get(Some(&master), "/healthz").await, Some((200, "ok".into())));
    assert_eq!(node.get(None, "/healthz").await, None);
    let other_node = node.ca.sign("system:node:box2", api::well_known::GROUP_NODES);
    assert_eq!(node.get(Some(&other_node), "/healthz").await, None);
    let stranger = Ca::new("other").sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
    assert_eq!(node.get(Some(&stranger), "/healthz").await, None);
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
        ("/containerLogs/ns/web/new", 400, "container \"new\" in pod \"web\" is waiting to start"),
        ("/containerLogs/ns/nobody/c", 404, "pod \"nobody\" not found"),
    ] {
        assert_eq!(node.get(Some(&master), path).await, Some((status, body.to_owned())), "{path}");
    }
    let (status, pods) = node.get(Some(&master), "/pods").await.unwrap();
    assert!(status == 200 && pods.contains("\"PodList\"") && pods.contains("\"uid\":\"u1\""));
    node.hollow.kill_sandbox("ns", "web");
    assert!(node.tasks.stop(Duration::from_secs(5)).await);
}
