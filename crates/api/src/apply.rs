//! Server-side apply (KEP-555): who manages which field of an object, and what follows when one of them speaks.
//!
//! ```text
//!  old, new ──compare──▶ added, modified, removed ──▶ managers give up and take over ──▶ managedFields   (track)
//!  live, config ──merge──▶ prune what the manager no longer names ──▶ conflicts? ──▶ object, managedFields (apply)
//! ```
//!
//! After structured-merge-diff v6 (`merge/update.go`) and `k8s.io/apimachinery/pkg/util/managedfields`. Every write of an
//! object runs through [`Writer::track`], so it works on JSON text: what is equal is never parsed, and the list of
//! managers stays text beside the object (an empty text where there is none). How lists and maps merge is the table of
//! [`crate::merge_keys`].
//!
//! In reading order: `scan` (JSON, a level at a time), `path` and `set` (field paths and sets of them), `fields_v1`
//! (their JSON), `place` (the types), `compare`, `merge`, `managed` (the list of managers), `conflict`, `last_applied`,
//! `request` (what clients say about managers themselves).

mod compare;
mod conflict;
mod fields_v1;
mod last_applied;
mod managed;
mod merge;
mod path;
mod place;
mod request;
pub(crate) mod scan;
mod set;
mod splice;

use std::borrow::Cow;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::{KindInfo, Subresource};
use compare::{compare, fields_of};
pub use conflict::{Conflict, message};
pub use last_applied::LAST_APPLIED;
pub use managed::equal_but_times;
use managed::{Entry, Operation};
use path::PathElement;
use place::Place;
pub use request::{Given, MAX_MANAGER_LENGTH, given, manager_errors, manager_of_user_agent};
use set::Set;
pub use splice::{join, split};

/// The manager of what an object was before its first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager of a write whose client does not say who it is.
const UNKNOWN: &str = "unknown";

/// One writer and the part of an object it writes.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The kind of the object.
    pub info: &'static KindInfo,
    /// `fieldManager`, or the start of the user agent.
    pub manager: &'a str,
    /// The subresource written through.
    pub subresource: Option<Subresource>,
    /// When.
    pub now: Timestamp,
}

/// What an apply makes of an object.
#[derive(Debug)]
pub struct Applied {
    /// The object.
    pub object: Value,
    /// Its managers.
    pub managed: String,
}

/// What no one owns: the server decides it, or it names the object (`stripMetaManager`).
static NEVER_OWNED: LazyLock<Set<'static>> = LazyLock::new(|| {
    let leaf = || Set::here(true);
    let field = |name: &'static str| PathElement::Field(Cow::Borrowed(name));
    let mut metadata = leaf();
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        metadata.attach(field(name), leaf());
    }
    let mut set = Set::default();
    set.attach(field("apiVersion"), leaf());
    set.attach(field("kind"), leaf());
    set.attach(field("metadata"), metadata);
    set
});

impl Writer<'_> {
    /// Who manages what once `old` has become `new` by an update, where `managed` managed `old`. `old` is `None` at
    /// creation. Whatever differs is the writer's now. An object that nobody managed stays so until its first apply.
    pub fn track(&self, old: Option<&str>, new: &str, managed: &str) -> String {
        if old.is_some() && managed.is_empty() {
            return String::new();
        }
        let nothing = self.nothing();
        let diff = compare(Some(old.unwrap_or(&nothing)), Some(new), Place::root(self.info)).without(self.ignored());
        if diff.is_empty() {
            return managed.to_owned();
        }
        let version = self.info.api_version();
        let mut entries = managed::parse(managed);
        for entry in &mut entries {
            entry.subtract(&diff.removed);
            entry.subtract(&diff.added);
            entry.subtract(&diff.modified);
        }
        self.take_over(&mut entries, diff.written(), &version, self.name());
        managed::cap(&mut entries);
        managed::write(entries)
    }

    /// The writer manages `fields` now, besides what it managed before.
    fn take_over<'a>(&'a self, entries: &mut Vec<Entry<'a>>, mut fields: Set<'a>, version: &'a str, name: &'a str) {
        fields.subtract(&NEVER_OWNED);
        if fields.is_empty() {
            return;
        }
        let mut mine = Entry::new(name, Operation::Update, version, self.subresource_name());
        if let Some(place) = entries.iter().position(|e| e.is_same_manager(&mine)) {
            fields = std::mem::take(entries.swap_remove(place).set()).union(fields);
        }
        mine.time = Some(Cow::Owned(self.now.to_string()));
        entries.push(mine.with(fields));
    }

    /// Makes `live` what `config` says, and takes out what the writer said before and no longer does. `live` is `None` at
    /// creation. Without `force` nothing is taken from other managers.
    pub fn apply(
        &self,
        live: Option<&str>,
        config: &Value,
        managed: &str,
        force: bool,
    ) -> Result<Applied, Vec<Conflict>> {
        let outcome = self.apply_once(live, config, managed, force);
        let (Err(conflicts), true) = (&outcome, self.manager == last_applied::KUBECTL) else { return outcome };
        let tree: Value = live.and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default();
        let (Some(annotation), Some(live)) = (last_applied::annotation(&tree), live) else { return outcome };
        let allowed = last_applied::allowed(annotation, live, Place::root(self.info)).paths();
        let left: Vec<Conflict> = conflicts.iter().filter(|c| !allowed.contains(&c.field)).cloned().collect();
        if left.is_empty() { self.apply_once(Some(live), config, managed, true) } else { Err(left) }
    }

    fn apply_once(
        &self,
        live: Option<&str>,
        config: &Value,
        managed: &str,
        force: bool,
    ) -> Result<Applied, Vec<Conflict>> {
        let (place, version, config_text) = (Place::root(self.info), self.info.api_version(), config.to_string());
        let (mut entries, nothing) = (managed::parse(managed), self.nothing());
        if let (Some(live), true) = (live, entries.is_empty()) {
            let all = compare(Some(&nothing), Some(live), place).without(self.ignored());
            self.take_over(&mut entries, all.written(), &version, BEFORE_FIRST_APPLY);
        }
        let live_text = live.unwrap_or(&nothing);
        let live: Value = serde_json::from_str(live_text).unwrap_or_default();
        let mut mine = Entry::new(self.name(), Operation::Apply, &version, self.subresource_name());
        let last = entries.iter().position(|e| e.is_same_manager(&mine)).map(|place| entries.swap_remove(place));
        let mut fields = fields_of(&config_text, place);
        self.ignored().iter().for_each(|name| fields.remove_field(name));
        let mut object = merge::merge(live.clone(), config, place);
        if let Some(mut last) = last {
            object = prune(object, &fields, last.set(), &mut entries, place);
            // An empty list is nobody's, so pruning has taken it too.
            object = merge::merge(object, config, place);
        }
        let object_text = object.to_string();
        let diff = compare(Some(live_text), Some(&object_text), place).without(self.ignored());
        let (removed, written) = (diff.removed.clone(), diff.written());
        let conflicts = conflicts(&mut entries, &written);
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        for entry in &mut entries {
            entry.subtract(&written);
            entry.subtract(&removed);
        }
        fields.subtract(&NEVER_OWNED);
        mine.time = Some(Cow::Owned(self.now.to_string()));
        entries.push(mine.with(fields));
        let managed = managed::write(entries);
        if self.manager == last_applied::KUBECTL {
            last_applied::renew(&mut object, config);
        }
        Ok(Applied { object, managed })
    }

    /// What makes `config` no configuration of this kind, in upstream's words: another kind, managers of its own, list
    /// elements that cannot be told apart.
    pub fn config_error(&self, config: &Value) -> Option<String> {
        let text = |name: &str| config[name].as_str().unwrap_or("");
        let version = self.info.api_version();
        if (text("apiVersion"), text("kind")) != (version.as_str(), self.info.kind) {
            let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
            return Some(format!("invalid object type: {group}/{version}, Kind={}", text("kind")));
        }
        if !config["metadata"]["managedFields"].is_null() {
            return Some("metadata.managedFields must be nil".to_owned());
        }
        let ambiguity = merge::ambiguity(&config.to_string(), Place::root(self.info), "")?;
        Some(self.not_typed(config, &ambiguity))
    }

    /// The message for a configuration that does not fit the kind's schema.
    pub fn not_typed(&self, config: &Value, why: &str) -> String {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let name = [text(&config["metadata"]["namespace"]), text(&config["metadata"]["name"])].join("/");
        let (group, version, kind) = (self.info.group, self.info.version, self.info.kind);
        format!("failed to create typed patch object ({name}; {group}/{version}, Kind={kind}): {why}")
    }

    /// An object with nothing in it, as Go encodes it.
    fn nothing(&self) -> String {
        let nothing = crate::written::complete(self.info, Cow::Borrowed(b"{}"));
        String::from_utf8(nothing.into_owned()).unwrap_or_default()
    }

    /// The name written down for this writer.
    fn name(&self) -> &str {
        if self.manager.is_empty() { UNKNOWN } else { self.manager }
    }

    fn subresource_name(&self) -> &'static str {
        self.subresource.map_or("", Subresource::as_str)
    }

    /// The fields of the root this write has no say in, so that it neither owns nor takes them (`GetResetFields`).
    fn ignored(&self) -> &'static [&'static str] {
        match self.subresource {
            None | Some(Subresource::Finalize) => &["status"],
            Some(Subresource::Status | Subresource::Approval) => &["spec"],
            Some(_) => &[],
        }
    }
}

fn conflicts(entries: &mut [Entry<'_>], written: &Set<'_>) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|e| e.may_meet(written)) {
        let taken = entry.set().intersection(written).paths();
        let manager = entry.describe();
        conflicts.extend(taken.into_iter().map(|field| Conflict { manager: manager.clone(), field }));
    }
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    conflicts
}

/// Takes out of `merged` what its applier named last time (`last`), does not name now (`fields`) and nobody else manages.
fn prune(merged: Value, fields: &Set<'_>, last: &Set<'_>, others: &mut [Entry<'_>], place: Place) -> Value {
    let (last, merged_text) = (last.with_parents(), merged.to_string());
    let there = fields_of(&merged_text, place).with_parents();
    // Without anything the applier named ...
    let first = merge::remove(merged.clone(), &last, place).to_string();
    let mut kept = fields_of(&first, place).with_parents();
    // ... but with what is named by anyone now ...
    for entry in others {
        kept = kept.union(entry.set().with_parents());
    }
    kept = kept.union(fields.with_parents());
    let mut unwanted = there.clone();
    unwanted.subtract(&kept);
    let second = merge::remove(merged.clone(), &unwanted, place).to_string();
    // ... and with what never was the applier's.
    let mut gone = there;
    gone.subtract(&fields_of(&second, place).with_parents());
    merge::remove(merged, &gone.intersection(&last), place)
}

#[cfg(test)]
mod tests;
