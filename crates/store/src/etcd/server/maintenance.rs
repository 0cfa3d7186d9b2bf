//! What operators ask: how it goes, a snapshot, a smaller file.

use std::io::{self, Write};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::{API_VERSION, Face, MEMBER_ID, unimplemented};
use crate::embedded::{Embedded, Position};
use crate::etcd::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::etcd::proto::etcdserverpb::cluster_server::Cluster;
use crate::etcd::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::etcd::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, HashKvRequest,
    HashKvResponse, Member, MemberListRequest, MemberListResponse, ResponseHeader, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use crate::etcd::snapshot;
use crate::{Error, Store};

/// A part of a snapshot, and how many may wait for the client.
const BLOB_BYTES: usize = 64 << 10;
const BLOBS_AHEAD: usize = 4;
/// How long a client may take for a part: meanwhile nothing that changes gives room back.
const BLOB_MAX_WAIT: Duration = Duration::from_secs(60);

#[tonic::async_trait]
impl Maintenance for Face {
    type SnapshotStream = BoxStream<'static, Result<SnapshotResponse, Status>>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let revision = u64::try_from(self.store.revisions().0).unwrap_or(0);
        let size = i64::try_from(self.store.file_bytes()).unwrap_or(i64::MAX);
        let errors = self.store.health().await.err().iter().map(ToString::to_string).collect();
        self.done(|header| StatusResponse {
            header,
            version: API_VERSION.to_owned(),
            db_size: size,
            db_size_in_use: size,
            leader: MEMBER_ID,
            raft_index: revision,
            raft_applied_index: revision,
            raft_term: 1,
            errors,
            ..StatusResponse::default()
        })
    }

    /// That there is no room is the only one there can be. It goes by itself, and nothing else raises or ends it.
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let request = request.into_inner();
        let is_meant = [0, MEMBER_ID].contains(&request.member_id)
            && [AlarmType::None, AlarmType::Nospace].contains(&request.alarm());
        let alarms = match request.action() {
            AlarmAction::Activate => return Err(unimplemented("Maintenance/Alarm ACTIVATE")),
            AlarmAction::Get if is_meant => self.alarms().await,
            AlarmAction::Get | AlarmAction::Deactivate => Vec::new(),
        };
        self.done(|header| AlarmResponse { header, alarms })
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        self.store.shrink().await?;
        self.done(|header| DefragmentResponse { header })
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let (store, wanted) = (self.store.clone(), request.into_inner().revision);
        let hash = blocking(move || {
            let whole = store.whole()?;
            let (newest, compacted) = (whole.revision(), whole.compacted());
            let upto = if wanted == 0 { newest } else { wanted };
            match upto {
                requested if requested > newest => return Err(Error::Future { requested, current: newest }.into()),
                requested if requested < compacted => return Err(Error::Compacted { requested, compacted }.into()),
                _ => {}
            }
            let is_kept = |key: &str, at: Position| store.is_newest_at(key, at, upto);
            let hash = snapshot::hash_kv(&whole, upto, is_kept).map_err(failed)?;
            Ok((hash, compacted, upto))
        });
        let (hash, compact_revision, hash_revision) = hash.await?;
        self.done(|header| HashKvResponse { header, hash, compact_revision, hash_revision })
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let (store, header) = (self.store.clone(), self.header());
        let (blobs, mut receiver) = mpsc::channel(BLOBS_AHEAD);
        tokio::task::spawn_blocking(move || send_snapshot(&store, header, blobs, BLOB_MAX_WAIT));
        Ok(Response::new(futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed()))
    }
}

impl Face {
    async fn alarms(&self) -> Vec<AlarmMember> {
        match self.store.health().await {
            Err(Error::NoSpace(_)) => vec![AlarmMember { member_id: MEMBER_ID, alarm: AlarmType::Nospace as i32 }],
            _ => Vec::new(),
        }
    }
}

/// Runs what reads the whole store.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?
}

fn failed(error: io::Error) -> Status {
    Status::unavailable(error.to_string())
}

type Blob = Result<SnapshotResponse, Status>;

/// Sends a snapshot to a client who waits for it, or why there is none; on a thread that may wait.
fn send_snapshot(store: &Embedded, header: Option<ResponseHeader>, blobs: mpsc::Sender<Blob>, patience: Duration) {
    if let Err(status) = write_snapshot(store, header, &blobs, patience) {
        // The store is free again; the client hears of it when it reads on, or goes.
        tokio::runtime::Handle::current().spawn(async move { drop(blobs.send(Err(status)).await) });
    }
}

fn write_snapshot(
    store: &Embedded,
    header: Option<ResponseHeader>,
    blobs: &mpsc::Sender<Blob>,
    patience: Duration,
) -> Result<(), Status> {
    let whole = store.whole()?;
    let layout = snapshot::layout(&whole, &[]).map_err(failed)?;
    let mut out = Blobs { blobs, patience, header, left: layout.bytes(), buffer: Vec::with_capacity(BLOB_BYTES) };
    snapshot::write_whole(&mut out, &layout, &whole, &[]).map_err(failed)
}

/// Sends what is written, in parts.
struct Blobs<'s> {
    blobs: &'s mpsc::Sender<Blob>,
    /// How long the client may take for a part.
    patience: Duration,
    header: Option<ResponseHeader>,
    /// Bytes of the database that were not sent.
    left: u64,
    buffer: Vec<u8>,
}

impl Write for Blobs<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = bytes.len().min(BLOB_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..part]);
        if self.buffer.len() == BLOB_BYTES {
            self.flush()?;
        }
        Ok(part)
    }

    fn flush(&mut self) -> io::Result<()> {
        let blob = std::mem::replace(&mut self.buffer, Vec::with_capacity(BLOB_BYTES));
        self.left = self.left.saturating_sub(blob.len() as u64);
        let part =
            SnapshotResponse { header: self.header, remaining_bytes: self.left, blob, version: API_VERSION.to_owned() };
        let sent = tokio::time::timeout(self.patience, self.blobs.send(Ok(part)));
        // On a thread that may wait.
        match tokio::runtime::Handle::current().block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("the client went away")),
            Err(_) => Err(io::Error::other(format!("the client reads nothing for {:?}", self.patience))),
        }
    }
}

#[tonic::async_trait]
impl Cluster for Face {
    async fn member_list(&self, _: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let member = Member {
            id: MEMBER_ID,
            name: "embedded".to_owned(),
            client_ur_ls: self.urls.to_vec(),
            ..Member::default()
        };
        self.done(|header| MemberListResponse { header, members: vec![member] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Options;
    use crate::{Action, Expect, Op};

    #[tokio::test]
    async fn a_client_that_stops_reading_keeps_nothing_and_hears_why_when_it_reads_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(Embedded::open(dir.path(), Options::default()).unwrap());
        let action = Action::Put(vec![b'x'; 8 * BLOB_BYTES].into(), None);
        let put = || Op { key: "/registry/large".to_owned(), expect: Expect::Any, action: action.clone() };
        store.commit(vec![put()]).await.unwrap();
        let (blobs, mut receiver) = mpsc::channel(BLOBS_AHEAD);
        let held = store.clone();
        let sending = move || send_snapshot(&held, None, blobs, Duration::from_millis(1));
        tokio::task::spawn_blocking(sending).await.unwrap();
        store.shrink().await.expect("nobody reads any more");
        store.commit(vec![put()]).await.unwrap();
        let (mut parts, mut why) = (0, None);
        while let Some(blob) = receiver.recv().await {
            match blob {
                Ok(_) => parts += 1,
                Err(status) => why = Some(status),
            }
        }
        let why = why.expect("it is told");
        assert_eq!((parts, why.code()), (BLOBS_AHEAD, tonic::Code::Unavailable));
        assert!(why.message().ends_with("the client reads nothing for 1ms"), "{why}");
    }
}
