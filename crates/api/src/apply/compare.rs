//! What changed between two versions of an object, and which fields one version has (`typed/compare.go` and
//! `typed/tofieldset.go` of structured-merge-diff).

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::path::PathElement;
use super::place::Place;
use super::scan::{Level, level};
use super::set::Set;

/// The fields in which two versions differ.
#[derive(Debug, Default)]
pub(super) struct Diff<'a> {
    pub(super) added: Set<'a>,
    pub(super) modified: Set<'a>,
    pub(super) removed: Set<'a>,
}

impl<'a> Diff<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Forgets about these fields of the root.
    pub(super) fn without(mut self, fields: &[&str]) -> Diff<'a> {
        for field in fields {
            self.added.remove_field(field);
            self.modified.remove_field(field);
            self.removed.remove_field(field);
        }
        self
    }

    /// What is new or different.
    pub(super) fn written(self) -> Set<'a> {
        self.added.union(self.modified)
    }

    fn attach(&mut self, element: PathElement<'a>, child: Diff<'a>) {
        if !child.removed.is_empty() {
            self.removed.attach(element.clone(), child.removed);
        }
        if !child.modified.is_empty() {
            self.modified.attach(element.clone(), child.modified);
        }
        self.added.attach(element, child.added);
    }

    /// The difference of a value that is looked at as a whole.
    fn leaf(old: Option<&str>, new: Option<&str>) -> Diff<'a> {
        match (old, new) {
            (None, None) => Diff::default(),
            (None, Some(_)) => Diff { added: Set::here(true), ..Diff::default() },
            (Some(_), None) => Diff { removed: Set::here(true), ..Diff::default() },
            (Some(old), Some(new)) => Diff { modified: Set::here(!equal(old, new)), ..Diff::default() },
        }
    }
}

/// Whether two JSON texts mean the same.
pub(super) fn equal(old: &str, new: &str) -> bool {
    let parse = |text| serde_json::from_str::<Value>(text).ok();
    old == new || (old.len() > 1 && matches!((parse(old), parse(new)), (Some(old), Some(new)) if old == new))
}

/// What makes `new` of `old`; `None` for what is not there.
pub(super) fn compare<'a>(old: Option<&'a str>, new: Option<&'a str>, place: Place) -> Diff<'a> {
    if old == new {
        return Diff::default();
    }
    let mut diff = match both(old.map(level), new.map(level)) {
        Both::Maps(left, right) if !(place.is_atomic_map() || left.is_empty() && right.is_empty()) => {
            maps(left, right, place)
        }
        Both::Lists(left, right) if !(place.is_atomic_list() || left.is_empty() && right.is_empty()) => {
            lists(left, right, place)
        }
        _ => return Diff::leaf(old, new),
    };
    diff.added.member |= old.is_none();
    diff.removed.member |= new.is_none();
    diff
}

/// Two values of one shape. What is not there has no fields and no elements.
enum Both<'a> {
    Maps(Fields<'a>, Fields<'a>),
    Lists(Vec<&'a str>, Vec<&'a str>),
    Other,
}

fn both<'a>(old: Option<Level<'a>>, new: Option<Level<'a>>) -> Both<'a> {
    match (old.unwrap_or(Level::Null), new.unwrap_or(Level::Null)) {
        (Level::Map(old), Level::Map(new)) => Both::Maps(old, new),
        (Level::Map(old), Level::Null) => Both::Maps(old, Vec::new()),
        (Level::Null, Level::Map(new)) => Both::Maps(Vec::new(), new),
        (Level::List(old), Level::List(new)) => Both::Lists(old, new),
        (Level::List(old), Level::Null) => Both::Lists(old, Vec::new()),
        (Level::Null, Level::List(new)) => Both::Lists(Vec::new(), new),
        _ => Both::Other,
    }
}

type Fields<'a> = Vec<(Cow<'a, str>, &'a str)>;

fn maps<'a>(old: Fields<'a>, new: Fields<'a>, place: Place) -> Diff<'a> {
    let mut diff = Diff::default();
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((l, _)), Some((r, _))) => l.cmp(r),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return diff,
        };
        let left = if order.is_le() { old.next() } else { None };
        let right = if order.is_ge() { new.next() } else { None };
        let values = (left.as_ref().map(|(_, v)| *v), right.as_ref().map(|(_, v)| *v));
        let Some((name, _)) = right.or(left) else { return diff };
        let below = place.field(&name);
        diff.attach(PathElement::Field(name), compare(values.0, values.1, below));
    }
}

fn lists<'a>(old: Vec<&'a str>, new: Vec<&'a str>, place: Place) -> Diff<'a> {
    let mut diff = Diff::default();
    let (old, new) = (named(old, place), named(new, place));
    let (mut old, mut new) = (old.as_slice(), new.as_slice());
    loop {
        let element = match (old.first(), new.first()) {
            (Some((l, _)), Some((r, _))) => l.min(r).clone(),
            (Some((e, _)), None) | (None, Some((e, _))) => e.clone(),
            (None, None) => return diff,
        };
        let (left, right) = (take_all(&mut old, &element), take_all(&mut new, &element));
        let child = match (left, right) {
            ([] | [_], [] | [_]) => compare(left.first().map(|i| i.1), right.first().map(|i| i.1), place.element()),
            // Elements of one name are looked at as a whole.
            _ if left.iter().map(|i| i.1).eq(right.iter().map(|i| i.1)) => Diff::default(),
            _ => Diff::leaf(left.first().map(|_| "1"), right.first().map(|_| "2")),
        };
        diff.attach(element, child);
    }
}

type Named<'a> = (PathElement<'a>, &'a str);

/// Elements under their names, sorted.
fn named<'a>(items: Vec<&'a str>, place: Place) -> Vec<Named<'a>> {
    let named = items.into_iter().map(|item| (place.element_of(item), item));
    let mut named: Vec<_> = named.collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

fn take_all<'s, 'a>(items: &mut &'s [Named<'a>], element: &PathElement<'a>) -> &'s [Named<'a>] {
    let count = items.iter().take_while(|(e, _)| e == element).count();
    let (taken, rest) = items.split_at(count);
    *items = rest;
    taken
}

/// The fields an object has.
pub(super) fn fields_of(json: &str, place: Place) -> Set<'_> {
    let mut set = Set::default();
    match level(json) {
        Level::Map(fields) if !place.is_atomic_map() => {
            for (name, value) in fields {
                let mut child = fields_of(value, place.field(&name));
                child.member |= matches!(level(value), Level::Null) || value == "{}";
                set.attach(PathElement::Field(name), child);
            }
        }
        Level::List(items) if !place.is_atomic_list() => {
            let named = named(items, place);
            let mut rest = named.as_slice();
            while let Some((element, _)) = rest.first() {
                let same = take_all(&mut rest, element);
                let mut child = match same {
                    [(_, one)] => fields_of(one, place.element()),
                    _ => Set::default(),
                };
                child.member = true;
                set.attach(element.clone(), child);
            }
        }
        _ => set.member = true,
    }
    set
}
