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
//! [`lease`], [`maintenance`], [`tls`]. Who may connect is decided by who listens.

mod kv;
mod lease;
mod maintenance;
mod tls;
mod txn;
mod watch;
mod words;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{FutureExt, Stream, TryFutureExt};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::{Response, Status};

use crate::embedded::{Change, Embedded};
use crate::etcd::proto::etcdserverpb::ResponseHeader;
use crate::etcd::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::etcd::proto::etcdserverpb::kv_server::KvServer;
use crate::etcd::proto::etcdserverpb::lease_server::LeaseServer;
use crate::etcd::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::etcd::proto::etcdserverpb::watch_server::WatchServer;
use crate::etcd::proto::mvccpb::KeyValue;
use crate::{Error, MAX_TXN_BYTES, Revision};

/// The etcd whose API this is. Clients look at it to learn what they may ask for: 3.5 has all that is served here.
const API_VERSION: &str = "3.5.21";

/// The names of the only member of the only cluster there is.
const CLUSTER_ID: u64 = 0x636f_7261_636c_6501;
const MEMBER_ID: u64 = 0x636f_7261_636c_6502;

/// The largest request that is read: what etcd adds to its limit for the gRPC around it.
const MAX_REQUEST_BYTES: usize = MAX_TXN_BYTES + 512 * 1024;

/// gRPC's number for what is not served.
const UNIMPLEMENTED: &str = "12";

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
        let routes = Routes::new(KvServer::new(face.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(WatchServer::new(face.clone()))
            .add_service(LeaseServer::new(face.clone()))
            .add_service(MaintenanceServer::new(face.clone()))
            .add_service(ClusterServer::new(face))
            .prepare();
        Etcd3(routes)
    }

    /// Answers connections until `stop` ends; those that are open then may finish what they do.
    pub async fn serve<I, IO>(self, incoming: I, stop: impl Future<Output = ()>) -> Result<(), Error>
    where
        I: Stream<Item = std::io::Result<IO>>,
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let served = server().serve_with_incoming_shutdown(self, incoming, stop).await;
        served.map_err(|error| Error::Unavailable(format!("the etcd face ended: {error}")))
    }
}

fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder().max_concurrent_streams(MAX_STREAMS)
}

impl Service<http::Request<Body>> for Etcd3 {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let name = request.uri().path().trim_start_matches('/').to_owned();
        let answer = self.0.call(request);
        // What no service of `proto/` has is refused without a word.
        answer.map_ok(move |answer| if is_unknown(&answer) { unimplemented(&name).into_http() } else { answer }).boxed()
    }
}

/// Whether nobody here knows what was asked for.
fn is_unknown(answer: &http::Response<Body>) -> bool {
    let is_refused = answer.headers().get(Status::GRPC_STATUS).is_some_and(|code| code == UNIMPLEMENTED);
    is_refused && !answer.headers().contains_key(Status::GRPC_MESSAGE)
}

/// The answer to what is not served.
fn unimplemented(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not served by the embedded store"))
}

impl Face {
    fn header(&self) -> Option<ResponseHeader> {
        header(self.store.revisions().0)
    }

    /// Nothing but "done".
    fn done<T>(&self, answer: impl FnOnce(Option<ResponseHeader>) -> T) -> Result<Response<T>, Status> {
        Ok(Response::new(answer(self.header())))
    }
}

/// A version of a key as etcd's messages and files have it.
pub(super) fn key_value(change: &Change) -> KeyValue {
    words::key_value(change, false)
}

/// Every answer names the cluster, the member and the revision it was given at.
fn header(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: CLUSTER_ID, member_id: MEMBER_ID, revision, raft_term: 1 })
}
