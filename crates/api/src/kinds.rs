//! The table of kinds: everything the API serves, as rows.
//!
//! Discovery, routing, Table output, short names, selectable fields and RBAC names are all read from here. A kind is a
//! row of [`kinds`] and one file below `kinds/` that says what is particular to it.

mod certificate_signing_request;
mod component_status;
mod config_map;
mod endpoint_slice;
mod endpoints;
mod event;
mod event_v1;
mod lease;
mod limit_range;
pub mod metrics;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_template;
mod printers;
mod priority_class;
pub mod rbac;
mod replication_controller;
mod resource_quota;
mod reviews;
mod rules;
mod secret;
mod service;
mod service_account;
mod subresource;
mod verbs;
mod view;
mod volume_sources;

use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::certificates::v1 as certificates;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::api::rbac::v1 as rbac_v1;
use k8s_openapi::api::scheduling::v1 as scheduling;

use crate::decode::{DecodeError, Decoded};

pub use subresource::{Subresource, SubresourceInfo};
pub use verbs::Verb;
pub use view::View;

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Named once in the cluster.
    Cluster,
    /// Named once in each namespace.
    Namespaced,
}

/// A column of the server-side Table (`meta.k8s.io/v1`).
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading in mixed case; clients print it in capitals.
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub column_type: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// What the column says.
    pub description: &'static str,
    /// 0 is always shown, greater ones with `-o wide`.
    pub priority: i32,
}

/// A string column that is always shown.
pub const fn column(name: &'static str, column_type: &'static str, description: &'static str) -> Column {
    Column { name, column_type, format: "", description, priority: 0 }
}

/// A column shown with `-o wide`.
pub const fn wide(name: &'static str, column_type: &'static str, description: &'static str) -> Column {
    Column { name, column_type, format: "", description, priority: 1 }
}

/// The `Name` column every table starts with.
pub const NAME: Column =
    Column { name: "Name", column_type: "string", format: "name", description: "Name of the object", priority: 0 };

/// The `Age` column.
pub const AGE: Column = column("Age", "string", "Time since the object was created");

/// The `Created At` column of kinds that have no table of their own.
pub const CREATED_AT: Column = column("Created At", "date", "When the object was created");

/// Names, scope, verbs, subresources, columns and selectable fields of a kind.
#[derive(Debug)]
pub struct KindInfo {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version in the group, e.g. `v1`.
    pub version: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// `pods`: the resource name in paths.
    pub plural: &'static str,
    /// `pod`.
    pub singular: &'static str,
    /// `po`.
    pub short_names: &'static [&'static str],
    /// `all` for kinds that `kubectl get all` shows.
    pub categories: &'static [&'static str],
    /// Cluster or namespaced.
    pub scope: Scope,
    /// What can be done with objects of the kind, in alphabetical order; other methods are answered with 405.
    pub verbs: &'static [Verb],
    /// Served paths below an object.
    pub subresources: &'static [Subresource],
    /// Columns of the Table; the same number as [`crate::Resource::cells`] returns.
    pub columns: &'static [Column],
    /// Field selectors besides `metadata.name` and `metadata.namespace`, e.g. `spec.nodeName`.
    pub selectable_fields: &'static [&'static str],
    /// The rule for `metadata.name`.
    pub name_rule: crate::names::NameRule,
}

impl KindInfo {
    /// `v1` or `discovery.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `endpointslices.discovery.k8s.io`, as error messages name a resource.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether the kind serves `subresource`.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Whether the kind does `verb`.
    pub fn can(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects of the kind are kept. All that are can be watched; the others are virtual: questions that are
    /// answered and forgotten, or views made up when someone looks.
    pub fn is_stored(&self) -> bool {
        self.can(Verb::Watch)
    }

    /// The prefix of all the kind's keys in the store: `/registry/pods/`.
    pub fn registry_prefix(&self) -> String {
        format!("/registry/{}/", self.plural)
    }

    /// The key of one object: `/registry/pods/default/web` or `/registry/nodes/box1`.
    pub fn registry_key(&self, namespace: Option<&str>, name: &str) -> String {
        match namespace {
            Some(namespace) => format!("/registry/{}/{namespace}/{name}", self.plural),
            None => format!("/registry/{}/{name}", self.plural),
        }
    }

    /// The bytes every encoded object of this kind starts with, up to and including the brace that opens metadata.
    pub fn metadata_prefix(&self) -> String {
        format!(r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"#, self.api_version(), self.kind)
    }
}

/// A row: what the kind is called and how its bytes become an object.
///
/// What it does are closures, so that a row may also be made while the server runs, from a schema that came in as data.
pub struct Kind {
    /// Names and shape.
    pub info: &'static KindInfo,
    /// Decodes JSON of this kind, and says which fields it did not know (see [`crate::decode`]).
    pub decode: &'static Decode,
    /// A reference to the JSON schema of this kind, which the generator keeps with all it refers to.
    pub schema: &'static Schema,
    /// See [`Resource::MAKES_UP_NAMES`](crate::Resource::MAKES_UP_NAMES).
    pub makes_up_names: bool,
    /// See [`Resource::stays`](crate::Resource::stays).
    pub stays: fn(&str) -> Option<&'static str>,
    /// For a kind that shows another one's objects in other words: how it does.
    pub view: Option<&'static View>,
}

/// Decodes JSON of a kind.
pub type Decode = dyn Fn(&[u8]) -> Result<Decoded, DecodeError> + Sync;
/// Refers to the schema of a kind.
pub type Schema = dyn Fn(&mut schemars::SchemaGenerator) -> schemars::Schema + Sync;

impl Kind {
    /// A stored object as its type, by the kind's one decoder: what serde makes for a type is large, and would be
    /// compiled again wherever the type is named. `None` if the bytes are no such object, or `T` is another kind's type.
    pub fn typed<T: Default + 'static>(&self, json: &[u8]) -> Option<T> {
        let mut object = (self.decode)(json).ok()?.object;
        object.as_any_mut().downcast_mut().map(std::mem::take)
    }
}

/// Every kind the API serves, in the order discovery lists them.
///
/// All that goes through the kinds asks here each time, and keeps none but those it works for: what a kind that is added
/// while the server runs has to reach is this, the watch cache and the memory of the OpenAPI documents.
pub fn kinds() -> impl DoubleEndedIterator<Item = &'static Kind> + ExactSizeIterator + Clone {
    BUILT_IN.iter()
}

/// The rows that are part of the program.
static BUILT_IN: &[Kind] = &[
    Kind::of::<core::Binding>(),
    Kind::of::<core::ComponentStatus>(),
    Kind::of::<core::ConfigMap>(),
    Kind::of::<core::Endpoints>(),
    Kind::of::<core::Event>(),
    Kind::of::<core::LimitRange>(),
    Kind::of::<core::Namespace>(),
    Kind::of::<core::Node>(),
    Kind::of::<core::PersistentVolume>(),
    Kind::of::<core::PersistentVolumeClaim>(),
    Kind::of::<core::Pod>(),
    Kind::of::<core::PodTemplate>(),
    Kind::of::<core::ReplicationController>(),
    Kind::of::<core::ResourceQuota>(),
    Kind::of::<core::Secret>(),
    Kind::of::<core::Service>(),
    Kind::of::<core::ServiceAccount>(),
    Kind::of::<authentication::SelfSubjectReview>(),
    Kind::of::<authentication::TokenReview>(),
    Kind::of::<authorization::LocalSubjectAccessReview>(),
    Kind::of::<authorization::SelfSubjectAccessReview>(),
    Kind::of::<authorization::SelfSubjectRulesReview>(),
    Kind::of::<authorization::SubjectAccessReview>(),
    Kind::of::<certificates::CertificateSigningRequest>(),
    Kind::of::<coordination::Lease>(),
    Kind::of::<discovery::EndpointSlice>(),
    Kind::viewing::<events::Event>(),
    Kind::of::<metrics::NodeMetrics>(),
    Kind::of::<metrics::PodMetrics>(),
    Kind::of::<rbac_v1::ClusterRole>(),
    Kind::of::<rbac_v1::ClusterRoleBinding>(),
    Kind::of::<rbac_v1::Role>(),
    Kind::of::<rbac_v1::RoleBinding>(),
    Kind::of::<scheduling::PriorityClass>(),
];

/// The row for a resource path: `("", "v1", "pods")`.
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    kinds().find(|k| k.info.plural == plural && k.info.group == group && k.info.version == version)
}

/// The row for `apiVersion` and `kind` as they stand in an object.
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    kinds().find(|k| k.info.kind == kind && k.info.group == group && k.info.version == version)
}

#[cfg(test)]
mod tests;
