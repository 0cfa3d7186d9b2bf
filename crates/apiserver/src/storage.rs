//! Between the verbs and the store: read, change, write, and again when someone else was faster.

use std::borrow::Cow;

use api::apply::Given;
use api::{Kind, Object};
use bytes::Bytes;
use store::{Action, Expect, KeyValue, Op, Revision};

use crate::admission::{self, Effects};
use crate::allocators::{self, Taken};
use crate::cache::encode_with_revision;
use crate::server::Shared;
use crate::status::{ApiError, Subject};

/// How often one write is tried while others write the same object. Upstream's `GuaranteedUpdate` has no bound; this one
/// is far beyond what fairness needs.
const MAX_WRITE_ATTEMPTS: usize = 512;

/// Upstream's words for a stale resourceVersion.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// An object as it is now.
pub(crate) struct Current {
    pub(crate) object: Box<dyn Object>,
    pub(crate) revision: Revision,
    /// With its resourceVersion.
    pub(crate) json: Bytes,
    /// The same without `metadata.managedFields`, which the object lacks too.
    pub(crate) plain: Bytes,
    /// These, as JSON; empty where there are none.
    pub(crate) managed: String,
}

impl Current {
    fn new(kind: &'static Kind, json: Bytes, revision: Revision) -> Result<Current, ApiError> {
        let (plain, managed) = api::apply::split(kind.info, &json);
        // As it would be encoded now, whatever was written when it was stored.
        let plain = api::written::complete(kind.info, plain).into_owned();
        let (plain, mut managed) = (Bytes::from(plain), managed.to_owned());
        let decoded = (kind.decode)(&plain);
        let broken = |e| ApiError::Internal(format!("stored {} cannot be decoded: {e}", kind.info.kind));
        let mut object = decoded.map_err(broken)?.object;
        // Written by someone who keeps them elsewhere.
        if let Some(Given::List(list)) =
            object.metadata_mut().managed_fields.take().map(|m| api::apply::given(Some(&m)))
        {
            managed = list;
        }
        object.metadata_mut().resource_version = Some(revision.to_string());
        Ok(Current { object, revision, json, plain, managed })
    }
}

/// What a write wants.
pub(crate) enum Write {
    /// Keep this instead.
    Put(Box<dyn Object>, Effects),
    /// Keep nothing. The object is what the answer shows.
    Remove(Box<dyn Object>, Effects),
    /// Leave it as it is.
    Keep,
}

/// What a write did.
pub(crate) struct Written {
    /// The object, with its resourceVersion.
    pub(crate) json: Bytes,
    pub(crate) removed: bool,
    /// What admission has to say about it.
    pub(crate) warnings: Vec<Cow<'static, str>>,
}

impl Written {
    fn unchanged(current: &Current) -> Written {
        Written { json: current.json.clone(), removed: false, warnings: Vec::new() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Nearly always the newest version, and free. What is decided on it counts only if the store agrees.
    Cache,
    Store,
}

impl Shared {
    /// The object under `key`, from the store itself.
    pub(crate) async fn read(&self, kind: &'static Kind, key: &str) -> Result<Option<Current>, ApiError> {
        let (found, _) = self.store.get(key, None).await?;
        found.map(|kv| current_of(kind, &kv)).transpose()
    }

    fn read_cache(&self, kind: &'static Kind, key: &str) -> Result<Option<Current>, ApiError> {
        let Some(entry) = self.cache.of(kind).get(key) else { return Ok(None) };
        Current::new(kind, entry.json_bytes(), entry.revision).map(Some)
    }

    /// Changes the object under `key` by `change`, which may be called several times and decides on the last version
    /// it is shown. A refusal decided on a version the store does not confirm is decided again.
    pub(crate) async fn modify(
        &self,
        kind: &'static Kind,
        subject: &Subject,
        key: &str,
        dry_run: bool,
        mut change: impl FnMut(&Current, &Taken) -> Result<Write, ApiError>,
    ) -> Result<Written, ApiError> {
        let kind = kind.stored();
        let mut source = Source::Cache;
        let mut known = self.read_cache(kind, key)?;
        let mut taken = Taken::default();
        for _ in 0..MAX_WRITE_ATTEMPTS {
            let decision = match &known {
                Some(current) => change(current, &taken),
                None => Err(ApiError::NotFound(subject.clone())),
            };
            let decision = match (decision, &known) {
                (Ok(write), Some(current)) => Encoded::of(write, current),
                (Ok(_), None) => Ok(None),
                (Err(error), _) => Err(error),
            };
            let keeps = matches!((&decision, &known), (Ok(None), Some(_)));
            if source == Source::Cache && (decision.is_err() || keeps) {
                if decision.is_err() {
                    // What admission looked at beside the object may have been old too.
                    self.cache.catch_up().await?;
                }
                (source, known) = (Source::Store, self.read(kind, key).await?);
                continue;
            }
            let (write, current) = match (decision?, &known) {
                (Some(write), Some(current)) if !keeps => (write, current),
                (_, Some(current)) => return Ok(Written::unchanged(current)),
                (_, None) => return Err(ApiError::NotFound(subject.clone())),
            };
            match self.write(kind, key, current.revision, write, dry_run).await? {
                Outcome::Done(written) => return Ok(written),
                Outcome::Taken => taken = Taken::read(&*self.store).await?,
                Outcome::Conflict(Some(newer)) => (source, known) = (Source::Store, Some(current_of(kind, &newer)?)),
                Outcome::Conflict(None) => (source, known) = (Source::Store, None),
                Outcome::Elsewhere => drop(self.cache.catch_up().await?),
            }
        }
        Err(ApiError::Conflict(subject.clone(), MODIFIED.to_owned()))
    }

    async fn write(
        &self,
        kind: &'static Kind,
        key: &str,
        revision: Revision,
        write: Encoded,
        dry_run: bool,
    ) -> Result<Outcome, ApiError> {
        let Encoded { value, object, effects: Effects { mut ops, warnings, .. }, removes } = write;
        if dry_run {
            let json = encode_with_revision(kind.info, &value, revision);
            return Ok(Outcome::Done(Written { json, removed: removes, warnings }));
        }
        let action = match removes {
            true => Action::Delete,
            false => Action::Put(value.clone(), self.lease_for(kind).await?),
        };
        ops.push(Op { key: key.to_owned(), expect: Expect::Unchanged(revision), action });
        match self.commit(ops, key, (!removes).then_some((&value, &*object))).await {
            Ok(revision) => {
                let json = encode_with_revision(kind.info, &value, revision);
                Ok(Outcome::Done(Written { json, removed: removes, warnings }))
            }
            Err(store::Error::Conflict { key: which, .. }) if allocators::is_range_key(&which) => Ok(Outcome::Taken),
            Err(store::Error::Conflict { key: which, current }) if which == key => Ok(Outcome::Conflict(current)),
            Err(store::Error::Conflict { .. }) => Ok(Outcome::Elsewhere),
            Err(other) => Err(other.into()),
        }
    }

    /// Commits, and lets the cache know beforehand what is put under `key`.
    pub(crate) async fn commit(
        &self,
        ops: Vec<Op>,
        key: &str,
        put: Option<(&Bytes, &dyn Object)>,
    ) -> Result<Revision, store::Error> {
        if let Some((value, object)) = put {
            self.cache.expect(key, value, object);
        }
        let outcome = self.store.commit(ops).await;
        match outcome {
            Err(_) if put.is_some() => self.cache.forget(key),
            Ok(revision) if admission::is_rule(key) => self.seen(revision).await,
            _ => {}
        }
        outcome
    }

    /// Waits until the cache has a write of this server, so that what is decided next knows of it. Where the cache is cut
    /// off from the store there is nothing to wait for: the write is done, and will be seen.
    pub(crate) async fn seen(&self, revision: Revision) {
        if let Err(error) = self.cache.wait_for(revision).await {
            tracing::debug!(%error, revision, "a write is not in the cache yet");
        }
    }
}

/// A write, encoded once.
struct Encoded {
    value: Bytes,
    object: Box<dyn Object>,
    effects: Effects,
    removes: bool,
}

impl Encoded {
    /// `None` for a write that leaves everything as it is. Who manages what stays too, unless the write says otherwise.
    fn of(write: Write, current: &Current) -> Result<Option<Encoded>, ApiError> {
        let (object, mut effects, removes) = match write {
            Write::Put(object, effects) => (object, effects, false),
            Write::Remove(object, effects) => (object, effects, true),
            Write::Keep => return Ok(None),
        };
        let managed = effects.managed.take();
        let managed = managed.as_deref().unwrap_or(&current.managed);
        let plain = encode(&*object)?;
        if !removes && current.is(&*object, &plain) && api::apply::equal_but_times(managed, &current.managed) {
            return Ok(None);
        }
        let value = with_managed(&*object, plain, managed)?;
        Ok(Some(Encoded { value, object, effects, removes }))
    }
}

impl Current {
    /// Whether these are the very bytes that are there (`IgnoreManagedFieldsTimestampsTransformer`).
    fn is(&self, object: &dyn Object, plain: &[u8]) -> bool {
        *encode_with_revision(object.info(), plain, self.revision) == *self.plain
    }
}

enum Outcome {
    Done(Written),
    /// Someone else wrote the object: this is it now.
    Conflict(Option<KeyValue>),
    /// Someone else took an address or port.
    Taken,
    /// Something else that admission relied on has changed.
    Elsewhere,
}

/// An object's bytes without its resourceVersion and its managers.
pub(crate) fn encode(object: &dyn Object) -> Result<Vec<u8>, ApiError> {
    debug_assert!(object.metadata().resource_version.is_none(), "resourceVersion is never stored");
    debug_assert!(object.metadata().managed_fields.is_none(), "managers are kept beside the object");
    let value = object.encode();
    if value.len() > store::MAX_VALUE_BYTES {
        return Err(too_large());
    }
    Ok(value)
}

/// The bytes an object is stored as: with its managers, and within the store's bounds.
pub(crate) fn with_managed(object: &dyn Object, plain: Vec<u8>, managed: &str) -> Result<Bytes, ApiError> {
    let value = api::apply::join(object.info(), plain, managed);
    if value.len() > store::MAX_VALUE_BYTES { Err(too_large()) } else { Ok(value.into()) }
}

fn too_large() -> ApiError {
    ApiError::TooLarge(format!("Request entity too large: limit is {}", store::MAX_VALUE_BYTES))
}

fn current_of(kind: &'static Kind, kv: &KeyValue) -> Result<Current, ApiError> {
    Current::new(kind, encode_with_revision(kind.info, &kv.value, kv.mod_revision), kv.mod_revision)
}
