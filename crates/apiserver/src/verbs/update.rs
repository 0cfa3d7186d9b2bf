//! PUT: the object becomes what the client sent, if it meant the version that is there. Of some kinds it may be a new one.

use api::Object;
use api::field::{Path, invalid};
use axum::body::Body;
use http::StatusCode;

use super::create::Author;
use super::step::{check_uid, step, version_of};
use crate::body;
use crate::call::Call;
use crate::metadata::check_identity;
use crate::respond::ApiResponse;
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Written};

/// What a PUT may create (`AllowCreateOnUpdate` of the strategies upstream).
const CREATED: [&str; 9] = [
    "clusterrolebindings",
    "clusterroles",
    "endpoints",
    "events",
    "leases",
    "limitranges",
    "rolebindings",
    "roles",
    "services",
];
/// What is replaced only by who says which version of it (not `AllowUnconditionalUpdate`).
const BY_VERSION: &str = "leases";
/// How often an update starts over because its object comes or goes meanwhile.
const MAX_ATTEMPTS: usize = 8;

pub(super) async fn update(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let json = call.json_body(request_body).await?;
    let mut decoded = body::decode(call.info.kind, &json, &call.query)?;
    call.remark(&decoded.warnings);
    let object = &mut decoded.object;
    check_identity(object.metadata_mut(), call.info.namespace.as_deref(), call.name())?;
    call.check_name()?;
    let (object, dry_run) = (&**object, call.query.dry_run()?);
    for _ in 0..MAX_ATTEMPTS {
        match replace(call, object, dry_run).await {
            Err(ApiError::NotFound(_)) => must_create(call, object)?,
            outcome => return Ok(call.wrote(StatusCode::OK, outcome?, &decoded.warnings)),
        }
        call.may_also_create().await?;
        let author = Author { user: &call.user, tracking: call.tracking(), annotations: Some(&call.annotations) };
        let (kind, namespace) = (call.info.kind, call.info.namespace.as_deref());
        let mut new = object.clone_object();
        new.metadata_mut().resource_version = None;
        match call.shared.create_as(author, kind, namespace, new, dry_run).await {
            Err(ApiError::AlreadyExists(_)) => {}
            outcome => return Ok(call.wrote(StatusCode::CREATED, outcome?, &decoded.warnings)),
        }
    }
    Err(ApiError::Conflict(call.info.subject(), "the object keeps coming and going; try again".into()))
}

async fn replace(call: &Call, object: &dyn Object, dry_run: bool) -> Result<Written, ApiError> {
    let tracking = call.tracking();
    let (subject, key) = (call.info.subject(), call.info.key());
    let is_unsaid = call.info.kind.info.plural == BY_VERSION && !says_version(object);
    let change = |current: &Current, taken: &_| {
        // Who replaces an object may say which; of who patches one it is a field like others, which never changes.
        if let Some(uid) = object.metadata().uid.as_deref().filter(|uid| !uid.is_empty()) {
            check_uid(&subject, current, uid)?;
        }
        if is_unsaid {
            let path = Path::new("metadata").child("resourceVersion");
            let error = invalid(&path, 0, "must be specified for an update");
            // The store upstream knows no kinds.
            let subject = Subject { kind: call.info.kind.info.plural, ..subject.clone() };
            return Err(ApiError::Invalid(subject, vec![error]));
        }
        step(call, &tracking, current, object.clone_object(), taken)
    };
    call.shared.modify(call.info.kind, &subject, &key, dry_run, change).await
}

/// Whether the client says which version it means.
fn says_version(object: &dyn Object) -> bool {
    !matches!(object.metadata().resource_version.as_deref(), None | Some("" | "0"))
}

/// Whether an object that is not there is made. Not one the client means another by; of which version it thinks it to be,
/// where there is none, says nothing (`Store.Update`).
fn must_create(call: &Call, object: &dyn Object) -> Result<(), ApiError> {
    if let Some(uid) = object.metadata().uid.as_deref().filter(|uid| !uid.is_empty()) {
        let message = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
        return Err(ApiError::Conflict(call.info.subject(), message));
    }
    if call.info.subresource.is_some() || !CREATED.contains(&call.info.kind.info.plural) {
        return Err(ApiError::NotFound(call.info.subject()));
    }
    version_of(&call.info.subject(), object).map(|_| ())
}
