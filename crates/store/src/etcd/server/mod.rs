//! The embedded store's etcd v3 face: what `etcdctl` and every other client of etcd speaks to.
//!
//! ```text
//!  etcdctl ──gRPC──▶ KV          Range ──▶ index and log          Put, DeleteRange, Txn ──▶ decided while nobody else writes
//!                    Watch       one task a stream, one feed a watch
//!                    Lease · Maintenance (Status, Snapshot, Defragment, HashKV) · Cluster (MemberList)
//! ```
//!
//! A write goes the way of every other: the same journal, the same revisions, the same watches. Errors have etcd's codes
//! and words (`api/v3rpc/rpctypes/error.go`). Whatever is not served (members, users, roles, `lock` and `election` as
//! services, `move-leader`, `downgrade`) answers UNIMPLEMENTED and says what was asked for. Keys are text, as everywhere
//! in the store; one that is not is refused.
//!
//! In reading order: this file (what is served, and how), [`words`] (our words in etcd's), [`kv`], [`txn`], [`watch`],
//! [`lease`], [`maintenance`]. Who may connect is decided by who listens.

mod kv;
mod lease;
mod maintenance;
mod txn;
mod watch;
mod words;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use etcd_client::proto::{
    PbClusterServer, PbKeyValue, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbResponseHeader, PbWatchServer,
};
use futures::{FutureExt, Stream};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::{Response, Status};

use crate::embedded::{Change, Embedded};
use crate::{Error, MAX_TXN_BYTES, Revision};

/// The etcd whose API this is. Clients look at it to learn what they may ask for: 3.5 has all that is served here.
const API_VERSION: &str = "3.5.21";

/// The names of the only member of the only cluster there is.
const CLUSTER_ID: u64 = 0x636f_7261_636c_6501;
const MEMBER_ID: u64 = 0x636f_7261_636c_6502;

/// The largest request that is read: what etcd adds to its limit for the gRPC around it.
const MAX_REQUEST_BYTES: usize = MAX_TXN_BYTES + 512 * 1024;

/// Requests, watches among them, on one connection.
const MAX_STREAMS: u32 = 1000;

/// The services, as something that answers HTTP/2 requests.
#[derive(Clone)]
pub struct Etcd3(Routes);

/// What every service has.
#[derive(Clone)]
struct Face {
    store: Arc<Embedded>,
    urls: Arc<[String]>,
}

impl Etcd3 {
    /// The face of a store that is reached under `urls` (which it tells who asks for the members).
    pub fn new(store: Arc<Embedded>, urls: Vec<String>) -> Etcd3 {
        let face = Face { store, urls: urls.into() };
        let routes = Routes::new(PbKvServer::new(face.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(PbWatchServer::new(face.clone()))
            .add_service(PbLeaseServer::new(face.clone()))
            .add_service(PbMaintenanceServer::new(face.clone()))
            .add_service(PbClusterServer::new(face))
            .prepare();
        Etcd3(routes)
    }

    /// Answers connections until `stop` ends; those that are open then may finish what they do.
    pub async fn serve<I, IO>(self, incoming: I, stop: impl Future<Output = ()>) -> Result<(), Error>
    where
        I: Stream<Item = std::io::Result<IO>>,
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let server = tonic::transport::Server::builder().max_concurrent_streams(MAX_STREAMS);
        let served = server.serve_with_incoming_shutdown(self, incoming, stop).await;
        served.map_err(|error| Error::Unavailable(format!("the etcd face ended: {error}")))
    }
}

impl Service<http::Request<Body>> for Etcd3 {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let served = ["KV", "Watch", "Lease", "Maintenance", "Cluster"];
        let name = request.uri().path().trim_start_matches('/').to_owned();
        let service = name.split('/').next().and_then(|service| service.strip_prefix("etcdserverpb."));
        if service.is_some_and(|service| served.contains(&service)) {
            return self.0.call(request).boxed();
        }
        let refusal = unimplemented(&name).into_http();
        async move { Ok(refusal) }.boxed()
    }
}

/// The answer to what is not served.
fn unimplemented(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not served by the embedded store"))
}

impl Face {
    fn header(&self) -> Option<PbResponseHeader> {
        header(self.store.revisions().0)
    }

    /// Nothing but "done".
    fn done<T>(&self, answer: impl FnOnce(Option<PbResponseHeader>) -> T) -> Result<Response<T>, Status> {
        Ok(Response::new(answer(self.header())))
    }
}

/// A version of a key as etcd's messages and files have it.
pub(super) fn key_value(change: &Change) -> PbKeyValue {
    words::key_value(change, false)
}

/// Every answer names the cluster, the member and the revision it was given at.
fn header(revision: Revision) -> Option<PbResponseHeader> {
    Some(PbResponseHeader { cluster_id: CLUSTER_ID, member_id: MEMBER_ID, revision, raft_term: 1 })
}
