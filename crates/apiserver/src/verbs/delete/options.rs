//! `DeleteOptions`: what a client says of a deletion, in the body or the query.

use api::Verb;
use api::field::{Path, invalid, not_supported};
use axum::body::Body;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};

use crate::body;
use crate::call::Call;
use crate::options::dry_run_error;
use crate::query::Query;
use crate::status::{ApiError, Subject};

/// What becomes of the objects an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `DeleteOptions`, from body or query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(super) grace_period_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(super) propagation: Option<Propagation>,
    /// `orphanDependents=false`: whoever asks so is told whether the object is still there.
    pub(super) says_whether_gone: bool,
    pub(crate) dry_run: bool,
}

/// The options of a request: in its body, or else in its query. Who sends a body says all of it there; only a dry run that
/// is asked for in the query is one beside a body, too, where upstream deletes.
pub(super) async fn read(call: &Call, request_body: Body) -> Result<Options, ApiError> {
    let body = body::read(&call.headers, request_body).await?;
    if body.is_empty() {
        return checked(in_query(call.info.verb, &call.query)?);
    }
    let mut options = checked(in_body(&body::to_json(&call.headers, body)?.json)?)?;
    options.dry_run |= call.query.dry_run()?;
    Ok(options)
}

fn in_query(verb: Verb, query: &Query) -> Result<DeleteOptions, ApiError> {
    // A version says of a collection how it is listed.
    let text = |key: &str| query.get(key).filter(|_| verb == Verb::Delete).map(str::to_owned);
    let policy = query.all("propagationPolicy").next();
    let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
    Ok(DeleteOptions {
        preconditions: (preconditions != Preconditions::default()).then_some(preconditions),
        grace_period_seconds: query.integer("gracePeriodSeconds")?,
        orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
        propagation_policy: policy.map(Into::into),
        dry_run: query.has("dryRun").then(|| query.all("dryRun").map(str::to_owned).collect()),
        ..DeleteOptions::default()
    })
}

/// Every group has `DeleteOptions` of its own, which are all the same, whatever the group.
fn in_body(json: &[u8]) -> Result<DeleteOptions, ApiError> {
    let options: Option<DeleteOptions> = serde_json::from_slice(json).map_err(|error| {
        let prefix = if error.is_data() { "DeleteOptions cannot be read" } else { NO_JSON };
        ApiError::BadRequest(format!("{prefix}: {}", api::decode::go_error(json, &error)))
    })?;
    let options = options.unwrap_or_default();
    let (kind, version) = (options.kind.as_deref().unwrap_or(""), options.api_version.as_deref().unwrap_or(""));
    if version.matches('/').count() > 1 {
        return Err(ApiError::BadRequest(format!("unexpected GroupVersion string: {version}")));
    }
    if matches!(kind, "" | "DeleteOptions") {
        return Ok(options);
    }
    let version = if version.is_empty() { "meta.k8s.io/v1" } else { version };
    Err(ApiError::BadRequest(format!("no kind {kind:?} is registered for version {version:?} in scheme {SCHEME:?}")))
}

/// How a body that is no JSON is refused.
const NO_JSON: &str = "couldn't get version/kind; json parse error";
/// Where upstream knows options from.
const SCHEME: &str = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27";

/// What `given` asks for, if it makes sense (`ValidateDeleteOptions`).
pub(crate) fn checked(given: DeleteOptions) -> Result<Options, ApiError> {
    let mut errors = api::field::ErrorList::new();
    let propagation = wanted(&given, &mut errors);
    let dry_runs: Vec<&str> = given.dry_run.iter().flatten().map(String::as_str).collect();
    errors.extend(dry_run_error(&dry_runs));
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Subject::options("DeleteOptions"), errors));
    }
    let preconditions = given.preconditions.unwrap_or_default();
    Ok(Options {
        grace_period_seconds: given.grace_period_seconds,
        uid: preconditions.uid,
        resource_version: preconditions.resource_version,
        propagation,
        says_whether_gone: given.orphan_dependents == Some(false),
        dry_run: !dry_runs.is_empty(),
    })
}

const POLICIES: [&str; 4] = ["Foreground", "Background", "Orphan", "nil"];

fn wanted(given: &DeleteOptions, errors: &mut api::field::ErrorList) -> Option<Propagation> {
    let path = Path::new("propagationPolicy");
    match (given.propagation_policy.as_deref(), given.orphan_dependents) {
        (Some(policy), Some(_)) => {
            errors.push(invalid(&path, policy, "orphanDependents and deletionPropagation cannot be both set"));
            None
        }
        (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some(other), None) => {
            errors.push(not_supported(&path, other, &POLICIES));
            None
        }
        (None, None) => None,
    }
}
