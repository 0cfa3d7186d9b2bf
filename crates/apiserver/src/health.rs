//! What everyone may ask: am I alive, am I ready, which version am I.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use crate::query::Query;
use crate::respond::{self, ApiResponse};
use crate::server::Shared;
use crate::status::ApiError;

/// The checks behind the health paths.
const CHECKS: [&str; 4] = ["ping", "store", "watch-cache", "shutdown"];

/// The answer if `path` is a health path or `/version`.
pub(crate) async fn respond(shared: &Arc<Shared>, path: &str, query: &Query) -> Option<Result<ApiResponse, ApiError>> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    match segments.as_slice() {
        ["version"] => Some(Ok(respond::json(StatusCode::OK, &version(shared)))),
        [endpoint @ ("healthz" | "livez" | "readyz")] => Some(Ok(all(shared, endpoint, query).await)),
        ["healthz" | "livez" | "readyz", check] => Some(one(shared, check).await),
        _ => None,
    }
}

fn version(shared: &Shared) -> serde_json::Value {
    let git_version = &shared.config.git_version;
    let mut numbers = git_version.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or(""), "minor": numbers.next().unwrap_or(""),
        "gitVersion": git_version, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": platform(),
    })
}

fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}

/// Whether a check passes, or why not.
async fn check(shared: &Shared, name: &str) -> Result<(), String> {
    match name {
        "store" => shared.store.health().await.map_err(|e| e.to_string()),
        "watch-cache" => shared.cache.catch_up().await.map(|_| ()).map_err(|e| e.to_string()),
        "shutdown" if shared.stop.is_cancelled() => Err("process is shutting down".into()),
        _ => Ok(()),
    }
}

/// Being alive needs no store and lasts until the end; being ready needs everything.
fn belongs(endpoint: &str, name: &str) -> bool {
    endpoint == "readyz" || name == "ping" || (endpoint == "healthz" && name != "shutdown")
}

async fn all(shared: &Shared, endpoint: &str, query: &Query) -> ApiResponse {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for name in CHECKS.iter().filter(|name| belongs(endpoint, name)) {
        if excluded.contains(name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check(shared, name).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => {
                failed = true;
                // The reason may name internals: it is for the log.
                tracing::warn!(check = name, reason, "health check failed");
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    match (failed, query.flag("verbose")) {
        (true, _) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n")),
        (false, true) => respond::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        (false, false) => respond::text(StatusCode::OK, "ok"),
    }
}

async fn one(shared: &Shared, name: &str) -> Result<ApiResponse, ApiError> {
    if !CHECKS.contains(&name) {
        return Err(ApiError::PathNotFound);
    }
    Ok(match check(shared, name).await {
        Ok(()) => respond::text(StatusCode::OK, "ok"),
        Err(_) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: reason withheld\n"),
    })
}
