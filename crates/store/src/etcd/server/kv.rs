//! Reads and writes.

use std::cmp::Ordering;

use prost::Message;
use tonic::{Request, Response, Status};

use super::txn::{self, Deciding};
use super::{Face, header, words};
use crate::embedded::{Change, Range, Ranged};
use crate::etcd::proto::etcdserverpb::kv_server::Kv;
use crate::etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::etcd::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::{MAX_TXN_BYTES, Revision};

#[tonic::async_trait]
impl Kv for Face {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        let found =
            self.store.range(&range(&request)?, |created, modified| wanted(&request, created, modified)).await?;
        let newest = found.newest;
        Ok(Response::new(RangeResponse { header: header(newest), ..answer(&request, found) }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = bounded(request.into_inner())?;
        txn::check_put(&request)?;
        let (revision, response) = self.decide(move |deciding| deciding.put(request)).await?;
        Ok(Response::new(PutResponse { header: header(revision), ..response }))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = bounded(request.into_inner())?;
        let (revision, response) = self.decide(move |deciding| deciding.delete(&request)).await?;
        Ok(Response::new(DeleteRangeResponse { header: header(revision), ..response }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = bounded(request.into_inner())?;
        txn::check(&request)?;
        let (revision, response) = self.decide(move |deciding| deciding.txn(request)).await?;
        Ok(Response::new(TxnResponse { header: header(revision), ..response }))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let CompactionRequest { revision, physical } = request.into_inner();
        match physical {
            true => self.store.compact_wholly(revision).await?,
            false => crate::Store::compact(&*self.store, revision).await?,
        }
        self.done(|header| CompactionResponse { header })
    }
}

impl Face {
    /// Decides and commits in one step; the revision is the one after it.
    async fn decide<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Deciding<'_, '_>) -> Result<T, Status> + Send + 'static,
    ) -> Result<(Revision, T), Status> {
        let decided = self.store.decide(move |still| {
            let mut deciding = Deciding::new(still);
            let answer = decide(&mut deciding)?;
            Ok::<_, Status>((deciding.into_ops(), answer))
        });
        decided.await
    }
}

/// A request etcd would not take either is refused before anybody waits for it.
fn bounded<T: Message>(request: T) -> Result<T, Status> {
    if request.encoded_len() > MAX_TXN_BYTES { Err(words::too_large()) } else { Ok(request) }
}

/// What has to be read for a request: everything, where it is sorted or sifted afterwards.
pub(super) fn range(request: &RangeRequest) -> Result<Range, Status> {
    let is_known = SortTarget::try_from(request.sort_target).is_ok() && SortOrder::try_from(request.sort_order).is_ok();
    if !is_known {
        return Err(Status::invalid_argument("etcdserver: invalid sort option"));
    }
    let limit = match request.limit {
        _ if request.count_only => 0,
        // One more than is asked for, to know whether there are more.
        limit if limit > 0 && order(request).is_none() => {
            usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1)
        }
        _ => usize::MAX,
    };
    let revision = Some(request.revision).filter(|revision| *revision > 0);
    Ok(Range { scope: words::scope(&request.key, &request.range_end)?, after: None, revision, limit })
}

/// Whether a version passes the bounds of a request, of which 0 is none.
pub(super) fn wanted(request: &RangeRequest, created: Revision, modified: Revision) -> bool {
    let within = |number, min, max| (min == 0 || number >= min) && (max == 0 || number <= max);
    within(modified, request.min_mod_revision, request.max_mod_revision)
        && within(created, request.min_create_revision, request.max_create_revision)
}

/// By what to sort; nothing where keys are wanted in their order. A target without an order means ascending.
fn order(request: &RangeRequest) -> Option<(SortTarget, bool)> {
    match (request.sort_target(), request.sort_order()) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
        (target, order) => Some((target, order == SortOrder::Descend)),
    }
}

/// Sorts and cuts what was found.
pub(super) fn answer(request: &RangeRequest, found: Ranged) -> RangeResponse {
    let (mut items, count) = (found.items, words::count(found.count));
    if let Some((target, is_descending)) = order(request) {
        items.sort_by(|a, b| {
            let order = compare(target, a, b);
            if is_descending { order.reverse() } else { order }
        });
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let kvs = items.iter().map(|change| words::key_value(change, request.keys_only)).collect();
    RangeResponse { header: None, kvs, more, count }
}

fn compare(target: SortTarget, a: &Change, b: &Change) -> Ordering {
    match target {
        SortTarget::Version => a.writes.cmp(&b.writes),
        SortTarget::Create => a.created.cmp(&b.created),
        SortTarget::Mod => { a.at.revision }.cmp(&{ b.at.revision }),
        SortTarget::Value => a.value.cmp(&b.value),
        SortTarget::Key => a.key.cmp(&b.key),
    }
}
