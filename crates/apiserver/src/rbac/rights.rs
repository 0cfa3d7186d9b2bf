//! Who has which rights: roles and bindings joined, found by user, group and namespace.
//!
//! Compare `pkg/registry/rbac/validation/rule.go` and `plugin/pkg/auth/authorizer/rbac` upstream.

use std::collections::HashMap;
use std::sync::Arc;

use api::rbac::{allows, allows_path};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use store::Revision;

use super::view::Sources;
use crate::authz::{Attributes, Target};
use crate::cache::{Entry, KindCache};
use crate::user::User;

/// The prefix of a service account's user name, which goes on with namespace and name.
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// What a binding gives to one of its subjects.
pub(crate) struct Grant {
    /// `ClusterRoleBinding "b" of ClusterRole "r" to Group "g"`.
    pub(crate) description: String,
    /// The rules of its role, or why there are none.
    rules: Result<Arc<[PolicyRule]>, String>,
}

impl Grant {
    pub(crate) fn rules(&self) -> &[PolicyRule] {
        self.rules.as_deref().unwrap_or_default()
    }
}

/// All grants of one scope, by who has them.
#[derive(Default)]
struct Grants {
    users: HashMap<Box<str>, Vec<Arc<Grant>>>,
    groups: HashMap<Box<str>, Vec<Arc<Grant>>>,
}

impl Grants {
    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Arc<Grant>> {
        let own = self.users.get(&*user.name);
        let groups = user.groups.iter().filter_map(|group| self.groups.get(&**group));
        own.into_iter().chain(groups).flatten()
    }
}

/// A binding, decoded.
struct Binding {
    kind: &'static str,
    name: String,
    namespace: Option<String>,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Decoded objects by key, each with the revision it was decoded from.
type Decoded<T> = HashMap<Arc<str>, (Revision, T)>;

/// The rights of everybody.
#[derive(Default)]
pub(crate) struct Rights {
    everywhere: Grants,
    by_namespace: HashMap<Box<str>, Grants>,
    roles: Decoded<Arc<[PolicyRule]>>,
    bindings: Decoded<Arc<Binding>>,
}

impl Rights {
    /// The rights that the objects of `sources` give. What is here already is not decoded again.
    pub(super) fn renewed(&self, sources: &Sources) -> Rights {
        let [cluster_roles, roles, cluster_bindings, bindings] = sources;
        let mut new = Rights::default();
        for cache in [cluster_roles, roles] {
            decode_all(cache, &self.roles, &mut new.roles, decode_role);
        }
        let mut in_order = Vec::new();
        for cache in [cluster_bindings, bindings] {
            in_order.extend(decode_all(cache, &self.bindings, &mut new.bindings, decode_binding));
        }
        for binding in in_order {
            new.grant(&binding, [cluster_roles, roles]);
        }
        new
    }

    fn grant(&mut self, binding: &Binding, [cluster_roles, roles]: [&Arc<KindCache>; 2]) {
        let namespace = binding.namespace.as_deref();
        let (cache, of) = if binding.role.kind == "Role" { (roles, namespace) } else { (cluster_roles, None) };
        let key = cache.kind.info.registry_key(of, &binding.role.name);
        let missing = || {
            let (kind, name) = (binding.role.kind.to_lowercase(), &binding.role.name);
            format!("{kind}.{} {name:?} not found", api::kinds::rbac::GROUP)
        };
        let rules = self.roles.get(&*key).map(|(_, rules)| rules.clone()).ok_or_else(missing);
        let grants = match namespace {
            None => &mut self.everywhere,
            Some(namespace) => self.by_namespace.entry(namespace.into()).or_default(),
        };
        for subject in &binding.subjects {
            let Some((is_user, name)) = identity(subject, namespace) else { continue };
            let of = if is_user { &mut grants.users } else { &mut grants.groups };
            let grant = Grant { description: describe(binding, subject), rules: rules.clone() };
            of.entry(name.into()).or_default().push(Arc::new(grant));
        }
    }

    /// What `user` was given, everywhere and in `namespace` (empty: none).
    pub(crate) fn of<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Arc<Grant>> {
        let there = self.by_namespace.get(namespace).filter(|_| !namespace.is_empty());
        self.everywhere.of(user).chain(there.into_iter().flat_map(|grants| grants.of(user)))
    }

    /// The grant that allows it, if one does.
    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> Option<Arc<Grant>> {
        let verb = attributes.verb;
        let mut grants = self.of(attributes.user, namespace(attributes));
        let found = match &attributes.target {
            Target::Resource(target) => {
                let asked = target.asked(verb);
                grants.find(|grant| grant.rules().iter().any(|rule| allows(rule, &asked)))
            }
            Target::Path(path) => grants.find(|grant| grant.rules().iter().any(|r| allows_path(r, verb, path))),
        };
        found.cloned()
    }

    /// Which of the rules that might have allowed it could not be read; empty when all could.
    pub(crate) fn problems(&self, attributes: &Attributes<'_>) -> String {
        let grants = self.of(attributes.user, namespace(attributes));
        let mut problems: Vec<&str> = grants.filter_map(|g| g.rules.as_ref().err().map(String::as_str)).collect();
        problems.dedup();
        match problems.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        }
    }

    /// The rules of a role, as a binding in `namespace` names it.
    pub(crate) fn rules_of(&self, role: &RoleRef, namespace: Option<&str>) -> Option<&[PolicyRule]> {
        let (plural, of) = if role.kind == "Role" { ("roles", namespace) } else { ("clusterroles", None) };
        let kind = api::kinds::by_resource(api::kinds::rbac::GROUP, "v1", plural)?;
        self.roles.get(&*kind.info.registry_key(of, &role.name)).map(|(_, rules)| &**rules)
    }
}

fn namespace<'a>(attributes: &Attributes<'a>) -> &'a str {
    match &attributes.target {
        Target::Resource(target) => target.namespace,
        Target::Path(_) => "",
    }
}

/// Decodes what `known` does not have, keeps what it has, and gives all in order.
fn decode_all<T: Clone>(
    cache: &KindCache,
    known: &Decoded<T>,
    into: &mut Decoded<T>,
    decode: fn(&KindCache, &Entry) -> Option<T>,
) -> Vec<T> {
    let mut in_order = Vec::new();
    for (key, entry) in cache.entries() {
        let same = known.get(&key).filter(|(revision, _)| *revision == entry.revision).map(|(_, t)| t.clone());
        let Some(decoded) = same.or_else(|| decode(cache, &entry)) else { continue };
        into.insert(key, (entry.revision, decoded.clone()));
        in_order.push(decoded);
    }
    in_order
}

fn decode_role(cache: &KindCache, entry: &Entry) -> Option<Arc<[PolicyRule]>> {
    let object = (cache.kind.decode)(entry.json()).ok()?.object;
    let any = object.as_any();
    let of_role = any.downcast_ref::<Role>().map(|r| r.rules.clone());
    let rules = of_role.or_else(|| any.downcast_ref::<ClusterRole>().map(|r| r.rules.clone()))?;
    Some(rules.unwrap_or_default().into())
}

fn decode_binding(cache: &KindCache, entry: &Entry) -> Option<Arc<Binding>> {
    let object = (cache.kind.decode)(entry.json()).ok()?.object;
    let metadata = object.metadata();
    let (name, namespace) = (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone());
    let any = object.as_any();
    let (role, subjects) = match (any.downcast_ref::<RoleBinding>(), any.downcast_ref::<ClusterRoleBinding>()) {
        (Some(binding), _) => (binding.role_ref.clone(), binding.subjects.clone()),
        (None, Some(binding)) => (binding.role_ref.clone(), binding.subjects.clone()),
        (None, None) => return None,
    };
    let subjects = subjects.unwrap_or_default();
    Some(Arc::new(Binding { kind: cache.kind.info.kind, name, namespace, role, subjects }))
}

/// The user (true) or group (false) that a subject of a binding in `namespace` is.
fn identity(subject: &Subject, namespace: Option<&str>) -> Option<(bool, String)> {
    match &*subject.kind {
        "User" => Some((true, subject.name.clone())),
        "Group" => Some((false, subject.name.clone())),
        "ServiceAccount" => {
            let of = subject.namespace.as_deref().filter(|n| !n.is_empty()).or(namespace)?;
            Some((true, format!("{SERVICE_ACCOUNT_PREFIX}{of}:{}", subject.name)))
        }
        _ => None,
    }
}

/// A grant in upstream's words.
fn describe(binding: &Binding, subject: &Subject) -> String {
    let name = match &binding.namespace {
        None => binding.name.clone(),
        Some(namespace) => format!("{}/{namespace}", binding.name),
    };
    let to = match (&*subject.kind, subject.namespace.as_deref().or(binding.namespace.as_deref())) {
        ("ServiceAccount", Some(namespace)) => format!("{}/{namespace}", subject.name),
        _ => subject.name.clone(),
    };
    let role = &binding.role;
    format!("{} {name:?} of {} {:?} to {} {to:?}", binding.kind, role.kind, role.name, subject.kind)
}
