//! The client. Requests without a version go to the daemon's newest API whatever was negotiated, so each is given the
//! newest version that both sides know.

use bollard::{API_DEFAULT_VERSION, Docker};

use super::super::{Error, Result};
use super::hijack::Hijacker;

/// The newest API version this runtime was written for.
const NEWEST: (u32, u32) = (1, 47);
/// How long Docker may take to begin its answer. No call of ours waits for a process to end.
const TIMEOUT_SECONDS: u64 = 120;

/// Connects to `unix://…`, `tcp://…` or `http://…`.
pub(super) async fn connect(endpoint: &str) -> Result<(Docker, Hijacker)> {
    let docker = match endpoint.split_once("://") {
        Some(("unix", path)) => Docker::connect_with_unix(path, TIMEOUT_SECONDS, API_DEFAULT_VERSION),
        Some(("tcp" | "http", _)) => Docker::connect_with_http(endpoint, TIMEOUT_SECONDS, API_DEFAULT_VERSION),
        _ => return Err(Error::Refused(format!("{endpoint} is neither unix:// nor tcp://"))),
    };
    let docker = docker.map_err(super::error)?;
    let server = docker.version().await.map_err(super::error)?;
    let server = server.api_version.as_deref().and_then(parse).unwrap_or(NEWEST);
    let (major, minor) = server.min(NEWEST);
    let prefix = format!("/v{major}.{minor}");
    let hijacker = Hijacker::new(endpoint, &prefix);
    let docker = docker.with_request_modifier(move |mut request| {
        if let Some(uri) = versioned(request.uri(), &prefix) {
            *request.uri_mut() = uri;
        }
        request
    });
    Ok((docker, hijacker))
}

fn parse(version: &str) -> Option<(u32, u32)> {
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
    use super::*;

    #[test]
    fn requests_carry_a_version() {
        let uri: http::Uri = "http://2f/containers/json?all=true".parse().unwrap();
        assert_eq!(versioned(&uri, "/v1.41").unwrap().to_string(), "http://2f/v1.41/containers/json?all=true");
        assert_eq!(parse("1.41"), Some((1, 41)));
        assert!(parse("1.9").unwrap() < parse("1.41").unwrap(), "versions compare as numbers");
    }
}
