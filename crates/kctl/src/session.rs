//! The connection to the server: requests, answers, streams.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use client::expiry;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use serde_json::Value;

use crate::{Console, Error};

/// The most of an answer that is read: far more than the largest list.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// The most of a line of a watch: an object and its wrapping.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The most warnings of a server that are shown in one run.
const WARNINGS_MAX: usize = 256;

/// How to reach the server and as whom; flags as in kubectl.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connection {
    /// Path to the kubeconfig file to use for CLI requests
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// If present, the namespace scope for this CLI request
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The address and port of the Kubernetes API server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token for authentication to the API server
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// Path to a cert file for the certificate authority
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// If true, the server's certificate will not be checked for validity
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// The length of time to wait before giving up on a single server request, e.g. 1s, 2m, 3h; 0 means don't timeout
    #[arg(long, global = true, default_value = "0", value_name = "DURATION")]
    pub request_timeout: String,
}

/// A connection and the namespace it works in. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    client: kube::Client,
    namespace: String,
    server: String,
    url: String,
    timeout: Option<Duration>,
    forced_namespace: bool,
    warnings: Vec<String>,
    said: Arc<Mutex<Said>>,
}

/// What the server has said beside its answers, each once.
#[derive(Default)]
struct Said {
    all: BTreeSet<String>,
    /// What the user has not been told.
    new: Vec<String>,
}

impl Connection {
    /// Reads the kubeconfig, applies the flags and makes a client. Nothing is sent yet.
    pub async fn open(&self) -> Result<Session, Error> {
        let mut config = self.config().await?;
        let wrong = |what: &str, error: &dyn std::fmt::Display| Error::message(format!("{what}: {error}"));
        if let Some(server) = &self.server {
            let url = if server.contains("://") { server.clone() } else { format!("http://{server}") };
            config.cluster_url = url.parse().map_err(|e| wrong("invalid server", &e))?;
        }
        if let Some(token) = &self.token {
            config.auth_info.token = Some(token.clone().into());
        }
        if let Some(path) = &self.certificate_authority {
            let pem = std::fs::read(path).map_err(|e| wrong(&path.display().to_string(), &e))?;
            config.root_cert = Some(certificates(&pem));
        }
        config.accept_invalid_certs |= self.insecure_skip_tls_verify;
        let server = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        // Watches and followed logs may be silent for long; each request has a timeout of its own where one is asked for.
        config.read_timeout = None;
        let now = jiff::Timestamp::now();
        let warnings = expiry::of_config(&config).iter().filter_map(|ending| expiry::warning(ending, now)).collect();
        let client = kube::Client::try_from(config).map_err(|e| Error::message(e.to_string()))?;
        let forced_namespace = self.namespace.is_some();
        let (timeout, said) = (self.timeout()?, Arc::default());
        Ok(Session { client, namespace, server, url, timeout, forced_namespace, warnings, said })
    }

    async fn config(&self) -> Result<kube::Config, Error> {
        use client::connect::ConnectError;
        use kube::config::KubeconfigError;
        // Without any kubeconfig, or with an empty one, kubectl talks to localhost:8080, unless told where.
        let otherwise = || Ok(kube::Config::new(http::Uri::from_static("http://localhost:8080")));
        match client::connect::kubeconfig(self.kubeconfig.as_deref(), self.context.as_deref(), "kctl").await {
            Ok(config) => Ok(config),
            Err(ConnectError::Kubeconfig(KubeconfigError::CurrentContextNotSet)) if self.context.is_none() => {
                otherwise()
            }
            Err(_) if self.kubeconfig.is_none() && self.context.is_none() && !any_kubeconfig() => otherwise(),
            Err(error) => Err(Error::message(error.to_string())),
        }
    }

    fn timeout(&self) -> Result<Option<Duration>, Error> {
        let timeout = parse_duration(&self.request_timeout).ok_or_else(|| {
            Error::message(format!(
                "invalid timeout value {:?}, want a duration like 1s, 2m or 3h",
                self.request_timeout
            ))
        })?;
        Ok((!timeout.is_zero()).then_some(timeout))
    }
}

/// Whether a kubeconfig is where one would be looked for.
fn any_kubeconfig() -> bool {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    std::env::var_os("KUBECONFIG").is_some_and(|v| !v.is_empty()) || home.is_some_and(|path| path.exists())
}

/// The DER of each certificate in a PEM file.
fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    use base64::Engine;
    let text = String::from_utf8_lossy(pem);
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1).filter_map(|b| b.split("-----END").next());
    let decode = |block: &str| {
        let packed: String = block.split_whitespace().collect();
        base64::engine::general_purpose::STANDARD.decode(packed).ok()
    };
    blocks.filter_map(decode).collect()
}

/// A Go duration (`1m30s`), or a whole number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let units = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        total += number
            * match &rest[digits..units] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[units..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

impl Session {
    /// A session over a client that is there already.
    pub fn new(client: kube::Client, namespace: &str) -> Session {
        Session {
            client,
            namespace: namespace.to_owned(),
            server: "in-process".to_owned(),
            url: "in-process".to_owned(),
            timeout: None,
            forced_namespace: false,
            warnings: Vec::new(),
            said: Arc::default(),
        }
    }

    /// The namespace for objects that name none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What the user should know beside what was asked: certificates that end before long.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Tells the user what the server has said beside its answers since.
    pub fn tell_warnings(&self, console: &mut Console) {
        let new = std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner).new);
        new.iter().for_each(|warning| console.note(&format!("Warning: {warning}")));
    }

    fn hear(&self, headers: &HeaderMap) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for header in headers.get_all(http::header::WARNING) {
            for warning in warnings_in(&String::from_utf8_lossy(header.as_bytes())) {
                if said.all.len() < WARNINGS_MAX && said.all.insert(warning.clone()) {
                    said.new.push(warning);
                }
            }
        }
    }

    /// Whether the namespace was given by hand for this run.
    pub fn namespace_is_forced(&self) -> bool {
        self.forced_namespace
    }

    /// `https://host:port` of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port` of the server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// GET as JSON.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(Method::GET, path, "application/json", None).await
    }

    /// GET with an Accept header of one's own.
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Value, Error> {
        self.call(Method::GET, path, accept, None).await
    }

    /// POST of an object.
    pub async fn post(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.call(Method::POST, path, "application/json", Some(("application/json", object))).await
    }

    /// PATCH of an object.
    pub async fn patch(&self, path: &str, media_type: &str, patch: &Value) -> Result<Value, Error> {
        self.call(Method::PATCH, path, "application/json", Some((media_type, patch))).await
    }

    /// PUT of an object.
    pub async fn put(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.call(Method::PUT, path, "application/json", Some(("application/json", object))).await
    }

    /// DELETE with options.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, Error> {
        self.call(Method::DELETE, path, "application/json", Some(("application/json", options))).await
    }

    /// GET as text.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        let bytes = self.limited(async { collect(self.send(Method::GET, path, "*/*", None).await?).await }).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// GET of a body without end, piece by piece.
    pub async fn stream(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let response = self.send(Method::GET, path, "*/*", None).await?;
        Ok(pieces(response))
    }

    /// Any request with a body of one's own; the answer as it is. A body in pieces is sent as it comes, so no timeout
    /// applies.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        header: Option<(&str, &str)>,
        body: Body,
    ) -> Result<Bytes, Error> {
        tracing::debug!(%method, path, "request");
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|e| Error::message(e.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| self.transport(&error))?;
        self.hear(response.headers());
        if response.status().as_u16() < 400 { collect(response).await } else { Err(refused(response).await) }
    }

    /// The events of a watch: one JSON object for each line.
    pub async fn watch(&self, path: &str, accept: &str) -> Result<BoxStream<'static, Result<Value, Error>>, Error> {
        let response = self.send(Method::GET, path, accept, None).await?;
        Ok(lines(pieces(response)).boxed())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, Error> {
        let bytes = self.limited(async { collect(self.send(method, path, accept, body).await?).await }).await?;
        serde_json::from_slice(&bytes).map_err(|e| Error::message(format!("the server's answer is not JSON: {e}")))
    }

    async fn limited<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some(timeout) = self.timeout else { return request.await };
        let late = |_| Error::Unreachable { server: self.server.clone(), message: "request timed out".to_owned() };
        tokio::time::timeout(timeout, request).await.map_err(late)?
    }

    /// Sends a request; an answer of 400 and above is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Response<Body>, Error> {
        tracing::debug!(%method, path, "request");
        let mut request = Request::builder().method(method).uri(path).header(http::header::ACCEPT, accept);
        let mut bytes = Vec::new();
        if let Some((media_type, value)) = body {
            request = request.header(http::header::CONTENT_TYPE, media_type);
            bytes = value.to_string().into_bytes();
        }
        let request = request.body(Body::from(bytes)).map_err(|e| Error::message(e.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| self.transport(&error))?;
        self.hear(response.headers());
        if response.status().as_u16() < 400 { Ok(response) } else { Err(refused(response).await) }
    }

    fn transport(&self, error: &dyn std::error::Error) -> Error {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = cause.to_string();
            source = cause.source();
        }
        Error::Unreachable { server: self.server.clone(), message }
    }
}

/// A request's body that is sent as it comes. kube's client has such bodies for answers only, so this one is an answer's.
pub async fn body_in_pieces(
    pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Result<Body, Error> {
    let mut body = Some(StreamBody::new(pieces.map_ok(Frame::data)));
    let answer = tower::service_fn(move |_: Request<Body>| {
        let body = body.take().ok_or_else(|| std::io::Error::other("there is one answer only"));
        std::future::ready(body.map(Response::new))
    });
    let answer = kube::Client::new(answer, "").send(Request::new(Body::empty())).await;
    Ok(answer.map_err(|e| Error::message(e.to_string()))?.into_body())
}

/// The Status in an answer, or one made of what there is.
async fn refused(response: Response<Body>) -> Error {
    let code = response.status();
    let bytes = collect(response).await.unwrap_or_default();
    let status = serde_json::from_slice::<Value>(&bytes).ok().filter(|status| status["kind"] == "Status");
    let made = || {
        let text = String::from_utf8_lossy(&bytes);
        let message = if text.trim().is_empty() { code.canonical_reason().unwrap_or("unknown") } else { text.trim() };
        serde_json::json!({"kind": "Status", "message": message, "code": code.as_u16(),
                           "reason": if code.as_u16() == 404 { "NotFound" } else { "" }})
    };
    Error::Status { status: status.unwrap_or_else(made), doing: None }
}

async fn collect(response: Response<Body>) -> Result<Bytes, Error> {
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let collected = body.collect().await.map_err(|e| Error::message(format!("reading the answer: {e}")))?;
    Ok(collected.to_bytes())
}

fn pieces(response: Response<Body>) -> BoxStream<'static, Result<Bytes, Error>> {
    let stream = response.into_body().into_data_stream();
    stream.map_err(|e| Error::message(format!("reading the answer: {e}"))).boxed()
}

/// Cuts a stream into lines and reads each as JSON.
fn lines(pieces: BoxStream<'static, Result<Bytes, Error>>) -> impl futures::Stream<Item = Result<Value, Error>> {
    futures::stream::try_unfold((pieces, Vec::<u8>::new()), |(mut pieces, mut buffer)| async move {
        loop {
            if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let rest = buffer.split_off(end + 1);
                let line = std::mem::replace(&mut buffer, rest);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let value = serde_json::from_slice(&line).map_err(|e| Error::message(format!("watch: {e}")))?;
                return Ok(Some((value, (pieces, buffer))));
            }
            if buffer.len() > LINE_BYTES_MAX {
                return Err(Error::message("watch: a line is too long"));
            }
            match pieces.try_next().await? {
                Some(piece) => buffer.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    })
}

/// The texts of a `Warning` header that are for users (`299 - "text"`, several after commas).
fn warnings_in(header: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), header);
    while let Some((code, after)) = rest.trim_start_matches([' ', ',']).split_once(' ') {
        let Some((_, quoted)) = after.split_once('"') else { break };
        let (mut text, mut is_escaped, mut end) = (String::new(), false, quoted.len());
        for (at, c) in quoted.char_indices() {
            match c {
                '\\' if !is_escaped => is_escaped = true,
                '"' if !is_escaped => {
                    end = at + 1;
                    break;
                }
                _ => {
                    text.push(c);
                    is_escaped = false;
                }
            }
        }
        if code == "299" && !text.is_empty() {
            found.push(text);
        }
        // After the text may come a date, in quotes, too.
        let after = quoted[end..].trim_start();
        rest = after.strip_prefix('"').and_then(|date| date.split_once('"')).map_or(after, |(_, rest)| rest);
    }
    found
}

/// A path with query parameters, the values encoded.
pub fn with_query(path: &str, parameters: &[(&str, String)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// Percent-encodes everything but unreserved characters.
pub fn encode(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_durations_or_seconds() {
        for (text, seconds) in [("0", Some(0.0)), ("5", Some(5.0)), ("1m30s", Some(90.0)), ("1.5h", Some(5400.0))] {
            assert_eq!(parse_duration(text).map(|d| d.as_secs_f64()), seconds, "{text}");
        }
        for text in ["", "x", "1", "5 s", "1m x", "-1s", "1e400h", "m"] {
            assert!(text == "1" || parse_duration(text).is_none(), "{text}");
        }
    }

    #[test]
    fn warnings_are_read_as_they_are_written() {
        let cases: [(&str, &[&str]); 6] = [
            ("299 - \"old\"", &["old"]),
            (
                r#"299 - "say \"b\\\" or, c", 299 kube "two" "Sat, 25 Aug 2012 23:34:45 GMT",299 - "three""#,
                &[r#"say "b\" or, c"#, "two", "three"],
            ),
            ("110 - \"stale\", 299 - \"ol\u{e9}\"", &["ol\u{e9}"]),
            ("299 - \"\"", &[]),
            ("299 - \"cut", &["cut"]),
            ("299 -", &[]),
        ];
        for (header, expected) in cases {
            assert_eq!(warnings_in(header), expected, "{header}");
        }
    }

    #[test]
    fn query_values_are_encoded() {
        let query = with_query("/api", &[("labelSelector", "a in (b,c)".to_owned())]);
        assert_eq!(query, "/api?labelSelector=a%20in%20%28b%2Cc%29");
    }
}
