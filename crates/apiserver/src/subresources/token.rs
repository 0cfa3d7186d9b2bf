//! `serviceaccounts/token`: makes a token for a service account (`pkg/registry/core/serviceaccount/storage/token.go`).

use std::collections::BTreeMap;

use api::field::{Path, invalid};
use api::{Kind, Object};
use axum::body::Body;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::value::RawValue;

use crate::authn::claims::{Kubernetes, Ref};
use crate::body;
use crate::call::Call;
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};

/// Answers a TokenRequest.
pub(crate) async fn create(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let mut text = call.json_body(request_body).await?;
    text.json = without_status(&text.json).into();
    let mut decoded = body::decode(&api::token_request::KIND, &text, &call.query)?;
    call.query.dry_run()?;
    decoded.object.set_defaults();
    let Some(request) = decoded.object.as_any_mut().downcast_mut::<TokenRequest>() else {
        return Err(ApiError::Internal("a TokenRequest is expected".into()));
    };
    name_it(call, request)?;
    call.shared.cache.catch_up().await?;
    call.namespace_takes_new().await?;
    let account = uid_of(call, call.info.kind, call.info.namespace.as_deref(), call.name())?;
    // What was asked for, before it is completed: nodes may ask only for what their pods ask for.
    let wanted = request.spec.audiences.clone();
    if wanted.is_empty() {
        request.spec.audiences = call.shared.issuer.audiences().to_vec();
    }
    let errors = Object::validate(request);
    if !errors.is_empty() {
        return Err(ApiError::Invalid(Subject::new(api::token_request::KIND.info, ""), errors));
    }
    let mut kubernetes = Kubernetes {
        namespace: call.info.namespace.clone().unwrap_or_default(),
        serviceaccount: Ref { name: call.name().to_owned(), uid: account },
        ..Kubernetes::default()
    };
    bind(call, &wanted, request.spec.bound_object_ref.as_ref(), &mut kubernetes)?;
    fill(call, request, kubernetes)?;
    let mut response = respond::encoded(StatusCode::CREATED, request.encode().into(), call.output.encoding);
    respond::warn(&mut response, &decoded.warnings);
    Ok(response)
}

/// The request without a status, which is ours to write: Go clients send one with a null where a time is wanted. What is no
/// JSON object stays what it is, and is refused by the decoder.
fn without_status(json: &[u8]) -> Vec<u8> {
    let Ok(mut fields) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(json) else { return json.to_vec() };
    fields.remove("status");
    serde_json::to_vec(&fields).unwrap_or_else(|_| json.to_vec())
}

/// The request's name and namespace are the account's.
fn name_it(call: &Call, request: &mut TokenRequest) -> Result<(), ApiError> {
    let namespace = call.info.namespace.as_deref().unwrap_or("");
    let metadata = &mut request.metadata;
    for (field, given, wanted) in
        [("name", &mut metadata.name, call.name()), ("namespace", &mut metadata.namespace, namespace)]
    {
        let given = given.get_or_insert_default();
        if given.is_empty() {
            *given = wanted.to_owned();
        }
        if given != wanted {
            let detail = format!("must match the service account {field} if specified");
            let error = invalid(&Path::new("metadata").child(field), given.as_str(), &detail);
            return Err(ApiError::Invalid(Subject::new(api::token_request::KIND.info, call.name()), vec![error]));
        }
    }
    Ok(())
}

/// Signs a token and puts it into the status.
fn fill(call: &Call, request: &mut TokenRequest, kubernetes: Kubernetes) -> Result<(), ApiError> {
    let seconds = request.spec.expiration_seconds.unwrap_or(api::token_request::DEFAULT_EXPIRATION_SECONDS);
    let now = crate::metadata::now();
    let token = call.shared.issuer.issue(kubernetes, request.spec.audiences.clone(), seconds, now)?;
    let end = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    request.metadata.creation_timestamp = Some(Time(now));
    request.status = Some(TokenRequestStatus { expiration_timestamp: Time(end), token });
    Ok(())
}

fn kind(name: &str) -> Result<&'static Kind, ApiError> {
    api::kinds::by_kind("v1", name).ok_or_else(|| ApiError::Internal(format!("{name} is not served")))
}

/// The UID of an object that is there.
fn uid_of(call: &Call, kind: &'static Kind, namespace: Option<&str>, name: &str) -> Result<String, ApiError> {
    let entry = call.shared.cache.of(kind).get(&kind.info.registry_key(namespace, name));
    let identity = entry.and_then(|entry| entry.identity(kind.info));
    Ok(identity.ok_or_else(|| ApiError::NotFound(Subject::new(kind.info, name)))?.uid)
}

/// Binds the token to the object the request names.
fn bind(
    call: &Call,
    wanted: &[String],
    reference: Option<&BoundObjectReference>,
    token: &mut Kubernetes,
) -> Result<(), ApiError> {
    let node = call.user.node();
    let Some(reference) = reference else {
        return node.map_or(Ok(()), |_| Err(refused(call, "node requested token not bound to a pod")));
    };
    let namespace = call.info.namespace.as_deref();
    let name = reference.name.clone().unwrap_or_default();
    let kind_named = reference.kind.as_deref().unwrap_or("");
    let (group, version) = group_and_version(reference.api_version.as_deref().unwrap_or(""));
    if group.is_empty() && ["Pod", "Secret", "Node"].contains(&kind_named) && name.is_empty() {
        return Err(ApiError::BadRequest("Name parameter required.".to_owned()));
    }
    match (group, kind_named) {
        ("", "Pod") => bind_to_pod(call, wanted, reference, token),
        _ if node.is_some() => Err(refused(call, "node requested token not bound to a pod")),
        ("", "Secret") => {
            let uid = checked_uid(reference, uid_of(call, kind("Secret")?, namespace, &name)?)?;
            token.secret = Some(Ref { name, uid });
            Ok(())
        }
        ("", "Node") => {
            let uid = checked_uid(reference, uid_of(call, kind("Node")?, None, &name)?)?;
            token.node = Some(Ref { name, uid });
            Ok(())
        }
        (group, kind) => {
            // As Go prints a GroupVersionKind.
            let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            Err(ApiError::BadRequest(text))
        }
    }
}

/// The two halves of an `apiVersion`; none of what is not made of two (`schema.FromAPIVersionAndKind`). What a token is bound
/// to is told by its group and kind.
fn group_and_version(api_version: &str) -> (&str, &str) {
    match api_version.split_once('/') {
        None => ("", api_version),
        Some((_, rest)) if rest.contains('/') => ("", ""),
        Some(both) => both,
    }
}

/// With a pod its node is noted; it is told to those who review the token.
fn bind_to_pod(
    call: &Call,
    wanted: &[String],
    reference: &BoundObjectReference,
    token: &mut Kubernetes,
) -> Result<(), ApiError> {
    let (pods, name) = (kind("Pod")?, reference.name.as_deref().unwrap_or(""));
    let key = pods.info.registry_key(call.info.namespace.as_deref(), name);
    let entry = call.shared.cache.of(pods).get(&key);
    let entry = entry.ok_or_else(|| ApiError::NotFound(Subject::new(pods.info, name)))?;
    let pod: Pod = pods.typed(entry.json()).ok_or_else(|| ApiError::Internal(format!("{key} is no pod")))?;
    let runs_as = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("");
    if runs_as != call.name() {
        let account = call.name();
        let detail = "to pod running with different serviceaccount name.";
        return Err(ApiError::BadRequest(format!("cannot bind token for serviceaccount {account:?} {detail}")));
    }
    let uid = checked_uid(reference, pod.metadata.uid.clone().unwrap_or_default())?;
    if let Some(node) = call.user.node() {
        restrict_node(wanted, reference, &pod, node).map_err(|message| refused(call, &message))?;
    }
    token.pod = Some(Ref { name: name.to_owned(), uid });
    token.node = api::pods::node_name(&pod).map(|node| {
        let uid = kind("Node").and_then(|nodes| uid_of(call, nodes, None, node)).unwrap_or_default();
        Ref { name: node.to_owned(), uid }
    });
    Ok(())
}

/// The UID in record, which must be the one in the reference where that has one.
fn checked_uid(reference: &BoundObjectReference, uid: String) -> Result<String, ApiError> {
    let wanted = reference.uid.as_deref().unwrap_or("");
    if wanted.is_empty() || wanted == uid {
        return Ok(uid);
    }
    let subject = Subject {
        group: "".into(),
        kind: "TokenRequest",
        resource: reference.kind.clone().unwrap_or_default().into(),
        name: reference.name.clone().unwrap_or_default(),
    };
    Err(ApiError::Conflict(subject, format!("the UID in the bound object reference ({wanted}) {MISMATCH}")))
}

const MISMATCH: &str = "does not match the UID in record. The object might have been deleted and then recreated";

fn refused(call: &Call, message: &str) -> ApiError {
    ApiError::Forbidden(call.info.subject(), message.to_owned())
}

/// `NodeRestriction`: a node gets tokens only for pods it runs, for an audience they ask for
/// (`admitServiceAccount` in `plugin/pkg/admission/noderestriction`).
fn restrict_node(wanted: &[String], reference: &BoundObjectReference, pod: &Pod, node: &str) -> Result<(), String> {
    if reference.uid.as_deref().unwrap_or("").is_empty() {
        return Err("node requested token with a pod binding without a uid".into());
    }
    if api::pods::node_name(pod) != Some(node) {
        return Err("node requested token bound to a pod scheduled on a different node".into());
    }
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let sources = volumes.flat_map(|v| v.projected.iter().flat_map(|p| p.sources.iter().flatten()));
    let asked: Vec<&str> =
        sources.filter_map(|s| s.service_account_token.as_ref()).map(|t| t.audience.as_deref().unwrap_or("")).collect();
    let wanted = match wanted {
        [] => "",
        [one] => one,
        _ => return Err("node may only request 0 or 1 audiences".into()),
    };
    if asked.contains(&wanted) { Ok(()) } else { Err(format!("audience {wanted:?} not found in pod spec volume")) }
}
