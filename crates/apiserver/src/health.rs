//! What everyone may ask: am I alive, am I ready, which version am I.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::query::Query;
use crate::respond::{self, ApiResponse};
use crate::server::Shared;
use crate::status::ApiError;

/// The checks behind the health paths, in kube-apiserver's order and under its names: dashboards and installers ask for
/// them one by one. What the hooks do is done before the first request is answered; who is asked about the log has not been
/// held up by it.
const CHECKS: [&str; 8] = [
    "ping",
    "log",
    ETCD,
    ETCD_READINESS,
    INFORMER_SYNC,
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    SHUTDOWN,
];
/// The store answers, and lost nobody who writes. A disk that is full is no reason to start anew.
const ETCD: &str = "etcd";
/// The store takes what is written, too.
const ETCD_READINESS: &str = "etcd-readiness";
/// The watch cache is as new as the store.
const INFORMER_SYNC: &str = "informer-sync";
/// How long the store has to answer (`--etcd-healthcheck-timeout` upstream).
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The server does not stop.
const SHUTDOWN: &str = "shutdown";

/// The answer if `path` is a health path.
pub(crate) async fn respond(shared: &Arc<Shared>, path: &str, query: &Query) -> Option<Result<ApiResponse, ApiError>> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    match segments.as_slice() {
        [endpoint @ ("healthz" | "livez" | "readyz")] => Some(Ok(all(shared, endpoint, query).await)),
        [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            Some(one(shared, endpoint, &check.join("/")).await)
        }
        _ => None,
    }
}

/// What `/version` says.
pub(crate) fn version(shared: &Shared) -> serde_json::Value {
    let git_version = &shared.config.git_version;
    let mut numbers = git_version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
    // As it says of itself where it emulates no older version: compatible with the one before.
    let before = minor.parse::<u32>().map(|minor| minor.saturating_sub(1).to_string()).unwrap_or_default();
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": before,
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
        ETCD => match store_health(shared).await {
            Err(store::Error::NoSpace(_)) => Ok(()),
            health => health.map_err(|e| e.to_string()),
        },
        ETCD_READINESS => store_health(shared).await.map_err(|e| e.to_string()),
        INFORMER_SYNC => shared.cache.catch_up().await.map(drop).map_err(|e| e.to_string()),
        SHUTDOWN if shared.stop.is_cancelled() => Err("process is shutting down".into()),
        _ => Ok(()),
    }
}

async fn store_health(shared: &Shared) -> Result<(), store::Error> {
    let late = |_| Err(store::Error::Unavailable(format!("no answer within {ANSWER_MAX:?}")));
    tokio::time::timeout(ANSWER_MAX, shared.store.health()).await.unwrap_or_else(late)
}

/// Being ready needs everything; being alive lasts until the end, also when nothing can be written.
fn belongs(endpoint: &str, name: &str) -> bool {
    endpoint == "readyz" || !matches!(name, ETCD_READINESS | INFORMER_SYNC | SHUTDOWN)
}

async fn all(shared: &Shared, endpoint: &str, query: &Query) -> ApiResponse {
    let mut excluded: BTreeSet<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for name in CHECKS.iter().filter(|name| belongs(endpoint, name)) {
        if excluded.remove(*name) {
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
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    match (failed, query.all("verbose").next().is_some()) {
        (true, _) => respond::plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n")),
        (false, true) => respond::plain(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        (false, false) => respond::plain(StatusCode::OK, "ok"),
    }
}

async fn one(shared: &Shared, endpoint: &str, name: &str) -> Result<ApiResponse, ApiError> {
    if !CHECKS.contains(&name) || !belongs(endpoint, name) {
        return Err(ApiError::PathNotFound);
    }
    Ok(match check(shared, name).await {
        Ok(()) => respond::plain(StatusCode::OK, "ok"),
        Err(_) => respond::plain(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: reason withheld\n"),
    })
}
