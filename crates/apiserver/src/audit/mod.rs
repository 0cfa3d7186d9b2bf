//! The audit log: who did what, when, and what came of it.
//!
//! ```text
//!  request ─▶ Trail::begin ─▶ identify (the policy's first rule that fits) ─▶ impersonated, decided ─▶ end ─▶ Sink ─▶ file
//! ```
//!
//! A request leaves one line for each of its stages. Lines are put into a bounded queue; what does not fit is lost and
//! counted, so that no request waits for a disk. Compare `k8s.io/apiserver/pkg/audit` and
//! `pkg/endpoints/filters/audit.go`.

mod event;
mod log;
mod policy;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body::Body as _;
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use serde::Deserialize;
use serde_json::Value;

use self::event::{Event, ObjectRef, micro_time, response_status};
use self::log::Sink;
use self::policy::{Level, Plan, Policy, Stage};
use crate::authz::{Attributes, Reason};
use crate::body::{self, MAX_BODY_BYTES};
use crate::connect::Session;
use crate::error::Error;
use crate::request::RequestInfo;
use crate::respond::ApiResponse;
use crate::reviews::user_info;
use crate::status::ApiError;
use crate::user::User;

pub use self::log::AuditLogLimits;

/// The header that names a request in the log, in requests and answers.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// How long a name that a client gives may be.
const MAX_ID_LENGTH: usize = 64;
/// How much of a user agent is written down (`maxUserAgentLength`).
const MAX_USER_AGENT_LENGTH: usize = 1024;
/// How many addresses of proxies are written down.
const MAX_SOURCE_IPS: usize = 16;

/// Where and what of requests is written down.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The file, `-` for standard output.
    pub log_path: PathBuf,
    /// An `audit.k8s.io/v1` Policy; without one the metadata of everything.
    pub policy_file: Option<PathBuf>,
    /// How large the log grows.
    pub limits: AuditLogLimits,
}

/// A policy and a log.
pub(crate) struct Audit {
    policy: Policy,
    sink: Sink,
}

impl Audit {
    pub(crate) fn new(config: &AuditConfig) -> Result<Audit, Error> {
        let policy = match &config.policy_file {
            Some(path) => Policy::read(path)?,
            None => Policy::metadata_of_everything(),
        };
        Ok(Audit { policy, sink: Sink::open(&config.log_path, config.limits)? })
    }

    /// Events written, and events lost.
    pub(crate) fn counters(&self) -> (Counter, Counter) {
        (self.sink.taken.clone(), self.sink.lost.clone())
    }
}

/// What admission wants to be written down about a request, whether it is let in or not.
#[derive(Debug, Default)]
pub(crate) struct Annotations(Mutex<BTreeMap<&'static str, String>>);

impl Annotations {
    /// Notes `text` under `key`; the last word counts.
    pub(crate) fn note(&self, key: &'static str, text: String) {
        self.0.lock().insert(key, text);
    }
}

/// What a request leaves behind.
pub(crate) struct Trail {
    id: String,
    annotations: Arc<Annotations>,
    open: Option<Box<Open>>,
}

/// A trail that may be written down.
struct Open {
    audit: Arc<Audit>,
    event: Event,
    /// Known once the request is.
    plan: Option<Plan>,
    is_long_running: bool,
    names_itself: bool,
}

/// How a request ended.
pub(crate) enum Ended<'a> {
    Answered,
    Refused(&'a ApiError),
    Panicked,
}

impl Trail {
    /// Begins at the head of a request. Without a log there is only its name.
    pub(crate) fn begin(audit: Option<&Arc<Audit>>, request: &Request<Body>, peer: Option<IpAddr>) -> Trail {
        let headers = request.headers();
        let given = headers.get(AUDIT_ID).and_then(|id| id.to_str().ok());
        let given = given.filter(|id| !id.is_empty() && id.len() <= MAX_ID_LENGTH).map(str::to_owned);
        let new = || uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        let id = given.unwrap_or_else(new);
        let open = audit.map(|audit| {
            let now = micro_time(Timestamp::now());
            let user_agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
            let event = Event {
                kind: "Event",
                api_version: "audit.k8s.io/v1",
                level: Level::None,
                audit_id: id.clone(),
                stage: Stage::RequestReceived,
                request_uri: request.uri().to_string(),
                verb: request.method().as_str().to_ascii_lowercase(),
                user: user_info(&User::default()),
                impersonated_user: None,
                source_ips: source_ips(headers, peer),
                user_agent: user_agent.chars().take(MAX_USER_AGENT_LENGTH).collect(),
                object_ref: None,
                response_status: None,
                request_object: None,
                response_object: None,
                request_received_timestamp: now.clone(),
                stage_timestamp: now,
                annotations: Default::default(),
            };
            let audit = audit.clone();
            Box::new(Open { audit, event, plan: None, is_long_running: false, names_itself: false })
        });
        Trail { id, annotations: Arc::default(), open }
    }

    /// Where admission notes what it has to say.
    pub(crate) fn annotations(&self) -> Arc<Annotations> {
        self.annotations.clone()
    }

    /// The request is known: what the policy does not want ends here.
    pub(crate) fn identify(&mut self, attributes: &Attributes<'_>, info: Option<&RequestInfo>) {
        let Some(mut open) = self.open.take() else { return };
        let Some(plan) = open.audit.policy.plan(attributes) else { return };
        open.event.level = plan.level;
        open.event.verb = attributes.verb.to_owned();
        open.event.user = user_info(attributes.user);
        open.event.object_ref = ObjectRef::of(attributes);
        open.is_long_running = info.is_some_and(RequestInfo::is_long_running);
        open.names_itself = info.is_some_and(|i| i.verb == api::Verb::Create && i.name.is_none());
        open.plan = Some(plan);
        open.write(Stage::RequestReceived);
        self.open = Some(open);
    }

    pub(crate) fn impersonated(&mut self, user: &User) {
        if let Some(open) = &mut self.open {
            open.event.impersonated_user = Some(user_info(user));
        }
    }

    /// What the authorizers said.
    pub(crate) fn decided(&mut self, decision: &Result<Reason, ApiError>) {
        let Some(open) = &mut self.open else { return };
        let (decision, reason) = match decision {
            Ok(reason) => ("allow", reason.to_string()),
            Err(_) => ("forbid", String::new()),
        };
        open.event.annotations.insert("authorization.k8s.io/decision", decision.to_owned());
        open.event.annotations.insert("authorization.k8s.io/reason", reason);
    }

    /// Looks at the body on its way to the verbs, where the policy wants it.
    pub(crate) async fn look_at_body(&mut self, headers: &HeaderMap, body: Body) -> Result<Body, ApiError> {
        let wants = |open: &&mut Box<Open>| open.event.level >= Level::Request && !open.is_long_running;
        let Some(open) = self.open.as_mut().filter(wants) else { return Ok(body) };
        let bytes = body::read(headers, body).await?;
        let json = body::to_json(headers, bytes.clone()).map_or_else(|_| bytes.clone(), |text| text.json);
        open.event.request_object = open.object(&json);
        Ok(Body::from(bytes))
    }

    /// Looks at the answer of a verb, before it is compressed.
    pub(crate) async fn look_at_answer(&mut self, response: ApiResponse) -> ApiResponse {
        match self.open.as_mut().filter(|open| !open.is_long_running) {
            Some(open) => open.look_at_answer(response).await,
            None => response,
        }
    }

    /// The answer is there. That of a long-running request ends when its last byte has gone.
    pub(crate) fn end(mut self, mut response: ApiResponse, ended: Ended<'_>) -> ApiResponse {
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            response.headers_mut().insert(AUDIT_ID, id);
        }
        if self.open.as_ref().is_some_and(|open| open.plan.is_none()) {
            // Nobody knows who it was.
            let (uri, verb) =
                self.open.as_ref().map(|o| (o.event.request_uri.clone(), o.event.verb.clone())).unwrap_or_default();
            let path = uri.split('?').next().unwrap_or("");
            self.identify(&Attributes::of_path(&User::default(), &verb, path), None);
        }
        let Some(mut open) = self.open.take() else { return response };
        open.event.annotations.append(&mut self.annotations.0.lock());
        let error = match &ended {
            Ended::Refused(error) => Some(*error),
            Ended::Answered | Ended::Panicked => None,
        };
        open.event.response_status = Some(response_status(response.status().as_u16(), error));
        if matches!(ended, Ended::Panicked) {
            open.write(Stage::Panic);
            return response;
        }
        if open.is_long_running && error.is_none() {
            open.write(Stage::ResponseStarted);
            let last_word = LastWord(open);
            if let Some(Session(ended)) = response.extensions_mut().remove::<Session>() {
                // There is no body: the session goes on between the two connections.
                tokio::spawn(async move {
                    ended.cancelled().await;
                    drop(last_word);
                });
                return response;
            }
            return response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _until_the_end = &last_word;
                    frame
                }))
            });
        }
        open.write(Stage::ResponseComplete);
        response
    }
}

/// Writes the last line of a long-running request when its body is no more.
struct LastWord(Box<Open>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.write(Stage::ResponseComplete);
    }
}

#[derive(Deserialize)]
struct Named {
    metadata: NamedMetadata,
}

#[derive(Deserialize)]
struct NamedMetadata {
    name: String,
}

impl Open {
    fn write(&mut self, stage: Stage) {
        if self.plan.as_ref().is_none_or(|plan| plan.omit_stages.contains(&stage)) {
            return;
        }
        self.event.stage = stage;
        self.event.stage_timestamp = micro_time(Timestamp::now());
        if stage == Stage::RequestReceived {
            self.event.stage_timestamp.clone_from(&self.event.request_received_timestamp);
        }
        let Ok(mut line) = serde_json::to_vec(&self.event) else { return };
        line.push(b'\n');
        self.audit.sink.put(line);
    }

    /// Takes from an answer in memory what belongs into the event: the object itself, and the name of a new one.
    async fn look_at_answer(&mut self, response: ApiResponse) -> ApiResponse {
        let wants_object = self.event.level >= Level::RequestResponse;
        let is_json =
            response.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
        let is_small = response.body().size_hint().exact().is_some_and(|size| size <= MAX_BODY_BYTES as u64);
        if !(is_json && is_small && (wants_object || self.names_itself)) {
            return response;
        }
        let (parts, body) = response.into_parts();
        let Ok(bytes) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            return ApiResponse::from_parts(parts, Body::empty());
        };
        if let (true, Some(object), Ok(named)) =
            (self.names_itself, &mut self.event.object_ref, serde_json::from_slice::<Named>(&bytes))
        {
            object.name = named.metadata.name;
        }
        if wants_object {
            self.event.response_object = self.object(&bytes);
        }
        ApiResponse::from_parts(parts, Body::from(bytes))
    }

    /// A body as it is written down.
    fn object(&self, json: &[u8]) -> Option<Value> {
        let mut object: Value = serde_json::from_slice(json).ok()?;
        if self.plan.as_ref().is_some_and(|plan| plan.omit_managed_fields) {
            omit_managed_fields(&mut object);
        }
        Some(object)
    }
}

/// Takes the managed fields out of an object, or out of the items of a list.
fn omit_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(omit_managed_fields);
}

/// Whom a request came from: what proxies say of it, and who sent it here.
fn source_ips(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok());
    let forwarded = forwarded.flat_map(|v| v.split(',')).filter_map(|v| v.trim().parse::<IpAddr>().ok());
    let mut all: Vec<IpAddr> = forwarded.take(MAX_SOURCE_IPS).collect();
    all.extend(peer.filter(|peer| all.last() != Some(peer)));
    all.iter().map(IpAddr::to_string).collect()
}
