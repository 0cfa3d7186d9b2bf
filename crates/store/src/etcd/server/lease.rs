//! Leases.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Face, words};
use crate::embedded::MAX_TTL_SECONDS;
use crate::etcd::proto::etcdserverpb::lease_server::Lease;
use crate::etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::{Error, LeaseId, Store};

#[tonic::async_trait]
impl Lease for Face {
    type LeaseKeepAliveStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > MAX_TTL_SECONDS {
            return Err(Status::out_of_range("etcdserver: too large lease TTL"));
        }
        let (lease, ttl) = self.store.grant(words::lease(id), ttl).await?;
        self.done(|header| LeaseGrantResponse { header, id: lease.0, ttl, error: String::new() })
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.store.revoke_lease(LeaseId(request.into_inner().id)).await?;
        self.done(|header| LeaseRevokeResponse { header })
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let face = self.clone();
        let answers = request.into_inner().then(move |request| {
            let face = face.clone();
            async move { face.keep_alive(request?).await }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let Some(lease) = self.store.lease(LeaseId(id)).await? else {
            // Not an error: -1 seconds are left of a lease that is not there.
            return self.done(|header| LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() });
        };
        let wanted = if keys { lease.keys.as_slice() } else { &[] };
        let keys = wanted.iter().map(|key| key.as_bytes().to_vec()).collect();
        let (ttl, granted_ttl) = (seconds(lease.left), lease.ttl_seconds);
        self.done(|header| LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys })
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.store.leases().await?.into_iter().map(|lease| LeaseStatus { id: lease.0 }).collect();
        self.done(|header| LeaseLeasesResponse { header, leases })
    }
}

impl Face {
    async fn keep_alive(&self, request: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
        let id = request.id;
        let ttl = match self.store.renew(LeaseId(id)).await {
            Ok(ttl) => ttl,
            // The client takes no seconds for the end of its lease.
            Err(Error::LeaseNotFound(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(LeaseKeepAliveResponse { header: self.header(), id, ttl })
    }
}

fn seconds(left: Duration) -> i64 {
    i64::try_from(left.as_secs()).unwrap_or(i64::MAX)
}
