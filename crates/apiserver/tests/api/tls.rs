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
    // The two of above, and this one: each made a year ago at most.
    let (_, metrics) = secure.get("/metrics", identity, None, true).await;
    for line in [
        "apiserver_client_certificate_expiration_seconds_count 3",
        r#"apiserver_client_certificate_expiration_seconds_bucket{le="15552000.0"} 0"#,
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    secure.stop().await;
}

/// The names and addresses of a certificate that begin so.
fn sans(pem: &str, beginning: &str) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    use x509_parser::prelude::{FromDer, X509Certificate};
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let extension = certificate.subject_alternative_name().unwrap().unwrap();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(ip) => ip.iter().map(ToString::to_string).collect::<Vec<_>>().join("."),
        other => panic!("{other:?}"),
    };
    let mut all: Vec<String> = extension.value.general_names.iter().map(text).collect();
    all.retain(|name| name.starts_with(beginning));
    all.sort();
    all
}

#[tokio::test]
async fn a_second_master_without_the_first_ones_keys_makes_none() {
    let store = Arc::new(store::embedded::Embedded::in_memory().unwrap());
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = async |directory: &std::path::Path, store_is_shared: bool| {
        let stop = CancellationToken::new();
        let config = Config { store_is_shared, ..Config::new(directory) };
        let started = ApiServer::start(config, store.clone(), stop.clone()).await.map(drop);
        stop.cancel();
        started.map_err(|error| error.to_string())
    };
    start(first.path(), true).await.unwrap();
    let refused = start(second.path(), true).await.unwrap_err();
    assert!(refused.contains("the store holds a cluster, and") && refused.contains("import-keys"), "{refused}");
    assert!(!second.path().join("pki").exists(), "nothing was made");
    std::fs::create_dir(second.path().join("pki")).unwrap();
    for key in ["ca.crt", "ca.key", "sa.key"] {
        std::fs::copy(first.path().join("pki").join(key), second.path().join("pki").join(key)).unwrap();
    }
    start(second.path(), true).await.unwrap();
    start(tempfile::tempdir().unwrap().path(), false).await.expect("a restored store may get new keys");
}

#[tokio::test]
async fn a_restart_keeps_every_key_and_a_new_address_gets_a_new_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let start = async |advertise: [u8; 4], names: &[&str]| {
        let mut config = Config::new(directory.path());
        config.advertise_address = advertise.into();
        config.cert_extra_sans = names.iter().map(|name| (*name).to_owned()).collect();
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
    let first = start([192, 0, 2, 1], &[]).await;
    assert_eq!(start([192, 0, 2, 1], &[]).await, first);
    let moved = start([192, 0, 2, 2], &[]).await;
    assert_eq!(moved[..3], first[..3]);
    assert_ne!(moved[3], first[3]);
    assert_eq!(moved[6], first[6]);
    assert!(moved[5].contains("https://192.0.2.2:6443"));
    assert_eq!(sans(&moved[3], "192.0.2."), ["192.0.2.2"], "and no longer the old one");
    let named = start([192, 0, 2, 2], &["api.example.org", "192.0.2.9"]).await;
    assert_eq!(sans(&named[3], "api."), ["api.example.org"]);
    assert_eq!(sans(&named[3], "192.0.2."), ["192.0.2.2", "192.0.2.9"]);
    assert_eq!(start([192, 0, 2, 2], &["api.example.org", "192.0.2.9"]).await, named);
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
