//! Reads and writes.

use std::cmp::Ordering;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use futures::stream::BoxStream;
use prost::Message;
use tonic::{Request, Response, Status};

use super::txn::{self, Deciding};
use super::{Face, header, unimplemented, words};
use crate::embedded::{Change, Range, Ranged};
use crate::{MAX_TXN_BYTES, Revision};

/// How a range is sorted and by what, as the numbers of `RangeRequest`.
const ASCEND: i32 = 1;
const DESCEND: i32 = 2;
const BY_KEY: i32 = 0;
const BY_VERSION: i32 = 1;
const BY_CREATE: i32 = 2;
const BY_MOD: i32 = 3;
const BY_VALUE: i32 = 4;

#[tonic::async_trait]
impl PbKvService for Face {
    type RangeStreamStream = BoxStream<'static, Result<PbRangeStreamResponse, Status>>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let request = request.into_inner();
        let found =
            self.store.range(&range(&request)?, |created, modified| wanted(&request, created, modified)).await?;
        let newest = found.newest;
        Ok(Response::new(PbRangeResponse { header: header(newest), ..answer(&request, found) }))
    }

    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(unimplemented("KV/RangeStream"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let request = bounded(request.into_inner())?;
        txn::check_put(&request)?;
        let (revision, response) = self.decide(move |deciding| deciding.put(request)).await?;
        Ok(Response::new(PbPutResponse { header: header(revision), ..response }))
    }

    async fn delete_range(&self, request: Request<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        let request = bounded(request.into_inner())?;
        let (revision, response) = self.decide(move |deciding| deciding.delete(&request)).await?;
        Ok(Response::new(PbDeleteResponse { header: header(revision), ..response }))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let request = bounded(request.into_inner())?;
        txn::check(&request)?;
        let (revision, response) = self.decide(move |deciding| deciding.txn(request)).await?;
        Ok(Response::new(PbTxnResponse { header: header(revision), ..response }))
    }

    async fn compact(&self, request: Request<PbCompactionRequest>) -> Result<Response<PbCompactionResponse>, Status> {
        let PbCompactionRequest { revision, physical } = request.into_inner();
        match physical {
            true => self.store.compact_wholly(revision).await?,
            false => crate::Store::compact(&*self.store, revision).await?,
        }
        self.done(|header| PbCompactionResponse { header })
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
pub(super) fn range(request: &PbRangeRequest) -> Result<Range, Status> {
    let is_known = (BY_KEY..=BY_VALUE).contains(&request.sort_target) && (0..=DESCEND).contains(&request.sort_order);
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
pub(super) fn wanted(request: &PbRangeRequest, created: Revision, modified: Revision) -> bool {
    let within = |number, min, max| (min == 0 || number >= min) && (max == 0 || number <= max);
    within(modified, request.min_mod_revision, request.max_mod_revision)
        && within(created, request.min_create_revision, request.max_create_revision)
}

/// By what to sort; nothing where keys are wanted in their order. A target without an order means ascending.
fn order(request: &PbRangeRequest) -> Option<(i32, bool)> {
    match (request.sort_target, request.sort_order) {
        (BY_KEY, 0 | ASCEND) => None,
        (target, order) => Some((target, order == DESCEND)),
    }
}

/// Sorts and cuts what was found.
pub(super) fn answer(request: &PbRangeRequest, found: Ranged) -> PbRangeResponse {
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
    PbRangeResponse { header: None, kvs, more, count }
}

fn compare(target: i32, a: &Change, b: &Change) -> Ordering {
    match target {
        BY_VERSION => a.writes.cmp(&b.writes),
        BY_CREATE => a.created.cmp(&b.created),
        BY_MOD => { a.at.revision }.cmp(&{ b.at.revision }),
        BY_VALUE => a.value.cmp(&b.value),
        _ => a.key.cmp(&b.key),
    }
}
