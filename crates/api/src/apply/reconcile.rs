//! Fields written down as one value where the object has many now, or the other way (`typed/reconcile_schema.go` of
//! structured-merge-diff).
//!
//! Meant for types that became granular or atomic with a new version. It also meets everyone whose fields of a map have all
//! been taken by others: what is left is the map itself, which reads as the whole of it, so that at the next write he
//! manages what is in it again.

use std::borrow::Cow;

use super::compare::{fields_of, named};
use super::path::PathElement;
use super::place::Place;
use super::scan::{self, Level, level};
use super::set::Set;

/// Whether fields, still as text, say something else than what is in `live` would be called. Read without building a set:
/// nearly always they do not.
pub(super) fn is_stale(fields: &str, live: &Level<'_>, place: Place) -> bool {
    is_stale_in(&scan::fields(fields), live, place)
}

fn is_stale_in(fields: &[(Cow<'_, str>, &str)], live: &Level<'_>, place: Place) -> bool {
    fields.iter().filter(|(name, _)| name != ".").any(|(name, below)| {
        let Some(element) = PathElement::parse(name.clone()) else { return false };
        let (live, place) = step(live, &element, place);
        let below = scan::fields(below);
        match change(below.iter().all(|(name, _)| name == "."), live.map(level), place) {
            Change::Whole | Change::Parts => true,
            Change::None => false,
            Change::Below(live) => is_stale_in(&below, &live, place),
        }
    })
}

/// Calls the fields in `set` as they are called in `live`, the value at `place`.
pub(super) fn reconcile<'a>(set: &mut Set<'a>, live: &Level<'a>, place: Place) {
    for (element, child) in set.children_mut() {
        let (live, place) = step(live, element, place);
        match change(child.children().is_empty(), live.map(level), place) {
            Change::Whole => *child = Set::here(true),
            Change::Parts => *child = fields_of(live.unwrap_or_default(), place).union(Set::here(true)),
            Change::None => {}
            Change::Below(live) => reconcile(child, &live, place),
        }
    }
}

/// What has to happen to fields at a place.
enum Change<'a> {
    None,
    /// They are one value now.
    Whole,
    /// They are many now.
    Parts,
    /// Perhaps something, further below this value.
    Below(Level<'a>),
}

/// `is_whole`: whether nothing below the place is named.
fn change<'a>(is_whole: bool, live: Option<Level<'a>>, place: Place) -> Change<'a> {
    let (is_atomic, is_empty) = match &live {
        Some(Level::Map(fields)) => (place.is_atomic_map(), fields.is_empty()),
        Some(Level::List(items)) => (place.is_atomic_list(), items.is_empty()),
        _ => (place.is_atomic_map(), true),
    };
    match (is_whole, is_atomic, live) {
        (false, true, _) => Change::Whole,
        (true, false, _) if !is_empty => Change::Parts,
        (false, false, Some(live)) => Change::Below(live),
        _ => Change::None,
    }
}

/// The value of `element` in `live`, if it is there, and its place.
fn step<'a>(live: &Level<'a>, element: &PathElement<'_>, place: Place) -> (Option<&'a str>, Place) {
    match (live, element) {
        (Level::Map(fields), PathElement::Field(name)) => {
            let found = fields.binary_search_by(|(field, _)| field.cmp(name)).ok();
            (found.map(|at| fields[at].1), place.field(name))
        }
        (Level::List(items), _) => {
            let items = named(items.clone(), place);
            (items.into_iter().find(|(name, _)| name == element).map(|(_, item)| item), place.element())
        }
        (_, PathElement::Field(name)) => (None, place.field(name)),
        _ => (None, place.element()),
    }
}
