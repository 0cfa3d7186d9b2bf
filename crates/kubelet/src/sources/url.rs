//! The manifest URL: asked again and again, as nobody says when it changes; an answer that is the same as before costs the
//! server nothing but a 304 (`pkg/kubelet/config/http.go`).

use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;

use super::StaticPods;
use super::manifest::{self, HTTP, Origin};

/// Longer documents are no manifests (`maxConfigLength`).
const MAX_BYTES: usize = 10 << 20;
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the document is, and what is said when it is asked for.
#[derive(Clone, Debug)]
pub struct ManifestUrl {
    /// The URL.
    pub url: http::Uri,
    /// Headers, `name: value`.
    pub headers: Vec<(String, String)>,
    /// The time between two requests.
    pub interval: Duration,
}

impl ManifestUrl {
    /// Where it is, for everybody to read: without a password or a token.
    fn place(&self) -> String {
        let host = self.url.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default()).unwrap_or_default();
        format!("{}://{host}{}", self.url.scheme_str().unwrap_or("http"), self.url.path())
    }
}

/// Follows the document for ever.
pub(crate) async fn follow(from: ManifestUrl, node_name: String, pods: StaticPods) {
    let mut known = Known::default();
    let mut told = None;
    let place = from.place();
    loop {
        let problem = match known.ask(&from).await {
            Ok(None) => None,
            Ok(Some(text)) => {
                match manifest::pods(&text, Origin { source: HTTP, place: &place, node_name: &node_name }) {
                    Ok(found) => {
                        pods.set(HTTP, found);
                        None
                    }
                    Err(problem) => {
                        // Asked for again, as a 304 would say nothing.
                        known = Known::default();
                        Some(problem)
                    }
                }
            }
            Err(problem) => Some(problem),
        };
        if let Some(problem) = problem.as_deref().filter(|problem| Some(*problem) != told.as_deref()) {
            pods.refused(&place, problem);
        }
        told = problem;
        tokio::time::sleep(from.interval).await;
    }
}

/// What the last good answer said of itself.
#[derive(Default)]
struct Known {
    conditions: HeaderMap,
}

impl Known {
    /// The document, if it is another than the last.
    async fn ask(&mut self, from: &ManifestUrl) -> Result<Option<Bytes>, String> {
        let mut request = Request::get(from.url.path_and_query().map_or("/", |p| p.as_str()));
        for (name, value) in &from.headers {
            request = request.header(name, value);
        }
        for (name, value) in &self.conditions {
            request = request.header(name, value);
        }
        let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        let client = client(&from.url)?;
        let answer = tokio::time::timeout(TIMEOUT, async {
            let answer = client.send(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            match parts.status {
                StatusCode::NOT_MODIFIED => Ok(None),
                StatusCode::OK => {
                    let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
                    Ok(Some((conditions(&parts.headers), body.to_bytes())))
                }
                status => Err(format!("{}: {status}", from.place())),
            }
        });
        let answer = answer.await.unwrap_or_else(|_| Err(format!("{}: no answer in {TIMEOUT:?}", from.place())))?;
        Ok(answer.map(|(conditions, text)| {
            self.conditions = conditions;
            text
        }))
    }
}

/// What the next request says so that it is answered only if something changed.
fn conditions(answer: &HeaderMap) -> HeaderMap {
    let pairs: [(HeaderName, HeaderName); 2] = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
    let said = |(said, asked): (HeaderName, HeaderName)| Some((asked, answer.get(said)?.clone()));
    pairs.into_iter().filter_map(said).collect::<HeaderMap<HeaderValue>>()
}

/// A client that believes whom the machine believes.
fn client(url: &http::Uri) -> Result<kube::Client, String> {
    let authority = url.authority().ok_or("the manifest URL names no host")?;
    let base = format!("{}://{authority}", url.scheme_str().unwrap_or("http"));
    let base = base.parse().map_err(|_| format!("{url}: not a URL"))?;
    kube::Client::try_from(kube::Config::new(base)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_document_is_sent_when_it_changed() {
        let sent = Arc::new(AtomicU32::new(0));
        let counted = sent.clone();
        let document = move |headers: HeaderMap| async move {
            assert_eq!(headers["x-node"], "n");
            if headers.get(IF_NONE_MATCH).is_some_and(|tag| tag == "\"1\"") {
                return (StatusCode::NOT_MODIFIED, HeaderMap::new(), "");
            }
            counted.fetch_add(1, Ordering::Relaxed);
            (StatusCode::OK, HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"1\""))]), "text")
        };
        let router = axum::Router::new().route("/pods", axum::routing::get(document));
        let port = crate::testing::serve_plainly(router).await;
        let from = ManifestUrl {
            url: format!("http://127.0.0.1:{port}/pods").parse().unwrap(),
            headers: vec![("X-Node".into(), "n".into())],
            interval: Duration::from_secs(1),
        };
        let mut known = Known::default();
        assert_eq!(known.ask(&from).await.unwrap().as_deref(), Some(&b"text"[..]));
        assert_eq!(known.ask(&from).await.unwrap(), None);
        assert_eq!(sent.load(Ordering::Relaxed), 1);
        let gone = ManifestUrl { url: format!("http://127.0.0.1:{port}/none").parse().unwrap(), ..from };
        assert!(known.ask(&gone).await.unwrap_err().contains("404"));
    }
}
