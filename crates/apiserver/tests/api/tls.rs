//! HTTPS: certificates, tokens, what is kept over restarts.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::{ApiServer, Config};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::common::*;

/// A server on a port of its own.
pub(crate) struct Secure {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Secure {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Secure {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::start_with(|config| {
            config.secure_port = address.port();
            change(config);
        })
        .await;
        let api = server.api.clone();
        let serving = tokio::spawn(async move { api.serve(listener).await.unwrap() });
        Secure { server, address, serving }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.server.directory.path().join(name)
    }

    /// Stops, and waits until every connection has ended.
    pub(crate) async fn stop(self) {
        self.server.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }

    /// Certificate and key of somebody who may do anything.
    pub(crate) fn admin(&self) -> (PathBuf, PathBuf) {
        (self.path("pki/apiserver-kubelet-client.crt"), self.path("pki/apiserver-kubelet-client.key"))
    }

    /// A connection for HTTP/2 or HTTP/1.1, with a client certificate or without.
    pub(crate) async fn connect(&self, identity: Option<&(PathBuf, PathBuf)>, h2: bool) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(certificate).unwrap()],
                    PrivateKeyDer::from_pem_file(key).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// GETs a path with credentials of one kind or another, over HTTP/2 or HTTP/1.1.
    pub(crate) async fn get(
        &self,
        path: &str,
        identity: Option<&(PathBuf, PathBuf)>,
        token: Option<&str>,
        h2: bool,
    ) -> (u16, String) {
        let stream = self.connect(identity, h2).await;
        let mut request = http::Request::get(format!("https://{}{path}", self.address)).header("host", "localhost");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = if h2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn credentials_decide_what_a_connection_may_do() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "s3cret,alice,1,\"system:masters\"\nt0ken,bob,2\n").unwrap();
    let secure = Secure::start(|c| c.token_auth_file = Some(tokens.path().to_owned())).await;
    let admin = secure.admin();
    let identity = Some(&admin);
    let join = std::fs::read_to_string(secure.path("join-token")).unwrap();
    let (bearer, fingerprint) = join.trim().rsplit_once('.').unwrap();
    assert_eq!(fingerprint.len(), 64);
    let cases = [
        ("anyone may ask for health", "/healthz", None, None, 200),
        ("and for the version", "/version", None, None, 200),
        ("and for nothing else", CONFIG_MAPS, None, None, 403),
        ("not even for discovery", "/api", None, None, 403),
        ("an admin's token is let in", CONFIG_MAPS, None, Some("s3cret"), 200),
        ("somebody without rights sees what there is", "/api", None, Some("t0ken"), 200),
        ("and nothing of it", CONFIG_MAPS, None, Some("t0ken"), 403),
        ("an unknown one is not", CONFIG_MAPS, None, Some("s3cre"), 401),
        ("not even to what is open", "/version", None, Some("nonsense"), 401),
        ("a client certificate is let in", CONFIG_MAPS, identity, None, 200),
        ("a join token is for joining only", CONFIG_MAPS, None, Some(bearer), 403),
    ];
    for (sentence, path, identity, token, code) in cases {
        for h2 in [true, false] {
            let (answered, text) = secure.get(path, identity, token, h2).await;
            assert_eq!(answered, code, "{sentence}: {text}");
        }
    }
    secure.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_every_key_and_a_new_address_gets_a_new_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let start = async |advertise: [u8; 4]| {
        let mut config = Config::new(directory.path());
        config.advertise_address = advertise.into();
        let store = Arc::new(store::embedded::Embedded::in_memory().unwrap());
        let stop = CancellationToken::new();
        ApiServer::start(config, store, stop.clone()).await.unwrap();
        stop.cancel();
        let names = [
            "ca.crt",
            "join-token",
            "pki/ca.key",
            "pki/apiserver.crt",
            "pki/apiserver.key",
            "admin.kubeconfig",
            "pki/sa.key",
        ];
        names.map(|name| std::fs::read_to_string(directory.path().join(name)).unwrap())
    };
    let first = start([192, 0, 2, 1]).await;
    assert_eq!(start([192, 0, 2, 1]).await, first);
    let moved = start([192, 0, 2, 2]).await;
    assert_eq!(moved[..3], first[..3]);
    assert_ne!(moved[3], first[3]);
    assert_eq!(moved[6], first[6]);
    assert!(moved[5].contains("https://192.0.2.2:6443"));
    let apiserver = ["pki/apiserver.key", "pki/apiserver-kubelet-client.key"];
    for key in ["pki/ca.key", "pki/sa.key", "admin.kubeconfig", "join-token"].into_iter().chain(apiserver) {
        let mode = std::fs::metadata(directory.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    std::fs::write(directory.path().join("pki/ca.key"), "damaged").unwrap();
    let store = Arc::new(store::embedded::Embedded::in_memory().unwrap());
    let damaged = ApiServer::start(Config::new(directory.path()), store, CancellationToken::new()).await;
    assert!(damaged.is_err(), "a damaged CA is never replaced");
}
