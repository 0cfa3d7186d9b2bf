//! Who writes, for `metadata.managedFields`.

use api::apply::{Given, Writer, given, manager_of_user_agent};
use api::{KindInfo, Object, Subresource};
use http::HeaderMap;
use http::header::USER_AGENT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use crate::cache::encode_with_revision;
use crate::metadata::now;
use crate::query::Query;
use crate::storage::Current;

/// The manager of what the server itself writes.
const SERVER: &str = "kube-apiserver";

/// How a write changes the list of managers.
#[derive(Clone, Debug)]
pub(crate) enum Tracking {
    /// By comparing the versions: this manager made the difference.
    Update(String),
    /// An apply has worked it out.
    Applied(String),
}

impl Tracking {
    /// What the server does by itself.
    pub(crate) fn server() -> Tracking {
        Tracking::Update(SERVER.to_owned())
    }

    /// What a request does (`managerOrUserAgent`).
    pub(crate) fn of(query: &Query, headers: &HeaderMap) -> Tracking {
        let agent = || headers.get(USER_AGENT).map_or("", |v| v.to_str().unwrap_or(""));
        Tracking::Update(query.get("fieldManager").map_or_else(|| manager_of_user_agent(agent()), ToOwned::to_owned))
    }

    /// The managers of a new object. Takes out of it what the client says about them.
    pub(crate) fn created(&self, object: &mut dyn Object) -> String {
        let said = object.metadata_mut().managed_fields.take();
        let manager = match self {
            Tracking::Applied(managed) => return managed.clone(),
            Tracking::Update(manager) => manager,
        };
        let managed = before(object.info(), said, "");
        let new = object.encode();
        let new = std::str::from_utf8(&new).unwrap_or("{}");
        writer(object.info(), manager, None).track(None, new, &managed)
    }

    /// The managers once `current` has become `object`, as its client wants it.
    pub(crate) fn updated(
        &self,
        current: &Current,
        object: &dyn Object,
        said: Option<Vec<ManagedFieldsEntry>>,
        subresource: Option<Subresource>,
    ) -> String {
        let manager = match self {
            Tracking::Applied(managed) => return managed.clone(),
            Tracking::Update(manager) => manager,
        };
        let said = said.filter(|_| subresource.is_none());
        let info = object.info();
        let managed = before(info, said, &current.managed);
        let new = encode_with_revision(info, &object.encode(), current.revision);
        let (old, new) = (std::str::from_utf8(&current.plain), std::str::from_utf8(&new));
        let (Ok(old), Ok(new)) = (old, new) else { return managed };
        writer(info, manager, subresource).track(Some(old), new, &managed)
    }
}

/// One writer, now.
pub(crate) fn writer<'a>(info: &'static KindInfo, manager: &'a str, subresource: Option<Subresource>) -> Writer<'a> {
    Writer { info, manager, subresource, now: now() }
}

/// The list a write starts from: the one that is there, unless the client brings another. Entries at a version that there is
/// none of are dropped (`IsMissingVersionError`).
fn before(info: &KindInfo, said: Option<Vec<ManagedFieldsEntry>>, present: &str) -> String {
    let said = said.map(|mut entries| {
        entries.retain(|entry| entry.api_version.as_deref().is_none_or(|version| is_known(info, version)));
        entries
    });
    match given(said.as_deref()) {
        Given::Nothing => present.to_owned(),
        Given::Reset => String::new(),
        Given::List(list) => list,
    }
}

/// Whether upstream knows objects of the kind in this version, served or not.
fn is_known(info: &KindInfo, api_version: &str) -> bool {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    // Events have two groups.
    let is_group = group == info.group || (info.plural == "events" && group == "events.k8s.io");
    is_group && (version == info.version || (!group.is_empty() && version == "v1beta1"))
}
