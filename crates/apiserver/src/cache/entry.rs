//! One version of one object as the cache holds it: bytes ready to send, and what selectors look at.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use api::{Interner, Kind, KindInfo, Object, Scope};
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde::Deserialize;
use store::Revision;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    /// The start of a watch event of this type, up to the object.
    pub(crate) const fn prefix(self) -> &'static [u8] {
        match self {
            Change::Added => br#"{"type":"ADDED","object":"#,
            Change::Modified => br#"{"type":"MODIFIED","object":"#,
            Change::Deleted => br#"{"type":"DELETED","object":"#,
        }
    }
}

/// The end of every watch event.
pub(crate) const FRAME_END: &[u8] = b"}\n";

type Labels = BTreeMap<String, String>;

/// The labels of all objects; most have the same as many others, and a map of two is most of a kilobyte.
static LABELS: LazyLock<Mutex<Interner<Labels>>> = LazyLock::new(Mutex::default);

/// What selectors look at.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Selectable {
    pub(crate) labels: Option<Arc<Labels>>,
    /// In the order of `KindInfo::selectable_fields`.
    pub(crate) fields: Box<[Box<str>]>,
}

impl Selectable {
    pub(crate) fn of(object: &dyn Object) -> Selectable {
        let fields = object.selectable_fields().into_iter().map(|f| f.into_owned().into_boxed_str()).collect();
        let labels = object.metadata().labels.as_ref().map(|labels| LABELS.lock().share(labels));
        Selectable { labels, fields }
    }
}

/// Which object of its name it is, and whether it is still to be.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    #[serde(default)]
    pub(crate) uid: String,
    pub(crate) deletion_timestamp: Option<Time>,
}

/// An object at a revision. The JSON is a slice of the watch frame it was first sent in.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) revision: Revision,
    pub(crate) create_revision: Revision,
    pub(crate) select: Arc<Selectable>,
    /// The change the frame tells.
    change: Change,
    frame: Bytes,
}

impl Entry {
    /// The object as JSON, with its resourceVersion.
    pub(crate) fn json(&self) -> &[u8] {
        &self.frame[self.change.prefix().len()..self.frame.len() - FRAME_END.len()]
    }

    /// The same, sharing the memory.
    pub(crate) fn json_bytes(&self) -> Bytes {
        self.frame.slice(self.change.prefix().len()..self.frame.len() - FRAME_END.len())
    }

    /// The watch event that tells `change`; shared when it is the one the entry was made for.
    pub(crate) fn frame(&self, change: Change) -> Bytes {
        if change == self.change {
            self.frame.clone()
        } else {
            [change.prefix(), self.json(), FRAME_END].concat().into()
        }
    }

    /// Read from the metadata alone, which stands first: whatever else the object has is not looked at.
    pub(crate) fn identity(&self, info: &KindInfo) -> Option<Identity> {
        let metadata = self.json().get(info.metadata_prefix().len() - 1..)?;
        serde_json::Deserializer::from_slice(metadata).into_iter().next()?.ok()
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        self.frame.len()
    }

    pub(crate) fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or("")
    }

    pub(crate) fn namespace(&self, info: &KindInfo) -> Option<&str> {
        match info.scope {
            Scope::Cluster => None,
            Scope::Namespaced => self.key.rsplit('/').nth(1),
        }
    }

    /// Decodes a stored value of `kind` and makes its frame.
    pub(crate) fn new(
        kind: &'static Kind,
        key: Arc<str>,
        value: &[u8],
        revisions: (Revision, Revision),
        change: Change,
    ) -> Result<Entry, api::decode::DecodeError> {
        let (plain, _) = api::apply::split(kind.info, value);
        let object = (kind.decode)(&plain)?.object;
        let select = Arc::new(Selectable::of(&*object));
        if value.starts_with(kind.info.metadata_prefix().as_bytes()) {
            return Ok(Entry::known(kind, key, value, revisions, change, select));
        }
        // Written by someone else in another key order: bring it into ours.
        Ok(Entry::known(kind, key, &object.encode(), revisions, change, select))
    }

    /// Makes the frame of a value, of which is known what selectors look at. Revisions are those of creation and of this
    /// version.
    pub(super) fn known(
        kind: &'static Kind,
        key: Arc<str>,
        value: &[u8],
        (create_revision, revision): (Revision, Revision),
        change: Change,
        select: Arc<Selectable>,
    ) -> Entry {
        let prefix = kind.info.metadata_prefix();
        let rest = value.strip_prefix(prefix.as_bytes()).unwrap_or(b"}}");
        let frame = frame(change, prefix.as_bytes(), rest, revision);
        Entry { key, revision, create_revision, select, change, frame }
    }

    /// The object as `kind`, which may be a view of the stored one, shows it.
    pub(crate) fn shown_as(self: &Arc<Self>, kind: &Kind) -> Arc<Entry> {
        let Some(json) = kind.show(self.json()) else { return self.clone() };
        let frame = [self.change.prefix(), &json, FRAME_END].concat().into();
        Arc::new(Entry {
            key: self.key.clone(),
            revision: self.revision,
            create_revision: self.create_revision,
            select: self.select.clone(),
            change: self.change,
            frame,
        })
    }

    /// This object's end: the last version, with the revision of the deletion.
    pub(crate) fn deleted(&self, kind: &'static Kind, revision: Revision) -> Entry {
        let prefix = kind.info.metadata_prefix();
        let rest = &self.json()[prefix.len()..];
        // Skip `"resourceVersion":"N"` and the comma, if more follows.
        let version = resource_version(self.revision);
        let rest = rest.strip_prefix(version.as_bytes()).unwrap_or(rest);
        let rest = rest.strip_prefix(b",").unwrap_or(rest);
        Entry {
            key: self.key.clone(),
            revision,
            create_revision: self.create_revision,
            select: self.select.clone(),
            change: Change::Deleted,
            frame: frame(Change::Deleted, prefix.as_bytes(), rest, revision),
        }
    }
}

fn resource_version(revision: Revision) -> String {
    format!(r#""resourceVersion":"{revision}""#)
}

/// `prefix` is everything up to the brace that opens metadata, `rest` what follows in an object without
/// resourceVersion.
fn frame(change: Change, prefix: &[u8], rest: &[u8], revision: Revision) -> Bytes {
    let version = resource_version(revision);
    let mut frame =
        Vec::with_capacity(change.prefix().len() + prefix.len() + version.len() + 1 + rest.len() + FRAME_END.len());
    frame.extend_from_slice(change.prefix());
    splice(&mut frame, prefix, rest, &version);
    frame.extend_from_slice(FRAME_END);
    frame.into()
}

fn splice(out: &mut Vec<u8>, prefix: &[u8], rest: &[u8], version: &str) {
    out.extend_from_slice(prefix);
    out.extend_from_slice(version.as_bytes());
    if !rest.starts_with(b"}") {
        out.push(b',');
    }
    out.extend_from_slice(rest);
}

/// An encoded object with its resourceVersion put in, as answers to writes carry it.
pub(crate) fn encode_with_revision(info: &KindInfo, value: &[u8], revision: Revision) -> Bytes {
    let prefix = info.metadata_prefix();
    let rest = value.strip_prefix(prefix.as_bytes()).unwrap_or(b"}}");
    let mut out = Vec::with_capacity(value.len() + 42);
    splice(&mut out, prefix.as_bytes(), rest, &resource_version(revision));
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"n","labels":{"x":"y"},"uid":"u"},"data":{"k":"v"}}"#;

    fn kind() -> &'static Kind {
        api::kinds::by_kind("v1", "ConfigMap").unwrap()
    }

    #[test]
    fn an_entry_is_its_value_with_the_resource_version() {
        let entry = Entry::new(kind(), "/registry/configmaps/n/a".into(), VALUE, (3, 7), Change::Added).unwrap();
        let json: serde_json::Value = serde_json::from_slice(entry.json()).unwrap();
        assert_eq!(json["metadata"]["resourceVersion"], "7");
        assert_eq!(json["data"]["k"], "v");
        assert_eq!((entry.name(), entry.namespace(kind().info)), ("a", Some("n")));
        let identity = entry.identity(kind().info).unwrap();
        assert_eq!((identity.uid.as_str(), identity.deletion_timestamp), ("u", None));
        assert!(entry.frame(Change::Added).ends_with(b"}}}\n"));
        assert!(entry.frame(Change::Modified).starts_with(br#"{"type":"MODIFIED","object":{"apiVersion":"v1""#));
    }

    #[test]
    fn a_deletion_carries_its_own_revision_once() {
        let entry = Entry::new(kind(), "/registry/configmaps/n/a".into(), VALUE, (3, 7), Change::Added).unwrap();
        let deleted = entry.deleted(kind(), 9);
        let text = String::from_utf8(deleted.frame(Change::Deleted).to_vec()).unwrap();
        assert!(text.contains(r#""resourceVersion":"9","#) && !text.contains(r#""resourceVersion":"7""#), "{text}");
    }

    #[test]
    fn values_in_another_key_order_are_brought_into_ours() {
        let value = br#"{"kind":"ConfigMap","metadata":{"name":"a"},"apiVersion":"v1"}"#;
        let entry = Entry::new(kind(), "/registry/configmaps/n/a".into(), value, (1, 1), Change::Added).unwrap();
        assert_eq!(
            std::str::from_utf8(entry.json()).unwrap(),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"1","name":"a"}}"#
        );
    }
}
