//! The node's images, for whoever may `proxy` to the node: what there is, and getting images there and away without a
//! registry. References have slashes and colons, so they are parameters, not paths.
//!
//! | request | |
//! | --- | --- |
//! | `GET /images` | every image |
//! | `GET /images/inspect?reference=R` | one |
//! | `GET /images/save?reference=R&reference=S` | a tar archive of some |
//! | `POST /images/load` | takes such an archive in |
//! | `POST /images/pull?reference=R`, `/images/push?reference=R` | from and to its registry |
//! | `POST /images/tag?reference=R&name=N` | another name |
//! | `DELETE /images?reference=R` | a name goes, and the image with its last one |

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use futures::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::find::Refusal;
use super::{Shared, plain};
use crate::images::reference::Reference;
use crate::runtime::{Credentials, Error, Image};

/// Archives on their way in or out at a time; more are refused.
pub(super) const MAX_TRANSFERS: usize = 4;
/// Images in one archive.
const MAX_SAVED: usize = 64;
/// Credentials for a registry: base64 of JSON, as Docker's API takes them.
const REGISTRY_AUTH: &str = "x-registry-auth";

type Answer = Result<Response, Refusal>;

fn answered(answer: Answer) -> Response {
    answer.unwrap_or_else(|(status, message)| plain(status, message))
}

pub(super) async fn list(State(shared): State<Shared>) -> Response {
    let images = shared.kubelet.runtime.images().await.map_err(refusal);
    answered(images.map(|images| Json(json!({"items": images.iter().map(shown).collect::<Vec<_>>()})).into_response()))
}

fn shown(image: &Image) -> Value {
    json!({"id": image.id, "names": image.names, "size": image.size, "inUse": image.in_use, "pinned": image.pinned})
}

pub(super) async fn inspect(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    answered(inspected(&shared, query).await)
}

async fn inspected(shared: &Shared, query: Option<String>) -> Answer {
    let reference = one(&query, "reference")?;
    let found = shared.kubelet.runtime.image(&reference).await.map_err(refusal)?;
    let found = found.ok_or_else(|| (StatusCode::NOT_FOUND, format!("No such image: {reference}")))?;
    // Whether a container uses it only the list knows.
    let all = shared.kubelet.runtime.images().await.map_err(refusal)?;
    let listed = all.iter().find(|image| image.names.iter().any(|name| found.names.contains(name)));
    let mut about = shown(&Image { in_use: listed.is_some_and(|image| image.in_use), ..found.clone() });
    about["user"] = json!(found.user);
    Ok(Json(about).into_response())
}

pub(super) async fn pull(State(shared): State<Shared>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let pulled = async {
        let reference = valid(one(&query, "reference")?)?;
        let credentials = credentials(&headers)?;
        let kubelet = &shared.kubelet;
        let pulled = kubelet.node.images.pull(&kubelet.runtime, &reference, credentials.into_iter().collect()).await;
        let pulled = pulled.map_err(|error| (StatusCode::BAD_GATEWAY, error.message))?;
        Ok(Json(shown(&pulled.image)).into_response())
    };
    answered(pulled.await)
}

pub(super) async fn push(State(shared): State<Shared>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let pushed = async {
        let reference = valid(one(&query, "reference")?)?;
        let credentials = credentials(&headers)?;
        let pushed = shared.kubelet.runtime.push(&reference, credentials.as_ref()).await;
        pushed.map_err(|error| match error {
            Error::Refused(message) => (StatusCode::BAD_GATEWAY, message),
            error => refusal(error),
        })?;
        Ok(Json(json!({"pushed": [reference]})).into_response())
    };
    answered(pushed.await)
}

pub(super) async fn tag(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let tagged = async {
        let (reference, name) = (one(&query, "reference")?, valid(one(&query, "name")?)?);
        shared.kubelet.runtime.tag(&reference, &name).await.map_err(refusal)?;
        note_preloaded(&shared, std::slice::from_ref(&name)).await;
        Ok(Json(json!({"tagged": [name]})).into_response())
    };
    answered(tagged.await)
}

pub(super) async fn remove(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let removed = async {
        let reference = one(&query, "reference")?;
        shared.kubelet.runtime.remove_image(&reference).await.map_err(refusal)?;
        Ok(Json(json!({"removed": [reference]})).into_response())
    };
    answered(removed.await)
}

pub(super) async fn load(State(shared): State<Shared>, request: Request) -> Response {
    let loaded = async {
        let slot = slot(&shared)?;
        let pieces = request.into_body().into_data_stream();
        let pieces = pieces.map(|piece| piece.map_err(|error| Error::Refused(format!("reading the archive: {error}"))));
        let loaded = shared.kubelet.runtime.load(pieces.boxed()).await.map_err(refusal)?;
        drop(slot);
        if loaded.is_empty() {
            return Err((StatusCode::BAD_REQUEST, "the archive has no image in it".to_owned()));
        }
        note_preloaded(&shared, &loaded).await;
        Ok(Json(json!({"loaded": loaded})).into_response())
    };
    answered(loaded.await)
}

/// What is put here by hand is for all pods, though something else may have been pulled that is the same.
async fn note_preloaded(shared: &Shared, names: &[String]) {
    for name in names {
        if let Ok(Some(found)) = shared.kubelet.runtime.image(name).await {
            let (records, name) = (shared.kubelet.node.records.clone(), name.clone());
            // A panic there is told by the runtime.
            let _ = tokio::task::spawn_blocking(move || records.preloaded(&name, &found)).await;
        }
    }
}

pub(super) async fn save(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let saved = async {
        let references = all(&query, "reference");
        if references.is_empty() || references.len() > MAX_SAVED {
            return Err((StatusCode::BAD_REQUEST, format!("reference: between 1 and {MAX_SAVED} are needed")));
        }
        let slot = slot(&shared)?;
        let archive = shared.kubelet.runtime.save(&references).await.map_err(refusal)?;
        // The slot is free when the last piece, or the client, is gone.
        let pieces = stream::unfold((archive, slot), |(mut archive, slot)| async move {
            archive.next().await.map(|piece| (piece.map_err(std::io::Error::other), (archive, slot)))
        });
        Ok(([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(pieces)).into_response())
    };
    answered(saved.await)
}

fn slot(shared: &Shared) -> Result<OwnedSemaphorePermit, Refusal> {
    let slot = Arc::clone(&shared.transfers).try_acquire_owned();
    slot.map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "too many archives are on their way".to_owned()))
}

/// Every value of a parameter.
fn all(query: &Option<String>, name: &str) -> Vec<String> {
    let pairs = query.as_deref().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| unescaped(value)).filter(|v| !v.is_empty()).collect()
}

/// The one value of a parameter.
fn one(query: &Option<String>, name: &str) -> Result<String, Refusal> {
    match <[String; 1]>::try_from(all(query, name)) {
        Ok([value]) => Ok(value),
        Err(_) => Err((StatusCode::BAD_REQUEST, format!("{name}: exactly one is needed"))),
    }
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn valid(reference: String) -> Result<String, Refusal> {
    let wrong =
        || (StatusCode::BAD_REQUEST, format!("couldn't parse image name \"{reference}\": invalid reference format"));
    Reference::parse(&reference).ok_or_else(wrong)?;
    Ok(reference)
}

fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, Refusal> {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Auth {
        username: String,
        password: String,
        identitytoken: Option<String>,
        serveraddress: String,
    }
    let Some(value) = headers.get(REGISTRY_AUTH) else { return Ok(None) };
    let wrong = || (StatusCode::BAD_REQUEST, format!("{REGISTRY_AUTH}: not base64 of JSON"));
    let decoded = URL_SAFE.decode(value).or_else(|_| STANDARD.decode(value)).map_err(|_| wrong())?;
    let auth: Auth = serde_json::from_slice(&decoded).map_err(|_| wrong())?;
    let Auth { username, password, identitytoken: identity_token, serveraddress: server } = auth;
    Ok(Some(Credentials { username, password, identity_token, server }))
}

fn refusal(error: Error) -> Refusal {
    let status = match &error {
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::Refused(_) | Error::TimedOut(_) => StatusCode::BAD_REQUEST,
        Error::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_through_a_query_as_they_are() {
        let query = Some("reference=quay.io%2Fa%2Fb%3A1&name=x:2&reference=c%ZZ".to_owned());
        assert_eq!(all(&query, "reference"), ["quay.io/a/b:1", "c%ZZ"]);
        assert_eq!(one(&query, "name").unwrap(), "x:2");
        assert_eq!(one(&query, "reference").unwrap_err().1, "reference: exactly one is needed");
        assert!(one(&None, "reference").is_err() && valid("Not Valid".to_owned()).is_err());
    }

    #[test]
    fn credentials_are_read_as_docker_writes_them() {
        let mut headers = HeaderMap::new();
        assert_eq!(credentials(&headers).unwrap(), None);
        let encoded = URL_SAFE.encode(r#"{"username": "u", "password": "p?>", "serveraddress": "r"}"#);
        headers.insert(REGISTRY_AUTH, encoded.parse().unwrap());
        let expected =
            Credentials { username: "u".into(), password: "p?>".into(), identity_token: None, server: "r".into() };
        assert_eq!(credentials(&headers).unwrap(), Some(expected));
        headers.insert(REGISTRY_AUTH, "!".parse().unwrap());
        assert!(credentials(&headers).is_err());
    }
}
