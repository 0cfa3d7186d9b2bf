//! Registry credentials in pull secrets: `kubernetes.io/dockerconfigjson` and the older `kubernetes.io/dockercfg`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::access::{PullSecret, hash};
use super::reference::Reference;
use crate::runtime::Credentials;

#[derive(Default, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: Option<String>,
}

/// The credentials in `secrets` for the registry of `image`, the most specific first, and whose each are.
pub fn matching(image: &str, secrets: &[Arc<Secret>]) -> Vec<(Credentials, PullSecret)> {
    let Some(reference) = Reference::parse(image) else { return Vec::new() };
    let mut found: Vec<(usize, Credentials, PullSecret)> = Vec::new();
    for secret in secrets {
        for (server, entry) in entries(secret) {
            let (host, path) = place(&server);
            if host == reference.registry && below(path, &reference.repository) {
                let credentials = credentials(server.clone(), entry);
                let source = source(secret, &credentials);
                found.push((path.len(), credentials, source));
            }
        }
    }
    found.sort_by_key(|(length, ..)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, credentials, source)| (credentials, source)).collect()
}

fn source(secret: &Secret, credentials: &Credentials) -> PullSecret {
    let metadata = &secret.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    PullSecret {
        uid: text(&metadata.uid),
        namespace: text(&metadata.namespace),
        name: text(&metadata.name),
        credential_hash: hash(credentials),
    }
}

fn entries(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    if let Some(json) = data(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(json).unwrap_or_default().auths;
    }
    data(".dockercfg").and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

/// Host and path of an entry's key: `https://index.docker.io/v1/`, `quay.io/team`.
fn place(server: &str) -> (&str, &str) {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    match host {
        "index.docker.io" | "registry-1.docker.io" => ("docker.io", path),
        _ => (host, path),
    }
}

fn below(path: &str, repository: &str) -> bool {
    path.is_empty() || repository == path || repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

fn credentials(server: String, entry: Entry) -> Credentials {
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (username, password) = match pair {
        Some((username, password)) => (username.to_owned(), password.to_owned()),
        None => (entry.username, entry.password),
    };
    Credentials { username, password, identity_token: entry.identitytoken, server }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(key: &str, json: &str) -> Arc<Secret> {
        let data = [(key.to_owned(), ByteString(json.as_bytes().to_vec()))].into();
        Arc::new(Secret { data: Some(data), ..Default::default() })
    }

    #[test]
    fn credentials_are_found_by_registry_and_path() {
        let both = [
            secret(
                ".dockerconfigjson",
                r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aGVsbG86d29ybGQ="},
                    "quay.io": {"username": "a", "password": "b"}, "quay.io/team": {"username": "t", "password": "p"}}}"#,
            ),
            secret(".dockercfg", r#"{"localhost:5000": {"username": "l", "password": "m"}}"#),
            secret(".dockerconfigjson", "not json"),
        ];
        for (image, expected) in [
            ("busybox", vec!["hello"]),
            ("quay.io/team/app", vec!["t", "a"]),
            ("quay.io/teams/app", vec!["a"]),
            ("localhost:5000/x", vec!["l"]),
            ("gcr.io/x", vec![]),
        ] {
            let users: Vec<String> = matching(image, &both).into_iter().map(|(c, _)| c.username).collect();
            assert_eq!(users, expected, "{image}");
        }
        assert_eq!(matching("busybox", &both)[0].0.password, "world");
    }
}
