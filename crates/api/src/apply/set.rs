//! A set of field paths (`fieldpath.Set` of structured-merge-diff): a tree with a mark on what is in the set.

use std::cmp::Ordering;

use super::path::PathElement;

/// A node of the tree, and the tree: whether the path to here is in the set, and what lies below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set<'a> {
    pub(super) member: bool,
    /// Sorted, none of them empty.
    children: Vec<(PathElement<'a>, Set<'a>)>,
}

impl<'a> Set<'a> {
    /// A set of nothing but the path to here, if `member`.
    pub(super) fn here(member: bool) -> Set<'a> {
        Set { member, children: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub(super) fn children(&self) -> &[(PathElement<'a>, Set<'a>)] {
        &self.children
    }

    pub(super) fn child(&self, element: &PathElement<'_>) -> Option<&Set<'a>> {
        let place = self.children.binary_search_by(|(e, _)| e.cmp(element)).ok()?;
        Some(&self.children[place].1)
    }

    /// Joins `child` to what is below `element`.
    pub(super) fn attach(&mut self, element: PathElement<'a>, child: Set<'a>) {
        if child.is_empty() {
            return;
        }
        // Nearly always the next in order.
        if self.children.last().is_none_or(|(last, _)| *last < element) {
            return self.children.push((element, child));
        }
        match self.children.binary_search_by(|(e, _)| e.cmp(&element)) {
            Ok(place) => {
                let before = std::mem::take(&mut self.children[place].1);
                self.children[place].1 = before.union(child);
            }
            Err(place) => self.children.insert(place, (element, child)),
        }
    }

    /// What is in either.
    pub(super) fn union(self, other: Set<'a>) -> Set<'a> {
        if self.children.is_empty() || other.children.is_empty() {
            let member = self.member || other.member;
            let children = if self.children.is_empty() { other.children } else { self.children };
            return Set { member, children };
        }
        let mut out = Set { member: self.member || other.member, children: Vec::with_capacity(self.children.len()) };
        let (mut left, mut right) = (self.children.into_iter().peekable(), other.children.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some((l, _)), Some((r, _))) => l.cmp(r),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return out,
            };
            match order {
                Ordering::Less => out.children.extend(left.next()),
                Ordering::Greater => out.children.extend(right.next()),
                Ordering::Equal => {
                    if let (Some((element, l)), Some((_, r))) = (left.next(), right.next()) {
                        out.children.push((element, l.union(r)));
                    }
                }
            }
        }
    }

    /// Takes out exactly the paths in `other`; what lies below them stays.
    pub(super) fn subtract(&mut self, other: &Set<'_>) {
        self.member &= !other.member;
        if other.children.is_empty() {
            return;
        }
        self.children.retain_mut(|(element, child)| {
            if let Some(other) = other.child(element) {
                child.subtract(other);
            }
            !child.is_empty()
        });
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &Set<'_>) -> Set<'a> {
        let both = |(element, child): &(PathElement<'a>, Set<'a>)| {
            let common = child.intersection(other.child(element)?);
            (!common.is_empty()).then(|| (element.clone(), common))
        };
        let children =
            if other.children.is_empty() { Vec::new() } else { self.children.iter().filter_map(both).collect() };
        Set { member: self.member && other.member, children }
    }

    /// Takes out a field of the root and everything below it.
    pub(super) fn remove_field(&mut self, name: &str) {
        self.children.retain(|(element, _)| !matches!(element, PathElement::Field(f) if f == name));
    }

    /// Every object on the way to something in the set is in the set as well (`EnsureNamedFieldsAreMembers`).
    pub(super) fn with_parents(&self) -> Set<'a> {
        let complete = |(element, child): &(PathElement<'a>, Set<'a>)| {
            let mut child = child.with_parents();
            child.member |= matches!(element, PathElement::Field(_));
            (element.clone(), child)
        };
        Set { member: self.member, children: self.children.iter().map(complete).collect() }
    }

    /// Every path in the set, as messages name it: of each level first what is in the set, then what lies below
    /// (`Set.Iterate`).
    pub(super) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, path: &str, out: &mut Vec<String>) {
        let here = self.children.iter().map(|(element, child)| (format!("{path}{element}"), child));
        let here: Vec<_> = here.collect();
        out.extend(here.iter().filter(|(_, child)| child.member).map(|(path, _)| path.clone()));
        here.iter().for_each(|(path, child)| child.collect(path, out));
    }
}
