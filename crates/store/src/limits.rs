//! What a transaction may look like, checked alike in front of both backends.

use std::collections::HashSet;

use crate::{Action, Error, MAX_TXN_BYTES, MAX_TXN_OPS, MAX_VALUE_BYTES, Op};

/// Refuses a transaction the store does not take, before anything is asked of a backend.
pub(crate) fn check(ops: &[Op]) -> Result<(), Error> {
    if ops.len() > MAX_TXN_OPS {
        return Err(Error::TooLarge(format!("{} operations in one transaction, at most {MAX_TXN_OPS}", ops.len())));
    }
    let mut seen = HashSet::with_capacity(ops.len());
    for op in ops {
        if op.key.is_empty() {
            return Err(Error::TooLarge("a key must not be empty".to_owned()));
        }
        if !seen.insert(op.key.as_str()) {
            return Err(Error::TooLarge(format!("key {} occurs twice in one transaction", op.key)));
        }
        if value_bytes(op) > MAX_VALUE_BYTES {
            let size = value_bytes(op);
            return Err(Error::TooLarge(format!("value of {} has {size} bytes, at most {MAX_VALUE_BYTES}", op.key)));
        }
    }
    match bytes(ops) {
        size if size > MAX_TXN_BYTES => {
            Err(Error::TooLarge(format!("transaction has {size} bytes, at most {MAX_TXN_BYTES}")))
        }
        _ => Ok(()),
    }
}

/// Bytes of keys and values in a transaction.
pub(crate) fn bytes(ops: &[Op]) -> usize {
    ops.iter().map(|op| op.key.len() + value_bytes(op)).sum()
}

fn value_bytes(op: &Op) -> usize {
    match &op.action {
        Action::Put(value, _) => value.len(),
        Action::Delete | Action::Check => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Expect;

    fn put(key: &str, size: usize) -> Op {
        Op { key: key.into(), expect: Expect::Any, action: Action::Put(Bytes::from(vec![0; size]), None) }
    }

    #[test]
    fn transactions_the_store_does_not_take_are_refused() {
        let many = |count: usize| (0..count).map(|n| put(&format!("k{n}"), 1)).collect::<Vec<_>>();
        let cases: Vec<(&str, Vec<Op>, bool)> = vec![
            ("an empty transaction", vec![], true),
            ("the largest value", vec![put("a", MAX_VALUE_BYTES)], true),
            ("a value one byte larger", vec![put("a", MAX_VALUE_BYTES + 1)], false),
            ("two values that are too large together", vec![put("a", MAX_VALUE_BYTES), put("b", 100_000)], false),
            ("the most operations", many(MAX_TXN_OPS), true),
            ("one operation more", many(MAX_TXN_OPS + 1), false),
            ("a key twice", vec![put("a", 1), put("a", 1)], false),
            ("an empty key", vec![put("", 1)], false),
        ];
        for (what, ops, accepted) in cases {
            assert_eq!(check(&ops).is_ok(), accepted, "{what}");
        }
    }
}
