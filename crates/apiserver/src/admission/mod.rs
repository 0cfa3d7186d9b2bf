//! What a write must still satisfy, and is completed with, once it is authorised: a chain of plugins, those upstream
//! turns on by default that matter for the kinds served here, in upstream's order.
//!
//! A plugin has two methods: [`Plugin::admit`] may change the object, [`Plugin::validate`] may only refuse. Both are
//! called again when a write is tried again, so applying one twice must be the same as applying it once. They read
//! other objects from the watch cache; whoever calls the chain lets the cache catch up and asks again before it
//! believes a refusal (see `Shared::create` and `Shared::modify`), so that no plugin has to. What a plugin wants to be
//! written or checked beside the object is a value ([`Effects`]), so a dry run needs no care either.
//!
//! Compare `k8s.io/apiserver/pkg/admission` and `pkg/kubeapiserver/options/plugins.go`.

mod certificates;
mod default_toleration_seconds;
mod escalation;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod node_taint;
mod persistent_volume_claim_resize;
mod pod_security;
mod priority;
mod resource_quota;
mod service_account;
mod storage_protection;

use std::borrow::Cow;
use std::sync::Arc;

use api::{Kind, Object, Resource, Subresource};
use store::Op;

use crate::audit::Annotations;
use crate::cache::{Cache, Entry};
use crate::status::{ApiError, Subject};
use crate::user::User;

pub(crate) use namespace_lifecycle::takes_new;
pub(crate) use service_account::appears;

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// What plugins know of a request, beside the object it brings.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) user: &'a User,
    pub(crate) operation: Operation,
    pub(crate) kind: &'static Kind,
    pub(crate) subresource: Option<Subresource>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: &'a str,
    /// The object as it is, where there is one.
    pub(crate) old: Option<&'a dyn Object>,
    /// What plugins read other objects from.
    pub(crate) cache: &'a Cache,
    /// Where plugins note what the audit log is to hold; the server's own writes are not in it.
    pub(crate) annotations: Option<&'a Annotations>,
}

impl<'a> Attributes<'a> {
    /// `operation` by `user` on an object of `kind`, not through a subresource.
    pub(crate) fn new(
        cache: &'a Cache,
        user: &'a User,
        operation: Operation,
        kind: &'static Kind,
        (namespace, name): (Option<&'a str>, &'a str),
    ) -> Attributes<'a> {
        Attributes { user, operation, kind, subresource: None, namespace, name, old: None, cache, annotations: None }
    }

    /// Whether the request is `operation` on an object of the core group's resource `plural` itself.
    fn is(&self, operation: Operation, plural: &str) -> bool {
        self.operation == operation
            && self.subresource.is_none()
            && self.kind.info.group.is_empty()
            && self.kind.info.plural == plural
    }

    /// Whether the request changes how much the containers of a pod ask for.
    fn resizes(&self) -> bool {
        self.operation == Operation::Update && self.subresource == Some(Subresource::Resize)
    }

    /// The objects of type `T` in the request's namespace.
    fn in_namespace<T: Resource>(&self) -> Vec<Found<T>> {
        let cache = self.cache.of(kind_of::<T>());
        match self.namespace {
            Some(namespace) if !cache.is_empty() => {
                let prefix = format!("{}{namespace}/", T::INFO.registry_prefix());
                decoded(cache.with_prefix(&prefix), |_| true)
            }
            _ => Vec::new(),
        }
    }

    /// All objects of type `T` whose JSON is `interesting`.
    fn all<T: Resource>(&self, interesting: impl Fn(&[u8]) -> bool) -> Vec<Found<T>> {
        decoded(self.cache.of(kind_of::<T>()).with_prefix(&T::INFO.registry_prefix()), interesting)
    }

    /// The object of type `T` with this name.
    fn named<T: Resource>(&self, namespace: Option<&str>, name: &str) -> Option<T> {
        let kind = kind_of::<T>();
        kind.typed(self.cache.of(kind).get(&T::INFO.registry_key(namespace, name))?.json())
    }

    /// The object as error messages name it.
    fn subject(&self) -> Subject {
        Subject::new(self.kind.info, self.name)
    }

    /// Has the audit log say `text` under `key`.
    fn note(&self, key: &'static str, text: String) {
        if let Some(annotations) = self.annotations {
            annotations.note(key, text);
        }
    }

    /// A refusal with `message` (`admission.NewForbidden`).
    fn forbidden(&self, message: impl Into<String>) -> ApiError {
        ApiError::Forbidden(self.subject(), message.into())
    }
}

/// Another object, as the cache has it.
struct Found<T> {
    entry: Arc<Entry>,
    object: T,
}

fn kind_of<T: Resource>() -> &'static Kind {
    let info = T::INFO;
    api::kinds::by_resource(info.group, info.version, info.plural).expect("plugins read kinds of the table only")
}

fn decoded<T: Resource>(entries: Vec<Arc<Entry>>, interesting: impl Fn(&[u8]) -> bool) -> Vec<Found<T>> {
    let interesting = entries.into_iter().filter(|entry| interesting(entry.json()));
    // What the server stored it can decode.
    let kind = kind_of::<T>();
    interesting.filter_map(|entry| Some(Found { object: kind.typed(entry.json())?, entry })).collect()
}

/// What admission adds to a write.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Operations that belong to the write's transaction: checks of what a plugin relied on, claims on what is scarce.
    pub(crate) ops: Vec<Op>,
    /// What the client is told in `Warning` headers.
    pub(crate) warnings: Vec<Cow<'static, str>>,
    /// Who manages what from now on (`metadata.managedFields`); `None` leaves it as it is.
    pub(crate) managed: Option<String>,
    /// Whether others in the same namespace write the same keys, so that it is better to take turns.
    pub(crate) in_turn: bool,
}

impl From<Vec<Op>> for Effects {
    fn from(ops: Vec<Op>) -> Effects {
        Effects { ops, ..Effects::default() }
    }
}

/// One rule. What a plugin does not care for costs it a comparison.
trait Plugin: Sync {
    /// May change the object of a creation or update.
    fn admit(&self, _: &Attributes<'_>, _object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        Ok(())
    }

    /// May refuse the request. `object` is what it brings; a deletion brings none.
    fn validate(&self, _: &Attributes<'_>, _object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins in the order they are asked.
static CHAIN: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &node_taint::TaintNodesByCondition,
    &pod_security::PodSecurity,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &storage_protection::StorageObjectInUseProtection,
    &persistent_volume_claim_resize::PersistentVolumeClaimResize,
    &certificates::CertificateRequester,
    &certificates::CertificateApproval,
    &certificates::CertificateSigning,
    &certificates::CertificateSubjectRestriction,
    &escalation::Escalation,
    &resource_quota::ResourceQuota,
];

/// The kinds whose objects are rules for others: whoever is told that one is written can rely on it.
const RULES: [&str; 3] = ["/registry/limitranges/", "/registry/priorityclasses/", "/registry/resourcequotas/"];

/// Whether the object under `key` is a rule for others.
pub(crate) fn is_rule(key: &str) -> bool {
    RULES.iter().any(|prefix| key.starts_with(prefix))
}

/// Completes the object of a creation or update.
pub(crate) fn admit(
    attributes: &Attributes<'_>,
    object: &mut dyn Object,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    CHAIN.iter().try_for_each(|plugin| plugin.admit(attributes, object, effects))
}

/// Checks the object of a creation or update as it would be stored, or a deletion.
pub(crate) fn validate(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    CHAIN.iter().try_for_each(|plugin| plugin.validate(attributes, object, effects))
}
