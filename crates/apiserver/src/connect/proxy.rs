//! An exchange passed on as it is, but for what concerns one connection only; and two upgraded connections joined.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::respond::ApiResponse;
use crate::server::Shared;
use crate::status::ApiError;

/// Headers of one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// The clients and proxies a request came through.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// How browsers send bearer tokens with WebSockets.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Places for upgraded connections.
pub(crate) struct Tunnels(Arc<Semaphore>);

impl Tunnels {
    pub(crate) fn new(most: usize) -> Tunnels {
        Tunnels(Arc::new(Semaphore::new(most)))
    }
}

/// Among the extensions of an answer that joins two connections: cancelled when they are so no more.
#[derive(Clone)]
pub(crate) struct Session(pub(crate) CancellationToken);

/// Says on whose behalf the request goes on: after whoever is named already comes who sent it here
/// (`AppendForwardedForHeader` in `k8s.io/apimachinery/pkg/util/net`, and Go's `ReverseProxy`).
pub(crate) fn note_forwarded(headers: &mut HeaderMap, peer: Option<IpAddr>) {
    let Some(peer) = peer else { return };
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<String> = before.map(str::to_owned).chain([peer.to_canonical().to_string()]).collect();
    if let Ok(all) = HeaderValue::try_from(all.join(", ")) {
        headers.insert(FORWARDED_FOR, all);
    }
}

/// Whether the client asks for another protocol.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let named = connection.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    named && headers.contains_key(header::UPGRADE)
}

/// The request as it goes on to `path`, and the client's connection if it asks for another protocol.
pub(super) fn outgoing(
    mut parts: Parts,
    body: Body,
    path: &str,
) -> Result<(Request<Body>, Option<OnUpgrade>), ApiError> {
    let upgrade = match is_upgrade(&parts.headers) {
        true => {
            let missing = || ApiError::BadRequest("this connection cannot be upgraded".into());
            Some(parts.extensions.remove::<OnUpgrade>().ok_or_else(missing)?)
        }
        false => None,
    };
    let uri = path.parse().map_err(|_| ApiError::BadRequest(format!("not a path: {path:?}")))?;
    let mut headers = without_hop_by_hop(&parts.headers);
    // Who asks has been decided here; nobody further on is to become the user.
    for name in parts.headers.keys() {
        if name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-") {
            headers.remove(name);
        }
    }
    strip_tokens(&mut headers);
    if let (None, Some(authority)) = (headers.get(header::HOST), parts.uri.authority()) {
        headers.extend(HeaderValue::try_from(authority.as_str()).ok().map(|host| (header::HOST, host)));
    }
    if !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, HeaderValue::from_static("kubernetes"));
    }
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (parts.method, uri, headers);
    Ok((request, upgrade))
}

/// The backend's answer as it goes back. Where it is 101, the two connections are joined once it has been sent.
pub(super) fn answer(
    shared: &Arc<Shared>,
    upgrade: Option<OnUpgrade>,
    mut answer: Response<Incoming>,
) -> Result<ApiResponse, ApiError> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let unasked = || ApiError::Internal("the backend switched protocols unasked".into());
        let client = upgrade.ok_or_else(unasked)?;
        let ended = CancellationToken::new();
        join(shared, client, hyper::upgrade::on(&mut answer), ended.clone().drop_guard())?;
        let (parts, _) = answer.into_parts();
        let mut response = Response::new(Body::empty());
        (*response.status_mut(), *response.headers_mut()) = (parts.status, parts.headers);
        response.extensions_mut().insert(Session(ended));
        return Ok(response);
    }
    if upgrade.is_some() && answer.status().as_u16() < 400 {
        return Err(ApiError::Backend(format!("invalid upgrade response: status code {}", answer.status().as_u16())));
    }
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(Body::new(body));
    (*response.status_mut(), *response.headers_mut()) = (parts.status, without_hop_by_hop(&parts.headers));
    Ok(response)
}

/// Copies both ways: an end of one direction is passed on, a broken connection breaks the other, and so does the end of
/// this server. What is under way is bounded by the copying's buffers.
fn join(shared: &Arc<Shared>, client: OnUpgrade, backend: OnUpgrade, ended: DropGuard) -> Result<(), ApiError> {
    let place = shared.tunnels.0.clone().try_acquire_owned().map_err(|_| ApiError::TooManyRequests)?;
    let stop = shared.stop.clone();
    let copy = async {
        let (client, backend) = tokio::try_join!(client, backend).map_err(std::io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await
    };
    tokio::spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled(copy).await {
            tracing::debug!(%error, "an upgraded connection broke");
        }
        drop((place, ended));
    });
    Ok(())
}

/// Everything but what concerns one connection; an upgrade stays one.
fn without_hop_by_hop(headers: &HeaderMap) -> HeaderMap {
    let upgrade = headers.get(header::UPGRADE).filter(|_| is_upgrade(headers)).cloned();
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let named: Vec<String> = named.flat_map(|v| v.split(',')).map(|t| t.trim().to_ascii_lowercase()).collect();
    let mut kept = headers.clone();
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    for name in named.iter().filter(|name| !name.is_empty()) {
        kept.remove(name.as_str());
    }
    if let Some(upgrade) = upgrade {
        kept.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        kept.insert(header::UPGRADE, upgrade);
    }
    kept
}

fn strip_tokens(headers: &mut HeaderMap) {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let protocols: Vec<String> = values.flat_map(|v| v.split(',')).map(|p| p.trim().to_owned()).collect();
    if !protocols.iter().any(|protocol| protocol.starts_with(TOKEN_PROTOCOL)) {
        return;
    }
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    let kept: Vec<String> = protocols.into_iter().filter(|p| !p.starts_with(TOKEN_PROTOCOL)).collect();
    if let Some(value) = HeaderValue::try_from(kept.join(", ")).ok().filter(|_| !kept.is_empty()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on(headers: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder().uri("/from");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        outgoing(parts, Body::empty(), "/to?x=1").unwrap().0.headers().clone()
    }

    #[test]
    fn credentials_and_headers_of_the_connection_stay_behind() {
        let sent = passed_on(&[
            ("host", "api:6443"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("x-theirs", "2"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io"),
        ]);
        let expected = [("host", "api:6443"), ("x-theirs", "2"), ("sec-websocket-protocol", "v5.channel.k8s.io")];
        assert_eq!(sent.len(), expected.len(), "{sent:?}");
        for (name, value) in expected {
            assert_eq!(sent[name], value);
        }
    }

    #[test]
    fn whoever_sent_the_request_is_named_last() {
        let peer = "192.0.2.7".parse().ok();
        let cases: [(&[&str], Option<IpAddr>, &[&str]); 4] = [
            (&[], peer, &["192.0.2.7"]),
            (&["10.0.0.1"], peer, &["10.0.0.1, 192.0.2.7"]),
            (&["10.0.0.1, 10.0.0.2", "10.0.0.3"], peer, &["10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7"]),
            (&["10.0.0.1"], None, &["10.0.0.1"]),
        ];
        for (before, peer, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(value));
            }
            note_forwarded(&mut headers, peer);
            let after: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn upgrades_need_a_connection_to_upgrade() {
        let headers = [("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static(value));
        }
        assert!(is_upgrade(&map));
        let kept = without_hop_by_hop(&map);
        assert_eq!(
            (&kept["connection"], &kept["upgrade"]),
            (&"Upgrade".parse().unwrap(), &"SPDY/3.1".parse().unwrap())
        );
        let (mut parts, ()) = Request::builder().body(()).unwrap().into_parts();
        parts.headers = map;
        assert!(outgoing(parts, Body::empty(), "/").is_err(), "a call within the process has no connection");
    }
}
