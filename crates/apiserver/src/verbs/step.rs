//! The step from one version of an object to the next, the same for PUT and PATCH.

use api::{Object, Subresource};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Namespace, Service};
use store::Revision;

use crate::admission::{Effects, Operation};
use crate::allocators::{self, Taken};
use crate::call::Call;
use crate::status::{ApiError, Subject};
use crate::storage::{Current, MODIFIED, Write};
use crate::tracking::Tracking;
use crate::{admission, metadata};

/// What must be written so that `current` becomes `new`, a version made by the client. Pure but for the random choice of
/// addresses and ports, and the time.
pub(super) fn step(
    call: &Call,
    tracking: &Tracking,
    current: &Current,
    mut new: Box<dyn Object>,
    taken: &Taken,
) -> Result<Write, ApiError> {
    let subject = call.info.subject();
    check_version(&subject, current, &*new)?;
    if !matches!(call.info.subresource, None | Some(Subresource::Status | Subresource::Approval)) {
        let (mut errors, given) = (api::field::ErrorList::new(), new.metadata().uid.clone());
        let uid = api::field::Path::new("metadata").child("uid");
        let given = given.filter(|uid| !uid.is_empty()).or_else(|| current.object.metadata().uid.clone());
        api::metadata::immutable(&uid, &given, &current.object.metadata().uid, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::Invalid(subject, errors));
        }
    }
    let said = new.metadata_mut().managed_fields.take();
    // Who manages what is decided on what the client wants, before the server has a say in it.
    let managed = |new: &dyn Object| tracking.updated(current, new, said, call.info.subresource);
    let mut write = match call.info.subresource {
        None => main(call, &subject, current, new, taken, managed)?,
        Some(part @ (Subresource::Status | Subresource::Approval)) => {
            status(call, part, &subject, current, new, managed)?
        }
        Some(part @ (Subresource::EphemeralContainers | Subresource::Resize)) => {
            part_of_spec(call, part, &subject, current, new, managed)?
        }
        Some(Subresource::Finalize) => finalize(&subject, current, &*new)?,
        Some(_) => return Err(ApiError::MethodNotAllowed),
    };
    if let (Write::Put(object, effects), Some(Subresource::Finalize)) = (&mut write, call.info.subresource) {
        let attributes = call.attributes(Operation::Update, Some(&*current.object));
        admission::validate(&attributes, Some(&**object), effects)?;
        effects.managed = Some(tracking.updated(current, &**object, None, call.info.subresource));
    }
    Ok(write)
}

/// A client that says which version it means must be right.
pub(crate) fn check_version(subject: &Subject, current: &Current, new: &dyn Object) -> Result<(), ApiError> {
    match version_of(subject, new)? {
        Some(revision) if revision != current.revision => Err(ApiError::Conflict(subject.clone(), MODIFIED.to_owned())),
        _ => Ok(()),
    }
}

/// Which version the client means, if it says.
pub(super) fn version_of(subject: &Subject, object: &dyn Object) -> Result<Option<Revision>, ApiError> {
    let said = object.metadata().resource_version.as_deref().filter(|rv| !matches!(*rv, "" | "0"));
    said.map(|text| {
        text.parse().map_err(|_| {
            let path = api::field::Path::new("metadata").child("resourceVersion");
            let error = api::field::invalid(&path, text, "must be an unsigned integer");
            ApiError::Invalid(subject.clone(), vec![error])
        })
    })
    .transpose()
}

/// The object must be the one the client means, not a later one of the same name.
pub(crate) fn check_uid(subject: &Subject, current: &Current, uid: &str) -> Result<(), ApiError> {
    let have = current.object.metadata().uid.as_deref().unwrap_or("");
    if uid == have {
        return Ok(());
    }
    let message = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}");
    Err(ApiError::Conflict(subject.clone(), message))
}

fn main(
    call: &Call,
    subject: &Subject,
    current: &Current,
    mut new: Box<dyn Object>,
    taken: &Taken,
    managed: impl FnOnce(&dyn Object) -> String,
) -> Result<Write, ApiError> {
    let old = &*current.object;
    let attributes = call.attributes(Operation::Update, Some(old));
    let mut effects = Effects::default();
    metadata::prepare_update(new.metadata_mut(), old.metadata());
    new.set_defaults();
    effects.managed = Some(managed(&*new));
    admission::admit(&attributes, &mut *new, &mut effects)?;
    new.set_defaults();
    // What admission gives back to the spec is no change of it: tolerations that kubectl apply leaves out.
    new.prepare_update(old);
    let mut not_allocated = api::field::ErrorList::new();
    if let Some(service) = new.as_any_mut().downcast_mut::<Service>() {
        let ranges = call.shared.ranges();
        let ops = allocators::plan(&ranges, old.as_any().downcast_ref(), service, taken);
        match ops {
            Ok(ops) => effects.ops.extend(ops),
            Err(errors) => not_allocated = errors,
        }
    }
    let mut errors = api::field::ErrorList::new();
    let info = call.info.kind.info;
    api::metadata::validate_metadata_update(info, new.metadata(), old.metadata(), &mut errors);
    errors.extend(new.validate());
    errors.extend(new.validate_update(old));
    if let Some(view) = call.info.kind.view {
        (view.validate)(&*new, Some(old), &mut errors);
    }
    // Upstream allocates what is valid: what is wrong with the object itself is said first.
    if errors.is_empty() {
        errors = not_allocated;
    }
    if !errors.is_empty() {
        return Err(ApiError::Invalid(subject.clone(), errors));
    }
    effects.warnings.extend(new.warnings(Some(old)).into_iter().map(Into::into));
    admission::validate(&attributes, Some(&*new), &mut effects)?;
    if ends(&*new) {
        let managed = effects.managed;
        return Ok(Write::Remove(new, Effects { managed, ..allocators::release(old).into() }));
    }
    Ok(Write::Put(new, effects))
}

/// An object that is being deleted ends with its last finalizer (`ShouldDeleteDuringUpdate`).
fn ends(object: &dyn Object) -> bool {
    let metadata = object.metadata();
    let holds = object.as_any().downcast_ref::<Namespace>().is_some_and(has_spec_finalizers);
    metadata.deletion_timestamp.is_some()
        && metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
        && metadata.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !holds
}

fn has_spec_finalizers(namespace: &Namespace) -> bool {
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty())
}

/// `/status`, and `/approval`, which is the half of a status that someone else writes.
fn status(
    call: &Call,
    part: Subresource,
    subject: &Subject,
    current: &Current,
    mut new: Box<dyn Object>,
    managed: impl FnOnce(&dyn Object) -> String,
) -> Result<Write, ApiError> {
    let old = &*current.object;
    let attributes = call.attributes(Operation::Update, Some(old));
    let mut effects = Effects::default();
    metadata::prepare_status_update(new.metadata_mut(), old.metadata());
    new.set_defaults();
    date_conditions(&mut *new, old);
    effects.managed = Some(managed(&*new));
    new.prepare_subresource_update(part, old);
    admission::admit(&attributes, &mut *new, &mut effects)?;
    let mut errors = api::field::ErrorList::new();
    api::metadata::validate_metadata_update(new.info(), new.metadata(), old.metadata(), &mut errors);
    errors.extend(new.validate_subresource_update(part, old));
    if !errors.is_empty() {
        return Err(ApiError::Invalid(subject.clone(), errors));
    }
    admission::validate(&attributes, Some(&*new), &mut effects)?;
    Ok(Write::Put(new, effects))
}

/// `/ephemeralcontainers` and `/resize` change nothing but the part of the spec they are for.
fn part_of_spec(
    call: &Call,
    part: Subresource,
    subject: &Subject,
    current: &Current,
    mut new: Box<dyn Object>,
    managed: impl FnOnce(&dyn Object) -> String,
) -> Result<Write, ApiError> {
    let old = &*current.object;
    let attributes = call.attributes(Operation::Update, Some(old));
    let mut effects = Effects::default();
    new.prepare_subresource_update(part, old);
    new.set_defaults();
    effects.managed = Some(managed(&*new));
    admission::admit(&attributes, &mut *new, &mut effects)?;
    new.set_defaults();
    new.prepare_update(old);
    let mut errors = new.validate();
    errors.extend(new.validate_subresource_update(part, old));
    if !errors.is_empty() {
        return Err(ApiError::Invalid(subject.clone(), errors));
    }
    admission::validate(&attributes, Some(&*new), &mut effects)?;
    new.metadata_mut().resource_version = None;
    Ok(Write::Put(new, effects))
}

/// `/finalize` of a namespace changes nothing but its finalizers; with the last one the namespace ends.
fn finalize(subject: &Subject, current: &Current, new: &dyn Object) -> Result<Write, ApiError> {
    let mut object = current.object.clone_object();
    let wanted = new.as_any().downcast_ref::<Namespace>().and_then(|n| n.spec.as_ref()?.finalizers.clone());
    let Some(namespace) = object.as_any_mut().downcast_mut::<Namespace>() else {
        return Err(ApiError::Internal(format!("{} have no finalize", subject.resource)));
    };
    namespace.spec.get_or_insert_default().finalizers = wanted.filter(|f| !f.is_empty());
    namespace.metadata.resource_version = None;
    let errors = object.validate_subresource_update(Subresource::Finalize, &*current.object);
    if !errors.is_empty() {
        return Err(ApiError::Invalid(subject.clone(), errors));
    }
    if ends(&*object) {
        Ok(Write::Remove(object, Effects::default()))
    } else {
        Ok(Write::Put(object, Effects::default()))
    }
}

/// Conditions say when they came to be, by the server's clock where their writer leaves that out
/// (`populateConditionTimestamps` in `pkg/registry/certificates/certificates/strategy.go`).
fn date_conditions(new: &mut dyn Object, old: &dyn Object) {
    let old = old.as_any().downcast_ref::<CertificateSigningRequest>().and_then(|csr| csr.status.as_ref());
    let Some(new) = new.as_any_mut().downcast_mut::<CertificateSigningRequest>() else { return };
    let before: Vec<_> = old.into_iter().flat_map(|status| status.conditions.iter().flatten()).collect();
    for condition in new.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten()) {
        condition.last_update_time.get_or_insert_with(metadata::now_time);
        let same = before.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        let since = same.and_then(|c| c.last_transition_time.clone());
        condition.last_transition_time.get_or_insert_with(|| since.unwrap_or_else(metadata::now_time));
    }
}
