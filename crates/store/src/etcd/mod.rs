//! The etcd backend: the contract spoken to a real etcd cluster (3.4 or newer).
//!
//! ```text
//!  get, list ──▶ Range, in pages pinned to the revision of the first
//!  commit    ──▶ Txn: compares → puts and deletes, else → the current versions, for the conflict's answer
//!  watch     ──▶ one Watch stream each; it ends when the connection does, and the consumer watches again
//! ```
//!
//! Revisions are etcd's own. Every request is bounded in time and answers [`Error::Unavailable`] past it; the channel
//! reconnects by itself. The only folder that knows etcd-client: [`convert`] (its words in ours), [`watch`];
//! [`server`] is the other side, the embedded store as an etcd, with the messages of [`proto`]; [`snapshot`] is everything in
//! one file.

mod convert;
mod proto;
pub mod server;
pub mod snapshot;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Certificate, Channel, Client, Compare, CompareOp, ConnectOptions, GetOptions, GetResponse, Identity, KvClient,
    PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse,
};

use self::convert::{Failure, header_revision, key_value, prefix_end};
use crate::{
    Action, Error, Expect, KeyValue, LeaseId, ListRequest, ListResponse, Op, Revision, Store, WatchStream, limits,
};

/// Keys one Range asks for at most; longer lists are read in pages.
const PAGE_KEYS: usize = 1000;

/// The largest answer taken from etcd: etcd-client's own 4 MiB is less than three large objects.
const MAX_MESSAGE_BYTES: usize = 512 << 20;

/// Keep-alive pings: how often, and how long an answer may take. A member that was cut off says nothing, and until its
/// connection is given up requests and watches hang on it, which adds to the time without a leader where that was cut off too.
/// kube-apiserver's 30 and 10 seconds are for an etcd on its own machine; more often than each 5 seconds (etcd's
/// `--grpc-keepalive-min-time`) the server would hang up.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long one request may take.
    pub timeout: Duration,
    /// The CA that signed etcd's certificates, PEM. With any of the three, endpoints are spoken to by TLS.
    pub ca: Option<Vec<u8>>,
    /// Our certificate, PEM.
    pub cert: Option<Vec<u8>>,
    /// Its key, PEM.
    pub key: Option<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Options { timeout: Duration::from_secs(10), ca: None, cert: None, key: None }
    }
}

impl Options {
    fn connect_options(&self) -> Result<ConnectOptions, Error> {
        let (interval, timeout) = KEEP_ALIVE;
        let options = ConnectOptions::new()
            .with_connect_timeout(self.timeout)
            .with_keep_alive(interval, timeout)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        let mut tls = TlsOptions::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(ca));
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(cert, key)),
            (None, None) if self.ca.is_none() => return Ok(options),
            (None, None) => {}
            _ => return Err(Error::Unavailable("etcd: a certificate needs its key and a key its certificate".into())),
        }
        Ok(options.with_tls(tls))
    }
}

/// A store in an etcd cluster.
pub struct Etcd {
    client: Client,
    timeout: Duration,
    progress: watch::Progress,
}

impl Etcd {
    /// Connects to an etcd cluster by its client URLs, or to one server by `unix://` and the path of its socket. Fails if
    /// none of them answers in time.
    pub async fn connect(endpoints: &[String], options: Options) -> Result<Etcd, Error> {
        let connect = connect(endpoints, options.connect_options()?);
        let client = bounded(options.timeout, connect).await.map_err(Failure::into_error)?;
        let status = {
            let mut maintenance = client.maintenance_client();
            bounded(options.timeout, async move { maintenance.status().await }).await.map_err(Failure::into_error)?
        };
        let progress = watch::Progress::of_version(status.version());
        Ok(Etcd { client, timeout: options.timeout, progress })
    }

    /// Everything at one revision, as etcd's file with its checksum. Not bounded in time: it takes as long as it is large.
    pub async fn snapshot(&self, out: &mut (dyn std::io::Write + Send)) -> Result<(), Error> {
        let mut maintenance = self.client.maintenance_client();
        let failed = |error: etcd_client::Error| Failure::from(error).into_error();
        let mut parts = maintenance.snapshot().await.map_err(failed)?;
        while let Some(part) = parts.message().await.map_err(failed)? {
            out.write_all(part.blob()).map_err(|error| Error::Unavailable(error.to_string()))?;
        }
        out.flush().map_err(|error| Error::Unavailable(error.to_string()))
    }

    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn range(&self, key: Vec<u8>, options: GetOptions) -> Result<GetResponse, Failure> {
        bounded(self.timeout, self.kv().get(key, Some(options))).await
    }

    /// Gives a failure about revisions its numbers, which etcd's answer lacks.
    async fn explain(&self, failure: Failure, requested: Revision) -> Error {
        match failure {
            Failure::Compacted => match watch::compacted(self).await {
                Ok(compacted) => Error::Compacted { requested, compacted },
                Err(error) => error,
            },
            Failure::Future => match self.revision().await {
                Ok(current) => Error::Future { requested, current },
                Err(error) => error,
            },
            other => other.into_error(),
        }
    }
}

async fn connect(endpoints: &[String], options: ConnectOptions) -> Result<Client, etcd_client::Error> {
    match endpoints {
        [socket] if socket.starts_with("unix:") => {
            let endpoint = tonic::transport::Endpoint::from_shared(socket.clone())?;
            Client::from_channel(Channel::Tonic(endpoint.connect_lazy()), Some(options)).await
        }
        endpoints => Client::connect(endpoints, Some(options)).await,
    }
}

/// Runs a request, at most so long.
async fn bounded<T>(
    timeout: Duration,
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(timeout, request).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(_) => Err(Failure::Unavailable(format!("etcd did not answer within {timeout:?}"))),
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str, revision: Option<Revision>) -> Result<(Option<KeyValue>, Revision), Error> {
        if let Some(revision) = revision.filter(|revision| *revision <= 0) {
            return Ok((None, revision));
        }
        let requested = revision.unwrap_or(0);
        match self.range(key.into(), GetOptions::new().with_revision(requested)).await {
            Err(failure) => Err(self.explain(failure, requested).await),
            Ok(mut response) => {
                let at = revision.unwrap_or(header_revision(response.header()));
                Ok((response.take_kvs().pop().map(key_value), at))
            }
        }
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        if let Some(revision) = request.revision.filter(|revision| *revision <= 0) {
            return Ok(ListResponse { revision, ..ListResponse::default() });
        }
        let mut list = ListResponse { revision: request.revision.unwrap_or(0), ..ListResponse::default() };
        let limit = request.limit.unwrap_or(usize::MAX);
        let mut start = first_key(&request);
        loop {
            let page = limit.saturating_sub(list.items.len()).min(PAGE_KEYS);
            let options = GetOptions::new().with_range(prefix_end(&request.prefix)).with_revision(list.revision);
            // To etcd a limit of 0 is none.
            let options = if page == 0 { options.with_count_only() } else { options.with_limit(page as i64) };
            let mut response = match self.range(start, options).await {
                Ok(response) => response,
                Err(failure) => return Err(self.explain(failure, list.revision).await),
            };
            if list.revision == 0 {
                list.revision = header_revision(response.header());
            }
            let count = usize::try_from(response.count()).unwrap_or(0);
            let items = response.take_kvs();
            list.remaining = count.saturating_sub(items.len());
            list.items.extend(items.into_iter().map(key_value));
            match list.items.last() {
                Some(last) if list.remaining > 0 && list.items.len() < limit => start = after(&last.key),
                _ => return Ok(list),
            }
        }
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Revision, Error> {
        limits::check(&ops)?;
        let lease = ops.iter().find_map(|op| if let Action::Put(_, lease) = op.action { lease } else { None });
        let response = match bounded(self.timeout, self.kv().txn(transaction(&ops))).await {
            Ok(response) => response,
            Err(Failure::LeaseNotFound) => return Err(Error::LeaseNotFound(lease.unwrap_or(LeaseId(0)))),
            Err(failure) => return Err(failure.into_error()),
        };
        if response.succeeded() {
            return Ok(header_revision(response.header()));
        }
        Err(conflict(&ops, response.op_responses()))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
        watch::watch(self, prefix, after).await
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.progress.request();
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, Error> {
        let options = GetOptions::new().with_count_only();
        let response = self.range(b"\0".to_vec(), options).await.map_err(Failure::into_error)?;
        Ok(header_revision(response.header()))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        match bounded(self.timeout, self.kv().compact(revision, None)).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.explain(failure, revision).await),
        }
    }

    async fn grant_lease(&self, ttl_seconds: i64) -> Result<LeaseId, Error> {
        let mut leases = self.client.lease_client();
        let granted = bounded(self.timeout, leases.grant(ttl_seconds.max(1), None)).await;
        granted.map(|lease| LeaseId(lease.id())).map_err(Failure::into_error)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error> {
        let mut leases = self.client.lease_client();
        match bounded(self.timeout, leases.revoke(lease.0)).await {
            Ok(_) => Ok(()),
            Err(Failure::LeaseNotFound) => Err(Error::LeaseNotFound(lease)),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

/// Where a list starts.
fn first_key(request: &ListRequest) -> Vec<u8> {
    match &request.after {
        Some(last) if *last >= request.prefix => after(last),
        // etcd takes no empty key; this is the first there can be.
        _ if request.prefix.is_empty() => b"\0".to_vec(),
        _ => request.prefix.clone().into_bytes(),
    }
}

/// The first key that sorts after `key`.
fn after(key: &str) -> Vec<u8> {
    [key.as_bytes(), b"\0"].concat()
}

fn transaction(ops: &[Op]) -> Txn {
    let compares: Vec<Compare> = ops.iter().filter_map(compare).collect();
    let changes: Vec<TxnOp> = ops.iter().filter_map(change).collect();
    let current: Vec<TxnOp> = expecting(ops).map(|op| TxnOp::get(op.key.as_str(), None)).collect();
    Txn::new().when(compares).and_then(changes).or_else(current)
}

/// The operations whose expectation can fail, in order; a failed transaction answers with one version for each.
fn expecting(ops: &[Op]) -> impl Iterator<Item = &Op> {
    ops.iter().filter(|op| op.expect != Expect::Any)
}

fn compare(op: &Op) -> Option<Compare> {
    let expected = match op.expect {
        Expect::Any => return None,
        // To etcd an absent key was last written at 0.
        Expect::Absent => 0,
        Expect::Unchanged(revision) if revision > 0 => revision,
        Expect::Unchanged(_) => -1,
    };
    Some(Compare::mod_revision(op.key.as_str(), CompareOp::Equal, expected))
}

fn change(op: &Op) -> Option<TxnOp> {
    match &op.action {
        Action::Check => None,
        Action::Delete => Some(TxnOp::delete(op.key.as_str(), None)),
        Action::Put(value, lease) => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            Some(TxnOp::put(op.key.as_str(), value.to_vec(), options))
        }
    }
}

/// The first operation whose expectation does not hold for what etcd says the keys are.
fn conflict(ops: &[Op], answers: Vec<TxnOpResponse>) -> Error {
    for (op, answer) in expecting(ops).zip(answers) {
        let current: Option<KeyValue> = match answer {
            TxnOpResponse::Get(mut found) => found.take_kvs().pop().map(key_value),
            _ => None,
        };
        let holds = match op.expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Unchanged(revision) => current.as_ref().is_some_and(|current| current.mod_revision == revision),
        };
        if !holds {
            return Error::Conflict { key: op.key.clone(), current };
        }
    }
    Error::Unavailable("etcd refused a transaction whose expectations hold".to_owned())
}

/// What a watch needs to go on by itself.
#[derive(Clone)]
struct Reader {
    kv: KvClient,
    timeout: Duration,
    prefix: Arc<str>,
}

impl Reader {
    async fn range(&mut self, options: GetOptions) -> Result<GetResponse, Failure> {
        let start = if self.prefix.is_empty() { b"\0".to_vec() } else { self.prefix.as_bytes().to_vec() };
        let options = options.with_range(prefix_end(&self.prefix));
        bounded(self.timeout, self.kv.get(start, Some(options))).await
    }
}
