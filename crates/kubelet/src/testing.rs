//! A certificate authority and TLS for tests; a kubelet without a node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use client::Recorder;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio::sync::watch;

use crate::node::allocations::Allocations;
use crate::objects::ObjectCache;
use crate::runtime::{Machine, Runtime};
use crate::{Config, Kubelet, Services};

/// A certificate and its key, in PEM.
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A CA.
pub(crate) struct Ca {
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Ca { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name` of `organization`, good on loopback.
    pub(crate) fn sign(&self, name: &str, organization: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The third part of a join token.
    pub(crate) fn hash(&self) -> String {
        crate::names::hex(ring::digest::digest(&ring::digest::SHA256, &self.der).as_ref())
    }
}

/// Serves `router` over TLS on loopback with a certificate of `ca`, which it sends, too.
pub(crate) async fn serve(ca: &Ca, router: axum::Router) -> SocketAddr {
    let signed = ca.sign("server", "test");
    let certified = crate::server::certified_key(&format!("{}{}", signed.certificate, ca.pem), &signed.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let io = hyper_util::rt::TokioIo::new(stream);
                let service = hyper_util::service::TowerToHyperService::new(router);
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(io, service).await;
            });
        }
    });
    address
}

/// Serves `router` without TLS on loopback; its port.
pub(crate) async fn serve_plainly(router: axum::Router) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

/// A kubelet on `runtime` without a node's tasks; its pod network exists.
pub(crate) fn kubelet<R: Runtime + Clone>(
    runtime: &R,
    machine: &Machine,
    config: Config,
    client: &kube::Client,
) -> Arc<Kubelet> {
    let (sender, network) = watch::channel(true);
    // Whoever waits for a change of it waits for ever, not in vain.
    std::mem::forget(sender);
    Arc::new(Kubelet {
        resources: crate::node_resources(&config, machine),
        node: crate::node::Shared::new(&config, machine, runtime.uses_files()),
        abilities: crate::pod::admit::Abilities::default(),
        allocations: allocations(&config, machine),
        started_at: config.clock.now(),
        config,
        client: client.clone(),
        runtime: Arc::new(runtime.clone()),
        recorder: Recorder::discard(),
        network,
        services: Services::Fixed(Vec::new()),
        config_maps: ObjectCache::new(client.clone()),
        secrets: ObjectCache::new(client.clone()),
    })
}

/// The node's room, with all its pods known.
pub(crate) fn allocations(config: &Config, machine: &Machine) -> Allocations {
    let allocations = Allocations::new(crate::node::reserved::room(config, machine));
    allocations.are_complete(&Default::default());
    allocations
}

/// An API that has nothing and takes nothing.
pub(crate) fn empty_api() -> kube::Client {
    let nothing =
        r#"{"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "nothing here", "code": 404}"#;
    let answer = tower::service_fn(move |_: http::Request<kube::client::Body>| async move {
        let body = http_body_util::Full::from(bytes::Bytes::from_static(nothing.as_bytes()));
        Ok::<_, std::convert::Infallible>(http::Response::builder().status(404).body(body).unwrap())
    });
    kube::Client::new(answer, "default")
}
