//! POST: a new object, completed, checked, and written together with what it needs: its namespace being there, the
//! addresses and ports it takes.

use std::borrow::Cow;
use std::sync::Arc;

use api::{Kind, Object, Scope};
use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use k8s_openapi::api::core::v1::Service;
use store::{Action, Expect, Op};

use crate::admission::{Attributes, Effects, Operation};
use crate::allocators::{self, Taken};
use crate::audit::Annotations;
use crate::cache::encode_with_revision;
use crate::call::Call;
use crate::respond::ApiResponse;
use crate::server::Shared;
use crate::status::{ApiError, Subject};
use crate::storage::{Written, encode, with_managed};
use crate::tracking::Tracking;
use crate::user::User;
use crate::{admission, body, metadata};

/// How many generated names are tried (`maxNameGenerationCreateAttempts`).
const MAX_NAME_ATTEMPTS: usize = 8;
/// How often a creation is tried while its namespace changes or others take the addresses it chose.
const MAX_CREATE_ATTEMPTS: usize = 64;

pub(super) async fn create(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let json = call.json_body(request_body).await?;
    let decoded = body::decode(call.info.kind, &json, &call.query)?;
    call.remark(&decoded.warnings);
    let dry_run = call.query.dry_run()?;
    let namespace = call.info.namespace.as_deref();
    let author = Author { user: &call.user, tracking: call.tracking(), annotations: Some(&call.annotations) };
    let kind = call.info.kind;
    let written = call.shared.create_as(author, kind, namespace, decoded.object, dry_run).await;
    Ok(call.wrote(StatusCode::CREATED, written?, &decoded.warnings))
}

/// Who creates an object.
pub(crate) struct Author<'a> {
    pub(crate) user: &'a Arc<User>,
    pub(crate) tracking: Tracking,
    /// What becomes of it is in the audit log.
    pub(crate) annotations: Option<&'a Annotations>,
}

impl Shared {
    /// Creates an object on the server's own account.
    pub(crate) async fn create(
        &self,
        user: &Arc<User>,
        kind: &'static Kind,
        namespace: Option<&str>,
        object: Box<dyn Object>,
        dry_run: bool,
    ) -> Result<Written, ApiError> {
        let author = Author { user, tracking: Tracking::server(), annotations: None };
        self.create_as(author, kind, namespace, object, dry_run).await
    }

    /// Creates an object. With `generateName` the server chooses the name.
    pub(crate) async fn create_as(
        &self,
        author: Author<'_>,
        kind: &'static Kind,
        namespace: Option<&str>,
        mut object: Box<dyn Object>,
        dry_run: bool,
    ) -> Result<Written, ApiError> {
        metadata::check_namespace(object.metadata(), namespace)?;
        if kind.info.scope == Scope::Namespaced && namespace.is_none() {
            return Err(ApiError::BadRequest("an empty namespace may not be set during creation".into()));
        }
        // Found out by the store upstream, which a dry run does not reach.
        let said = object.metadata().resource_version.clone().filter(|version| !matches!(&**version, "" | "0"));
        if said.is_some() && !dry_run {
            return Err(ApiError::BadRequest("resourceVersion should not be set on objects to be created".into()));
        }
        metadata::prepare_create(kind.info, object.metadata_mut(), namespace);
        let given = object.metadata().name.as_deref().unwrap_or("");
        let is_nameless = given.is_empty() && object.metadata().generate_name.as_deref().unwrap_or("").is_empty();
        if is_nameless && kind.makes_up_names {
            object.metadata_mut().name = Some(uuid::Uuid::new_v4().to_string());
        }
        let given = object.metadata().name.as_deref().unwrap_or("");
        let prefix = object.metadata().generate_name.clone().filter(|p| given.is_empty() && !p.is_empty());
        let Some(prefix) = prefix else {
            let name = given.to_owned();
            return self.create_named(&author, kind, (namespace, &name), object, dry_run).await;
        };
        let mut attempt = 1;
        loop {
            let mut candidate = object.clone_object();
            candidate.metadata_mut().name = Some(api::names::generate_name(&prefix, &mut rand::rng()));
            match self.create_named(&author, kind, (namespace, &prefix), candidate, dry_run).await {
                Err(ApiError::AlreadyExists(_)) if attempt < MAX_NAME_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Creates an object that has its name; until it is complete, it is `called` what its author calls it.
    async fn create_named(
        &self,
        author: &Author<'_>,
        kind: &'static Kind,
        (namespace, called): (Option<&str>, &str),
        mut object: Box<dyn Object>,
        dry_run: bool,
    ) -> Result<Written, ApiError> {
        let subject = Subject::new(kind.info, object.metadata().name.as_deref().unwrap_or(""));
        object.set_defaults();
        let managed = author.tracking.created(&mut *object);
        let asked = object.as_any().downcast_ref::<Service>().cloned();
        let (mut taken, mut is_fresh, mut has_waited, mut turn) = (Taken::default(), false, false, None);
        let key = kind.info.registry_key(namespace, &subject.name);
        let place = (namespace, &*subject.name);
        let plain = Attributes::new(&self.cache, author.user, Operation::Create, kind, place);
        let attributes = Attributes { annotations: author.annotations, ..plain };
        for _ in 0..MAX_CREATE_ATTEMPTS {
            let (plain, effects) =
                match self.complete(&attributes, (&subject, called), &mut *object, asked.as_ref(), &taken) {
                    Err(_) if !is_fresh => {
                        // Refused, but perhaps only because the cache is behind.
                        self.cache.catch_up().await?;
                        is_fresh = true;
                        continue;
                    }
                    // A namespace just made gets its `default` account at once: a pod waits for it rather than fail.
                    Err(refusal) if !has_waited && admission::appears(&self.cache, &refusal).await => {
                        has_waited = true;
                        continue;
                    }
                    decision => decision?,
                };
            let value = with_managed(&*object, plain, &managed)?;
            let Effects { mut ops, warnings, in_turn, .. } = effects;
            if dry_run {
                return self.pretend(&subject, &key, value, warnings).await;
            }
            if in_turn && turn.is_none() {
                // Others may have been first: look again.
                turn = Some(self.turns.of(namespace.unwrap_or("")).await);
                continue;
            }
            let lease = self.lease_for(kind).await?;
            ops.push(Op { key: key.clone(), expect: Expect::Absent, action: Action::Put(value.clone(), lease) });
            match self.commit(ops, &key, Some((&value, &*object))).await {
                Ok(revision) => {
                    if turn.is_some() {
                        // Whoever is next must see what was taken.
                        self.seen(revision).await;
                    }
                    let json = encode_with_revision(object.info(), &value, revision);
                    return Ok(Written { json, removed: false, warnings });
                }
                Err(store::Error::Conflict { key: which, .. }) if which == key => {
                    return Err(ApiError::AlreadyExists(subject));
                }
                Err(store::Error::Conflict { key: which, .. }) if allocators::is_range_key(&which) => {
                    taken = Taken::read(&*self.store).await?;
                }
                // Something admission relied on has changed.
                Err(store::Error::Conflict { .. }) => drop(self.cache.catch_up().await?),
                Err(other) => return Err(other.into()),
            }
        }
        Err(ApiError::Conflict(subject, "what the creation depends on keeps changing; try again".into()))
    }

    /// Completes and validates, and gives the bytes and what else belongs to the transaction. Doing it again on the same
    /// object, when the world around it has changed, is as doing it once.
    fn complete(
        &self,
        attributes: &Attributes<'_>,
        (subject, called): (&Subject, &str),
        object: &mut dyn Object,
        asked: Option<&Service>,
        taken: &Taken,
    ) -> Result<(Vec<u8>, Effects), ApiError> {
        let invalid = |errors| ApiError::Invalid(subject.clone(), errors);
        let mut effects = Effects::default();
        if let (Some(service), Some(asked)) = (object.as_any_mut().downcast_mut::<Service>(), asked) {
            service.clone_from(asked);
        }
        // Upstream generates a name after that (`extractResourceName`).
        admission::admit(&Attributes { name: called, ..*attributes }, object, &mut effects)?;
        object.set_defaults();
        object.prepare_create();
        if let Some(service) = object.as_any_mut().downcast_mut::<Service>() {
            effects.ops.extend(allocators::plan(&self.ranges(), None, service, taken).map_err(invalid)?);
        }
        let mut errors = metadata::validate(attributes.kind.info, object.metadata());
        errors.extend(object.validate());
        errors.extend(object.validate_create());
        if let Some(view) = attributes.kind.view {
            (view.validate)(object, None, &mut errors);
        }
        if !errors.is_empty() {
            return Err(invalid(errors));
        }
        effects.warnings.extend(object.warnings(None).into_iter().map(Cow::from));
        admission::validate(attributes, Some(object), &mut effects)?;
        Ok((encode(object)?, effects))
    }

    /// A dry run fails where the write would, and gives no revision to what was never written.
    async fn pretend(
        &self,
        subject: &Subject,
        key: &str,
        value: Bytes,
        warnings: Vec<Cow<'static, str>>,
    ) -> Result<Written, ApiError> {
        match self.store.get(key, None).await? {
            (Some(_), _) => Err(ApiError::AlreadyExists(subject.clone())),
            (None, _) => Ok(Written { json: value, removed: false, warnings }),
        }
    }
}
