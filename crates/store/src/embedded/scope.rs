//! Which keys are meant: those that start with a text, or an interval as etcd speaks of it.

/// A part of the key space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Keys that start with this.
    Prefix(Box<str>),
    /// Keys from `from` on that sort before `to`; without it to the end. The bounds are bytes, which need not be text.
    Interval {
        /// The first key, where it is there.
        from: Box<[u8]>,
        /// The first key that is not meant.
        to: Option<Box<[u8]>>,
    },
}

impl Scope {
    /// Whether a key is meant.
    pub(crate) fn contains(&self, key: &str) -> bool {
        match self {
            Scope::Prefix(prefix) => key.starts_with(&**prefix),
            Scope::Interval { from, .. } => key.as_bytes() >= &**from && !self.is_past(key),
        }
    }

    /// A text that no key of the scope sorts before.
    pub(super) fn first(&self) -> &str {
        match self {
            Scope::Prefix(prefix) => prefix,
            Scope::Interval { from, .. } => from.utf8_chunks().next().map_or("", |chunk| chunk.valid()),
        }
    }

    /// Whether a key, and so every later one, sorts behind the scope. Asked of keys from [`Scope::first`] on.
    pub(super) fn is_past(&self, key: &str) -> bool {
        match self {
            Scope::Prefix(prefix) => !key.starts_with(&**prefix),
            Scope::Interval { to, .. } => to.as_ref().is_some_and(|to| key.as_bytes() >= &**to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_keys_from_its_first_to_before_its_last() {
        let interval = |from: &[u8], to: Option<&[u8]>| Scope::Interval { from: from.into(), to: to.map(Into::into) };
        let keys = ["a", "a/1", "b", "é", "ü"];
        for (what, scope, expected) in [
            ("two bounds", interval(b"a/", Some(b"b")), vec!["a/1"]),
            ("no end", interval(b"b", None), vec!["b", "é", "ü"]),
            ("all", interval(b"\0", None), keys.to_vec()),
            ("bounds within a character", interval(b"\xc3", Some(b"\xc3\xaa")), vec!["é"]),
            ("nothing", interval(b"b", Some(b"a")), vec![]),
            ("a prefix", Scope::Prefix("a".into()), vec!["a", "a/1"]),
        ] {
            let found: Vec<_> = keys.into_iter().filter(|key| scope.contains(key)).collect();
            assert_eq!(found, expected, "{what}");
            for key in found {
                assert!(scope.first() <= key && !scope.is_past(key), "{what}: {key}");
            }
        }
    }
}
