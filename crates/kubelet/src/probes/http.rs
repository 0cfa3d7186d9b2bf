//! `GET` as probes and lifecycle hooks do it (`pkg/probe/http`): HTTP/1.1 or, over TLS, what the server prefers; no
//! certificate is verified; redirects are followed on the same host; of the body only the beginning is read.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_util::task::AbortOnDropHandle;

use super::dial::{self, dial};
use crate::runtime::{Connection, Runtime};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// Bytes of a body that are read (`maxRespBodyLength`).
const MAX_BODY: usize = 10 << 10;

/// The version probes say they are of.
pub(crate) const VERSION: &str = "1.35";

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// The beginning of its body.
    pub(crate) body: String,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", dial::address(&self.host, self.port), self.path)
    }
}

impl Url {
    fn of(action: &HTTPGetAction, container: &Container, ip: IpAddr) -> Result<Url, String> {
        let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_string());
        let path = action.path.as_deref().unwrap_or_default();
        Ok(Url {
            tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host,
            port: port(&action.port, container)?,
            path: format!("/{}", path.strip_prefix('/').unwrap_or(path)),
        })
    }

    /// Where a `Location` leads.
    fn join(&self, location: &str) -> Option<Url> {
        let absolute = if location.starts_with("//") {
            format!("{}:{location}", if self.tls { "https" } else { "http" })
        } else {
            location.to_owned()
        };
        if let Ok(uri) = absolute.parse::<Uri>()
            && let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host())
        {
            let tls = scheme == "https";
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            return Some(Url { tls, host: host.trim_matches(['[', ']']).to_owned(), port, path });
        }
        let path = match (location.starts_with('/'), self.path.split('?').next().and_then(|p| p.rsplit_once('/'))) {
            (true, _) => location.to_owned(),
            (false, Some((folder, _))) => format!("{folder}/{location}"),
            (false, None) => format!("/{location}"),
        };
        Some(Url { path: path.split('#').next()?.to_owned(), ..self.clone() })
    }
}

/// The number of a port that is a number, or the name of one of the container's (`ResolveContainerPort`).
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            match (named, name.parse::<i64>()) {
                (Some(port), _) => i64::from(port.container_port),
                (None, Ok(number)) => number,
                (None, Err(_)) => return Err(format!("strconv.Atoi: parsing \"{name}\": invalid syntax")),
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Does what `action` says to `container`, which is reached at `ip`; `agent` is `kube-probe` or `kube-lifecycle`. The
/// error reads `Get "http://…": dial tcp …`.
pub(crate) async fn get(
    runtime: &dyn Runtime,
    action: &HTTPGetAction,
    container: &Container,
    ip: IpAddr,
    agent: &str,
) -> Result<Answer, String> {
    let url = Url::of(action, container, ip)?;
    let headers = headers(action, agent)?;
    follow(runtime, url, headers).await
}

/// What a request that takes too long reads like.
pub(crate) fn timed_out(action: &HTTPGetAction, container: &Container, ip: IpAddr) -> String {
    let url = Url::of(action, container, ip).map(|url| url.to_string()).unwrap_or_default();
    format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
}

/// The headers asked for, and those of a probe where they are not (`v1HeaderToHTTPHeader`); an empty `Accept` is none.
fn headers(action: &HTTPGetAction, agent: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in action.http_headers.iter().flatten() {
        let name: HeaderName = header.name.parse().map_err(|_| format!("invalid header name {:?}", header.name))?;
        let value = HeaderValue::from_str(&header.value);
        let value = value.map_err(|_| format!("net/http: invalid header field value for {:?}", header.name))?;
        headers.append(name, value);
    }
    if !headers.contains_key(http::header::USER_AGENT) {
        let text = format!("{agent}/{VERSION}");
        headers.insert(http::header::USER_AGENT, HeaderValue::from_str(&text).map_err(|e| e.to_string())?);
    }
    match headers.get(http::header::ACCEPT) {
        None => drop(headers.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"))),
        Some(value) if value.is_empty() => drop(headers.remove(http::header::ACCEPT)),
        Some(_) => {}
    }
    Ok(headers)
}

async fn follow(runtime: &dyn Runtime, first: Url, headers: HeaderMap) -> Result<Answer, String> {
    let mut url = first.clone();
    for _ in 0..=MAX_REDIRECTS {
        let failed = |error: String| format!("Get \"{url}\": {error}");
        let (response, _connection) = request(runtime, &url, &headers).await.map_err(failed)?;
        let location = response.headers().get(http::header::LOCATION).and_then(|l| l.to_str().ok());
        let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        match location.filter(|_| redirects).and_then(|location| url.join(location)) {
            Some(next) if next.host == first.host => url = next,
            _ => {
                let status = response.status();
                return Ok(Answer { status, body: beginning(response.into_body()).await.map_err(failed)? });
            }
        }
    }
    Err(format!("Get \"{url}\": stopped after {MAX_REDIRECTS} redirects"))
}

/// One request, on a connection of its own that lives as long as the handle.
async fn request(
    runtime: &dyn Runtime,
    url: &Url,
    headers: &HeaderMap,
) -> Result<(http::Response<Incoming>, AbortOnDropHandle<()>), String> {
    let stream = dial(runtime, &url.host, url.port).await?;
    if !url.tls {
        return http1(stream, url, headers).await;
    }
    let name = ServerName::try_from(url.host.clone()).map_err(|e| e.to_string())?;
    let stream = tokio_rustls::TlsConnector::from(TLS.clone()?).connect(name, stream).await;
    let stream = stream.map_err(|error| format!("tls: {error}"))?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return http2(stream, url, headers).await;
    }
    http1(Box::new(stream), url, headers).await
}

async fn http1(
    stream: Connection,
    url: &Url,
    headers: &HeaderMap,
) -> Result<(http::Response<Incoming>, AbortOnDropHandle<()>), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = url.path.parse().map_err(|_| format!("invalid path {:?}", url.path))?;
    *request.headers_mut() = headers.clone();
    if !headers.contains_key(http::header::HOST) {
        let host = HeaderValue::from_str(&dial::address(&url.host, url.port)).map_err(|e| e.to_string())?;
        request.headers_mut().insert(http::header::HOST, host);
    }
    request.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    Ok((sender.send_request(request).await.map_err(|e| text(&e))?, connection))
}

async fn http2(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    url: &Url,
    headers: &HeaderMap,
) -> Result<(http::Response<Incoming>, AbortOnDropHandle<()>), String> {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|e| text(&e))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::GET;
    *request.headers_mut() = headers.clone();
    let host = request.headers_mut().remove(http::header::HOST);
    let authority = host.and_then(|host| host.to_str().ok().map(str::to_owned));
    let authority = authority.unwrap_or_else(|| dial::address(&url.host, url.port));
    *request.uri_mut() = format!("https://{authority}{}", url.path).parse().map_err(|e| format!("{e}"))?;
    Ok((sender.send_request(request).await.map_err(|e| text(&e))?, connection))
}

/// An error of a connection as Go has it, where that is well known.
fn text(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn beginning(mut body: Incoming) -> Result<String, String> {
    let mut kept = Vec::new();
    while kept.len() < MAX_BODY
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame.map_err(|e| text(&e))?.into_data() {
            kept.extend_from_slice(&data[..data.len().min(MAX_BODY - kept.len())]);
        }
    }
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

/// TLS that believes every server: a probe asks whether something answers, not who (upstream's `InsecureSkipVerify`).
static TLS: LazyLock<Result<Arc<rustls::ClientConfig>, String>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Anyone(provider.clone()));
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
});

#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn url(action: serde_json::Value) -> Result<Url, String> {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        let container: Container = serde_json::from_value(container).unwrap();
        Url::of(&serde_json::from_value(action).unwrap(), &container, "10.0.0.1".parse().unwrap())
    }

    #[test]
    fn urls_are_made_from_actions() {
        for (action, expected) in [
            (json!({"port": 80}), "http://10.0.0.1:80/"),
            (json!({"port": "web", "path": "/ready?x=1"}), "http://10.0.0.1:8080/ready?x=1"),
            (json!({"port": "81", "path": "x", "scheme": "HTTPS", "host": "other"}), "https://other:81/x"),
            (json!({"port": 1, "host": "::1"}), "http://[::1]:1/"),
        ] {
            assert_eq!(url(action).unwrap().to_string(), expected);
        }
        assert_eq!(url(json!({"port": 0})).unwrap_err(), "invalid port number: 0");
        assert!(url(json!({"port": "none"})).unwrap_err().contains("none"));
    }

    #[test]
    fn redirects_lead_where_they_say() {
        let base = url(json!({"port": 80, "path": "/a/b?c"})).unwrap();
        for (location, expected) in [
            ("/x?y", "http://10.0.0.1:80/x?y"),
            ("x", "http://10.0.0.1:80/a/x"),
            ("https://10.0.0.1/z", "https://10.0.0.1:443/z"),
            ("//other:9/z", "http://other:9/z"),
            ("http://[::1]/", "http://[::1]:80/"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn headers_are_completed() {
        let action = json!({"port": 1, "httpHeaders": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"},
            {"name": "Accept", "value": ""}]});
        let made = headers(&serde_json::from_value(action).unwrap(), "kube-probe").unwrap();
        assert_eq!(made.get_all("x").iter().count(), 2);
        assert!(!made.contains_key("accept") && made["user-agent"].to_str().unwrap().starts_with("kube-probe/1."));
        let wrong = json!({"port": 1, "httpHeaders": [{"name": "a b", "value": "1"}]});
        assert!(headers(&serde_json::from_value(wrong).unwrap(), "x").is_err());
    }
}
