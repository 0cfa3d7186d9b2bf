//! The hand-over from HTTP to a byte stream: which protocol a client asks for, the answer, and what follows it.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::find::Refusal;
use super::idle::Watched;
use super::{Shared, plain};

/// A connection that was handed over.
pub(super) type Io = Watched<TokioIo<Upgraded>>;

const SPDY: &str = "SPDY/3.1";
/// How SPDY clients and servers agree on what the streams mean.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Spdy,
    WebSocket,
}

/// What of each transport a handler speaks; the empty name is for clients that name none.
pub(super) struct Spoken {
    pub(super) spdy: &'static [&'static str],
    pub(super) websocket: &'static [&'static str],
}

/// A connection about to be handed over.
pub(super) struct Upgrade {
    pub(super) transport: Transport,
    /// One of those spoken.
    pub(super) protocol: &'static str,
    connection: OnUpgrade,
    accept: Option<String>,
}

impl Upgrade {
    /// What a request asks for, if it can be had.
    pub(super) fn of(request: &mut Request, spoken: &Spoken) -> Result<Upgrade, Refusal> {
        let headers = request.headers();
        let transport = transport(headers)?;
        let (names, ours) = match transport {
            Transport::Spdy => (STREAM_PROTOCOL, spoken.spdy),
            Transport::WebSocket => (SEC_WEBSOCKET_PROTOCOL, spoken.websocket),
        };
        let protocol = negotiate(&tokens(headers, names), ours)?;
        let accept = match transport {
            Transport::Spdy => None,
            Transport::WebSocket => Some(accept(headers)?),
        };
        let no_connection = || (StatusCode::BAD_REQUEST, "the connection cannot be upgraded".to_owned());
        let connection = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(no_connection)?;
        Ok(Upgrade { transport, protocol, connection, accept })
    }

    /// Answers 101, and lets `serve` have the connection after that. It ends with the server, or when nothing has passed for
    /// long.
    pub(super) fn answer<F>(self, shared: &Shared, serve: impl FnOnce(Io) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let (name, upgrade) = match self.transport {
            Transport::Spdy => (STREAM_PROTOCOL, SPDY),
            Transport::WebSocket => (SEC_WEBSOCKET_PROTOCOL, "websocket"),
        };
        headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
        if !self.protocol.is_empty() {
            headers.insert(name, HeaderValue::from_static(self.protocol));
        }
        if let Some(accept) = self.accept.and_then(|accept| HeaderValue::try_from(accept).ok()) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        let (connection, timeout) = (self.connection, shared.kubelet.config.streaming_idle_timeout);
        let spawned = shared.sessions.spawn(async move {
            let upgraded = match connection.await {
                Ok(upgraded) => TokioIo::new(upgraded),
                Err(error) => return tracing::debug!(%error, "a connection was not handed over"),
            };
            let (io, passed) = Watched::new(upgraded);
            tokio::select! {
                () = serve(io) => {}
                () = passed.nothing_for(timeout) => tracing::debug!(?timeout, "a session ends over which nothing passes"),
            }
        });
        if spawned { response } else { plain(StatusCode::SERVICE_UNAVAILABLE, "too many sessions".to_owned()) }
    }
}

/// Every comma-separated token of the headers called `name`.
fn tokens(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty()).collect()
}

fn transport(headers: &HeaderMap) -> Result<Transport, Refusal> {
    let upgrades = tokens(headers, CONNECTION).iter().any(|token| token.eq_ignore_ascii_case("upgrade"));
    let wanted = tokens(headers, UPGRADE);
    let has = |name: &str| upgrades && wanted.iter().any(|token| token.eq_ignore_ascii_case(name));
    match (has("websocket"), has(SPDY)) {
        (true, _) => Ok(Transport::WebSocket),
        (_, true) => Ok(Transport::Spdy),
        _ => Err((StatusCode::BAD_REQUEST, "Upgrade request required".to_owned())),
    }
}

/// The first of the client's protocols that is ours.
fn negotiate(theirs: &[&str], ours: &'static [&'static str]) -> Result<&'static str, Refusal> {
    let theirs = if theirs.is_empty() { &[""] } else { theirs };
    let common = theirs.iter().find_map(|protocol| ours.iter().find(|our| *our == protocol));
    common.copied().ok_or_else(|| {
        let message = "unable to upgrade: unable to negotiate protocol";
        let (theirs, ours) = (theirs.join(", "), ours.join(", "));
        (StatusCode::FORBIDDEN, format!("{message}: client supports [{theirs}], server accepts [{ours}]"))
    })
}

fn accept(headers: &HeaderMap) -> Result<String, Refusal> {
    let wrong = |what: &str| (StatusCode::BAD_REQUEST, what.to_owned());
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(wrong("WebSocket version 13 is needed"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| wrong("Sec-WebSocket-Key is missing"))?;
    Ok(derive_accept_key(key.as_bytes()))
}

/// What a client is told whose protocols are not spoken here: which ones are.
pub(super) fn refuse((status, message): Refusal, spoken: &Spoken) -> Response {
    let mut response = plain(status, message);
    if status == StatusCode::FORBIDDEN {
        for protocol in spoken.spdy.iter().filter(|protocol| !protocol.is_empty()) {
            response.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(protocol));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOKEN: Spoken = Spoken { spdy: &["v4.channel.k8s.io", ""], websocket: &["v5.channel.k8s.io"] };

    fn asked(headers: &[(&str, &str)]) -> Result<(Transport, &'static str), StatusCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        let transport = transport(&map).map_err(|(status, _)| status)?;
        let (names, ours) = match transport {
            Transport::Spdy => (STREAM_PROTOCOL, SPOKEN.spdy),
            Transport::WebSocket => (SEC_WEBSOCKET_PROTOCOL, SPOKEN.websocket),
        };
        negotiate(&tokens(&map, names), ours).map(|protocol| (transport, protocol)).map_err(|(status, _)| status)
    }

    #[test]
    fn clients_get_the_first_of_their_protocols_that_is_spoken() {
        let spdy = [("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")];
        let websocket = [("connection", "upgrade"), ("upgrade", "WebSocket")];
        let version = |value| ("x-stream-protocol-version", value);
        for (sentence, headers, more, expected) in [
            (
                "in one header",
                spdy,
                vec![version("v5.channel.k8s.io, v4.channel.k8s.io")],
                Ok((Transport::Spdy, "v4.channel.k8s.io")),
            ),
            (
                "in several",
                spdy,
                vec![version("v5.channel.k8s.io"), version("v4.channel.k8s.io")],
                Ok((Transport::Spdy, "v4.channel.k8s.io")),
            ),
            ("none", spdy, vec![], Ok((Transport::Spdy, ""))),
            ("none of ours", spdy, vec![version("v9")], Err(StatusCode::FORBIDDEN)),
            (
                "websocket",
                websocket,
                vec![("sec-websocket-protocol", "v5.channel.k8s.io")],
                Ok((Transport::WebSocket, "v5.channel.k8s.io")),
            ),
            ("websocket, none", websocket, vec![], Err(StatusCode::FORBIDDEN)),
            ("no upgrade", [("connection", "close"), ("upgrade", "SPDY/3.1")], vec![], Err(StatusCode::BAD_REQUEST)),
        ] {
            assert_eq!(asked(&[&headers[..], &more].concat()), expected, "{sentence}");
        }
    }
}
