//! The client. Requests without a version go to the daemon's newest API whatever was negotiated, so each is given the
//! newest version that both sides know.

use std::path::PathBuf;
use std::sync::Arc;

use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::{Error, Result};
use super::hijack::Hijacker;

/// A version of Docker's API.
pub(super) type Version = (u32, u32);

/// The newest API version this runtime was written for.
const NEWEST: Version = (1, 47);
/// The oldest: that of Docker Engine 20.10.
const OLDEST: Version = (1, 41);
/// How long Docker may take to begin its answer. No call of ours waits for a process to end.
const TIMEOUT_SECONDS: u64 = 120;

/// How to talk to an engine on another machine: files in PEM, as `docker --tlsverify` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerTls {
    /// Who certifies the engine (`--tlscacert`).
    pub ca: PathBuf,
    /// Our certificate (`--tlscert`).
    pub certificate: PathBuf,
    /// Its key (`--tlskey`).
    pub key: PathBuf,
}

/// A connected client.
pub(super) struct Connected {
    pub(super) docker: Docker,
    pub(super) hijacker: Hijacker,
    pub(super) version: Version,
}

/// Connects to `unix://…`, `tcp://…` or `http://…`, with TLS where that is given.
pub(super) async fn connect(endpoint: &str, tls: Option<&DockerTls>) -> Result<Connected> {
    let config = tls.map(client_config).transpose()?.map(Arc::new);
    let docker = match (endpoint.split_once("://"), &config) {
        (Some(("unix", path)), None) => Docker::connect_with_unix(path, TIMEOUT_SECONDS, API_DEFAULT_VERSION),
        (Some(("unix", _)), Some(_)) => return Err(Error::Refused(format!("{endpoint}: a local socket has no TLS"))),
        (Some(("tcp" | "http", _)), None) => Docker::connect_with_http(endpoint, TIMEOUT_SECONDS, API_DEFAULT_VERSION),
        (Some(("tcp" | "https", address)), Some(config)) => over_tls(address, config),
        _ => return Err(Error::Refused(format!("{endpoint} is neither unix:// nor tcp://"))),
    };
    let docker = docker.map_err(super::error)?;
    let server = docker.version().await.map_err(super::error)?;
    let newest = server.api_version.as_deref().and_then(parse).unwrap_or(NEWEST);
    let oldest = server.min_api_version.as_deref().and_then(parse).unwrap_or((1, 0));
    let version = negotiate(oldest, newest).map_err(|why| {
        let name = server.version.as_deref().unwrap_or("of an unknown version");
        Error::Refused(format!("Docker Engine {name} {why}"))
    })?;
    let prefix = format!("/v{}.{}", version.0, version.1);
    let hijacker = Hijacker::new(endpoint, &prefix, config);
    let docker = docker.with_request_modifier(move |mut request| {
        if let Some(uri) = versioned(request.uri(), &prefix) {
            *request.uri_mut() = uri;
        }
        request
    });
    Ok(Connected { docker, hijacker, version })
}

/// The newest version both sides know, or why there is none.
fn negotiate(oldest: Version, newest: Version) -> std::result::Result<Version, String> {
    let text = |(major, minor): Version| format!("{major}.{minor}");
    if newest < OLDEST {
        return Err(format!("speaks API {} at most, and {} (Engine 20.10) is needed", text(newest), text(OLDEST)));
    }
    if oldest > NEWEST {
        return Err(format!("speaks API {} at least, and {} is the newest known here", text(oldest), text(NEWEST)));
    }
    Ok(newest.min(NEWEST))
}

fn over_tls(address: &str, config: &rustls::ClientConfig) -> std::result::Result<Docker, bollard::errors::Error> {
    let connector = HttpsConnectorBuilder::new().with_tls_config(config.clone()).https_only().enable_http1().build();
    let client: Client<_, _> = Client::builder(TokioExecutor::new()).build(connector);
    let send = move |request: BollardRequest| {
        let answer = client.request(request);
        async move { answer.await.map_err(bollard::errors::Error::from) }
    };
    let address = Some(format!("https://{}", address.trim_end_matches('/')));
    Docker::connect_with_custom_transport(send, address, TIMEOUT_SECONDS, API_DEFAULT_VERSION)
}

fn client_config(tls: &DockerTls) -> Result<rustls::ClientConfig> {
    let wrong = |path: &PathBuf, why: &dyn std::fmt::Display| Error::Refused(format!("{}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&tls.ca).map_err(|e| wrong(&tls.ca, &e))? {
        roots.add(certificate.map_err(|e| wrong(&tls.ca, &e))?).map_err(|e| wrong(&tls.ca, &e))?;
    }
    let chain = CertificateDer::pem_file_iter(&tls.certificate).map_err(|e| wrong(&tls.certificate, &e))?;
    let chain: std::result::Result<Vec<_>, _> = chain.collect();
    let chain = chain.map_err(|e| wrong(&tls.certificate, &e))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| wrong(&tls.key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| Error::Refused(e.to_string()))?.with_root_certificates(roots);
    builder.with_client_auth_cert(chain, key).map_err(|e| wrong(&tls.certificate, &e))
}

fn parse(version: &str) -> Option<Version> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn versioned(uri: &http::Uri, prefix: &str) -> Option<http::Uri> {
    let mut parts = uri.clone().into_parts();
    let path = parts.path_and_query.as_ref()?.as_str();
    parts.path_and_query = Some(format!("{prefix}{path}").parse().ok()?);
    http::Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::Full;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::Ca;

    #[test]
    fn requests_carry_a_version() {
        let uri: http::Uri = "http://2f/containers/json?all=true".parse().unwrap();
        assert_eq!(versioned(&uri, "/v1.41").unwrap().to_string(), "http://2f/v1.41/containers/json?all=true");
        assert_eq!(parse("1.41"), Some((1, 41)));
        assert!(parse("1.9").unwrap() < parse("1.41").unwrap(), "versions compare as numbers");
    }

    #[test]
    fn engines_from_20_10_to_29_are_spoken_to() {
        for (engine, oldest, newest, expected) in [
            ("19.03", (1, 12), (1, 40), Err("speaks API 1.40 at most, and 1.41 (Engine 20.10) is needed")),
            ("20.10", (1, 12), (1, 41), Ok((1, 41))),
            ("24.0", (1, 12), (1, 43), Ok((1, 43))),
            ("28.2", (1, 24), (1, 50), Ok((1, 47))),
            ("29.0", (1, 44), (1, 52), Ok((1, 47))),
            ("some day", (1, 48), (1, 60), Err("speaks API 1.48 at least, and 1.47 is the newest known here")),
        ] {
            assert_eq!(negotiate(oldest, newest), expected.map_err(str::to_owned), "{engine}");
        }
    }

    /// An engine that says which version it has, and on which path it was asked.
    async fn engine(ca: &Ca) -> (u16, tokio::sync::mpsc::Receiver<String>) {
        let signed = ca.sign("docker", "engines");
        let key = crate::server::certified_key(&signed.certificate, &signed.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(crate::server::roots(&ca.pem).unwrap());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_client_cert_verifier(verifier.unwrap());
        let config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, paths) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked) = (acceptor.clone(), asked.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
                        asked.send(request.uri().path().to_owned()).await.unwrap();
                        let text = r#"{"Version": "29.0.1", "ApiVersion": "1.52", "MinAPIVersion": "1.44"}"#;
                        let answer = http::Response::builder().header("content-type", "application/json");
                        Ok::<_, std::convert::Infallible>(answer.body(Full::new(bytes::Bytes::from(text))).unwrap())
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        (port, paths)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_remote_engine_and_we_prove_who_we_are() {
        let (ca, dir) = (Ca::new("engines"), tempfile::tempdir().unwrap());
        let (port, mut paths) = engine(&ca).await;
        let endpoint = format!("tcp://127.0.0.1:{port}");
        let files = |ca: &Ca, name: &str| {
            let signed = ca.sign("minion", "minions");
            let path = |what: &str| dir.path().join(format!("{name}-{what}.pem"));
            std::fs::write(path("ca"), &ca.pem).unwrap();
            std::fs::write(path("cert"), &signed.certificate).unwrap();
            std::fs::write(path("key"), &signed.key).unwrap();
            DockerTls { ca: path("ca"), certificate: path("cert"), key: path("key") }
        };
        let good = files(&ca, "good");
        let connected = connect(&endpoint, Some(&good)).await.unwrap();
        assert_eq!((connected.version, paths.recv().await.unwrap().as_str()), ((1, 47), "/version"));
        connected.docker.version().await.unwrap();
        assert_eq!(paths.recv().await.unwrap(), "/v1.47/version");

        let strange = files(&Ca::new("strangers"), "strange");
        let refused = tokio::time::timeout(Duration::from_secs(10), connect(&endpoint, Some(&strange))).await.unwrap();
        assert!(matches!(refused, Err(Error::Unreachable(_))));
        let missing = DockerTls { key: dir.path().join("none"), ..good.clone() };
        let error = connect(&endpoint, Some(&missing)).await.err().unwrap().to_string();
        assert!(error.contains("none: "), "{error}");
        assert!(connect("unix:///var/run/docker.sock", Some(&good)).await.is_err());
    }
}
