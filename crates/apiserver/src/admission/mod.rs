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
mod namespace_lifecycle;
mod node_restriction;
mod service_account;

use std::borrow::Cow;

use api::{Kind, Object, Subresource};
use store::Op;

use crate::cache::Cache;
use crate::status::{ApiError, Subject};
use crate::user::User;

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
        Attributes { user, operation, kind, subresource: None, namespace, name, old: None, cache }
    }

    /// Whether the request is `operation` on an object of the core group's resource `plural` itself.
    fn is(&self, operation: Operation, plural: &str) -> bool {
        self.operation == operation
            && self.subresource.is_none()
            && self.kind.info.group.is_empty()
            && self.kind.info.plural == plural
    }

    /// The object as error messages name it.
    fn subject(&self) -> Subject {
        Subject::new(self.kind.info, self.name)
    }

    /// A refusal with `message` (`admission.NewForbidden`).
    fn forbidden(&self, message: impl Into<String>) -> ApiError {
        ApiError::Forbidden(self.subject(), message.into())
    }
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
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &certificates::CertificateRequester,
    &certificates::CertificateSubjectRestriction,
    &escalation::Escalation,
];

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
