//! `NamespaceLifecycle`: nothing is created in a namespace that is not there or that ends, and the namespaces no
//! cluster is without stay.
//!
//! A transaction that creates something in a namespace holds only while that namespace is what it was when it was
//! looked at, so nothing can slip into a namespace that ends.
//! Compare `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`.

use api::{Kind, Object, Scope};
use store::{Action, Expect, Op};

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::{ApiError, Subject};

/// Namespaces no cluster is without.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

const TERMINATING: &str = "Terminating";

pub(super) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn admit(&self, a: &Attributes<'_>, _: &mut dyn Object, effects: &mut Effects) -> Result<(), ApiError> {
        match a.namespace.filter(|_| a.operation == Operation::Create && a.kind.info.scope == Scope::Namespaced) {
            Some(namespace) => usable(a, namespace, effects),
            None => Ok(()),
        }
    }

    fn validate(&self, a: &Attributes<'_>, _: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        if a.is(Operation::Delete, "namespaces") && IMMORTAL_NAMESPACES.contains(&a.name) {
            return Err(a.forbidden("this namespace may not be deleted"));
        }
        Ok(())
    }
}

/// Whether something may be made below an object in the namespace of the request: a token, a binding, an eviction.
pub(crate) fn takes_new(a: &Attributes<'_>) -> Result<(), ApiError> {
    a.namespace.map_or(Ok(()), |namespace| usable(a, namespace, &mut Effects::default()))
}

fn usable(a: &Attributes<'_>, namespace: &str, effects: &mut Effects) -> Result<(), ApiError> {
    let kind = namespaces();
    let key = kind.info.registry_key(None, namespace);
    let Some(entry) = a.cache.of(kind).get(&key) else {
        return Err(ApiError::NotFound(Subject::new(kind.info, namespace)));
    };
    // The phase is the kind's one selectable field.
    if entry.select.fields.first().is_some_and(|phase| **phase == *TERMINATING) {
        return Err(ApiError::NamespaceTerminating { subject: a.subject(), namespace: namespace.to_owned() });
    }
    effects.ops.push(Op { key, expect: Expect::Unchanged(entry.revision), action: Action::Check });
    Ok(())
}

fn namespaces() -> &'static Kind {
    api::kinds::by_kind("v1", "Namespace").expect("namespaces are in the table of kinds")
}
