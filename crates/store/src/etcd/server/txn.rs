//! A transaction, decided while nobody else writes: each of its steps sees what the ones before it will have written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tonic::Status;

use super::{header, kv, words};
use crate::embedded::{Change, Position, Range, Ranged, Scope, Still};
use crate::etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcd::proto::etcdserverpb::request_op::Request;
use crate::etcd::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    ResponseOp, TxnRequest, TxnResponse, response_op::Response,
};
use crate::{Action, Expect, MAX_TXN_OPS, Op, Revision};

/// What etcd refuses about a put before it looks at the store.
pub(super) fn check_put(request: &PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(words::empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Status::invalid_argument("etcdserver: value is provided"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Status::invalid_argument("etcdserver: lease is provided"));
    }
    Ok(())
}

/// What etcd refuses about a transaction before it looks at the store.
pub(super) fn check(request: &TxnRequest) -> Result<(), Status> {
    check_parts(request)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn check_parts(request: &TxnRequest) -> Result<(), Status> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > MAX_TXN_OPS {
        return Err(Status::invalid_argument("etcdserver: too many operations in txn request"));
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(words::empty_key());
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => drop(kv::range(range)?),
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => drop(words::scope(&delete.key, &delete.range_end)?),
            Some(Request::RequestTxn(nested)) => check_parts(nested)?,
            None => return Err(Status::invalid_argument("etcdserver: key not found")),
        }
    }
    Ok(())
}

/// The keys a list of operations puts, and what it deletes. A key may be written once only (`checkIntervals` in
/// `server/etcdserver/api/v3rpc/key.go`): the two branches of a nested transaction do not count against each other.
fn writes(ops: &[RequestOp]) -> Result<(BTreeSet<&[u8]>, Vec<Scope>), Status> {
    let (mut puts, mut deletes) = (BTreeSet::new(), Vec::new());
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            deletes.push(words::scope(&delete.key, &delete.range_end)?);
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(nested)) = &op.request else { continue };
        let (then, otherwise) = (writes(&nested.success)?, writes(&nested.failure)?);
        let nested: BTreeSet<&[u8]> = then.0.into_iter().chain(otherwise.0).collect();
        for key in nested {
            add(&mut puts, &deletes, key)?;
        }
        deletes.extend(then.1.into_iter().chain(otherwise.1));
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            add(&mut puts, &deletes, &put.key)?;
        }
    }
    Ok((puts, deletes))
}

fn add<'a>(puts: &mut BTreeSet<&'a [u8]>, deletes: &[Scope], key: &'a [u8]) -> Result<(), Status> {
    let is_deleted = std::str::from_utf8(key).is_ok_and(|key| deletes.iter().any(|scope| scope.contains(key)));
    if is_deleted || !puts.insert(key) {
        return Err(Status::invalid_argument("etcdserver: duplicate key given in txn request"));
    }
    Ok(())
}

/// A transaction being decided.
pub(super) struct Deciding<'s, 'a> {
    still: &'s Still<'a>,
    next: Revision,
    /// What keys will be, and which of them was written first.
    written: BTreeMap<Arc<str>, (usize, Option<Change>)>,
}

impl<'s, 'a> Deciding<'s, 'a> {
    pub(super) fn new(still: &'s Still<'a>) -> Deciding<'s, 'a> {
        Deciding { still, next: still.revision() + 1, written: BTreeMap::new() }
    }

    /// What to commit.
    pub(super) fn into_ops(self) -> Vec<Op> {
        let mut written: Vec<_> = self.written.into_iter().collect();
        written.sort_unstable_by_key(|(_, (order, _))| *order);
        let op = |(key, (_, change)): (Arc<str>, (usize, Option<Change>))| {
            let action = change.map_or(Action::Delete, |change| Action::Put(change.value, change.lease));
            Op { key: key.as_ref().to_owned(), expect: Expect::Any, action }
        };
        written.into_iter().map(op).collect()
    }

    /// The revision as it is after what was decided so far.
    fn revision(&self) -> Revision {
        if self.written.is_empty() { self.next - 1 } else { self.next }
    }

    fn current(&self, scope: Scope) -> Result<Vec<Change>, Status> {
        Ok(self.ranged(Range { scope, after: None, revision: None, limit: usize::MAX })?.items)
    }

    /// What a range holds, with what was written here laid over it.
    fn ranged(&self, range: Range) -> Result<Ranged, Status> {
        let is_changed = range.revision.is_none() && !self.written.is_empty();
        let limit = if is_changed { usize::MAX } else { range.limit };
        let mut found = self.still.range(&Range { limit, ..range.clone() })?;
        if !is_changed {
            return Ok(found);
        }
        let mut all: BTreeMap<Arc<str>, Change> =
            found.items.drain(..).map(|change| (change.key.clone(), change)).collect();
        for (key, (_, change)) in self.written.iter().filter(|(key, _)| range.scope.contains(key)) {
            match change {
                Some(change) => drop(all.insert(key.clone(), change.clone())),
                None => drop(all.remove(key)),
            }
        }
        found.count = all.len();
        found.items = all.into_values().take(range.limit).collect();
        Ok(found)
    }

    fn write(&mut self, key: Arc<str>, change: Option<Change>) {
        let order = self.written.len();
        self.written.entry(key).or_insert((order, None)).1 = change;
    }

    pub(super) fn put(&mut self, request: PutRequest) -> Result<PutResponse, Status> {
        let key = words::text(request.key)?;
        let before = self.current(words::scope(key.as_bytes(), b"")?)?.pop();
        if before.is_none() && (request.ignore_value || request.ignore_lease) {
            return Err(Status::invalid_argument("etcdserver: key not found"));
        }
        let of_before = |wanted: bool| before.as_ref().filter(|_| wanted);
        let change = Change {
            key: key.clone(),
            at: Position { revision: self.next, op: 0 },
            created: before.as_ref().map_or(self.next, |before| before.created),
            writes: before.as_ref().map_or(0, |before| before.writes).saturating_add(1),
            lease: of_before(request.ignore_lease).map_or(words::lease(request.lease), |before| before.lease),
            value: of_before(request.ignore_value).map_or(words::value(request.value), |before| before.value.clone()),
        };
        let prev_kv = of_before(request.prev_kv).map(|before| words::key_value(before, false));
        self.write(key, Some(change));
        Ok(PutResponse { header: header(self.revision()), prev_kv })
    }

    pub(super) fn delete(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        let found = self.current(words::scope(&request.key, &request.range_end)?)?;
        for change in &found {
            self.write(change.key.clone(), None);
        }
        let wanted = if request.prev_kv { found.as_slice() } else { &[] };
        let prev_kvs = wanted.iter().map(|change| words::key_value(change, false)).collect();
        Ok(DeleteRangeResponse { header: header(self.revision()), deleted: words::count(found.len()), prev_kvs })
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        // Sifted here, where the limit must not count what does not pass.
        let mut range = kv::range(request)?;
        if !request.count_only {
            range.limit = usize::MAX;
        }
        let mut found = self.ranged(range)?;
        found.items.retain(|change| kv::wanted(request, change.created, change.at.revision));
        Ok(RangeResponse { header: header(self.revision()), ..kv::answer(request, found) })
    }

    pub(super) fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded = succeeded && self.holds(compare)?;
        }
        let ops = if succeeded { request.success } else { request.failure };
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops.into_iter().filter_map(|op| op.request) {
            responses.push(ResponseOp { response: Some(self.step(op)?) });
        }
        Ok(TxnResponse { header: header(self.revision()), succeeded, responses })
    }

    fn step(&mut self, op: Request) -> Result<Response, Status> {
        Ok(match op {
            Request::RequestRange(range) => Response::ResponseRange(self.range(&range)?),
            Request::RequestPut(put) => Response::ResponsePut(self.put(put)?),
            Request::RequestDeleteRange(delete) => Response::ResponseDeleteRange(self.delete(&delete)?),
            Request::RequestTxn(nested) => Response::ResponseTxn(self.txn(nested)?),
        })
    }

    /// Whether a comparison holds for every key it names. Where there is none it compares with zeros, but a value: that
    /// nothing has (`applyCompare` in `server/etcdserver/txn/txn.go`).
    fn holds(&self, compare: &Compare) -> Result<bool, Status> {
        let found = self.current(words::scope(&compare.key, &compare.range_end)?)?;
        if found.is_empty() {
            return Ok(compare.target() != CompareTarget::Value
                && result(compare.result, wanted_number(compare).cmp(&0).reverse()));
        }
        Ok(found.iter().all(|change| result(compare.result, order(compare, change))))
    }
}

fn result(operator: i32, order: std::cmp::Ordering) -> bool {
    match CompareResult::try_from(operator) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Err(_) => false,
    }
}

/// How what is there compares with what is wanted.
fn order(compare: &Compare, change: &Change) -> std::cmp::Ordering {
    let is = match compare.target() {
        CompareTarget::Version => i64::from(change.writes),
        CompareTarget::Create => change.created,
        CompareTarget::Mod => change.at.revision,
        CompareTarget::Lease => change.lease.map_or(0, |lease| lease.0),
        CompareTarget::Value => {
            let wanted = match &compare.target_union {
                Some(TargetUnion::Value(value)) => value.as_slice(),
                _ => &[],
            };
            return change.value.as_ref().cmp(wanted);
        }
    };
    is.cmp(&wanted_number(compare))
}

fn wanted_number(compare: &Compare) -> i64 {
    match compare.target_union {
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number)
            | TargetUnion::Lease(number),
        ) => number,
        _ => 0,
    }
}
