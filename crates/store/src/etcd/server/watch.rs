//! Watches: one task for each stream, one feed of the store for each watch on it.
//!
//! Nothing is queued but a few answers that the client has not read: a feed is asked for more when it has, and one that
//! fell behind the newest changes meanwhile goes on from the log. An answer never splits a revision, unless fragments are
//! asked for. Progress (asked for, or told by itself where nothing happened) is told once every watch it speaks for has
//! been told everything before.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{AbortHandle, BoxStream, SelectAll, abortable, unfold};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{Face, MAX_REQUEST_BYTES, header, words};
use crate::embedded::{Asker, Change, Scope, Told};
use crate::etcd::proto::etcdserverpb::watch_create_request::FilterType;
use crate::etcd::proto::etcdserverpb::watch_request::RequestUnion;
use crate::etcd::proto::etcdserverpb::{WatchRequest, WatchResponse, watch_server};
use crate::etcd::proto::mvccpb::event::EventType;
use crate::etcd::proto::mvccpb::{Event, KeyValue};
use crate::{Error, Revision};

/// Answers a client has not read before the next is made.
const ANSWERS_AHEAD: usize = 4;

/// Watches on one stream.
const MAX_WATCHES: usize = 10_000;

/// How often a watch that wants it hears that nothing happened, as etcd's `--experimental-watch-progress-notify-interval`.
const PROGRESS_EVERY: Duration = Duration::from_secs(600);

/// The watch an answer is not about; every watch takes it for its own.
const NO_WATCH: i64 = -1;

#[tonic::async_trait]
impl watch_server::Watch for Face {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, mut receiver) = mpsc::channel(ANSWERS_AHEAD);
        let mut stream = WatchStream {
            face: self.clone(),
            answers,
            watches: BTreeMap::new(),
            feeds: SelectAll::new(),
            next_id: 0,
            asked: None,
            notify_at: Instant::now() + PROGRESS_EVERY,
        };
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            if let Err(Ended::With(status)) = stream.run(&mut requests).await {
                drop(stream.answers.send(Err(status)).await);
            }
        });
        Ok(Response::new(futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed()))
    }
}

/// Why a stream is over.
enum Ended {
    /// The client went away.
    Gone,
    With(Status),
}

impl<T> From<mpsc::error::SendError<T>> for Ended {
    fn from(_: mpsc::error::SendError<T>) -> Ended {
        Ended::Gone
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::With(error.into())
    }
}

/// What a watch was made with.
#[derive(Clone, Default)]
struct Wanted {
    filters: Vec<i32>,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
}

struct Watch {
    wanted: Wanted,
    scope: Scope,
    /// Everything up to here has been told.
    cursor: Revision,
    asker: Asker,
    abort: AbortHandle,
    /// Nothing was told since the last notice was due.
    is_quiet: bool,
    /// It is to be told where it is as soon as that is known.
    is_due: bool,
}

type Fed = (i64, Result<Told, Error>);

struct WatchStream {
    face: Face,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    watches: BTreeMap<i64, Watch>,
    feeds: SelectAll<BoxStream<'static, Fed>>,
    next_id: i64,
    /// Somebody wants to hear when all watches are there.
    asked: Option<Revision>,
    notify_at: Instant,
}

impl WatchStream {
    async fn run(&mut self, requests: &mut Streaming<WatchRequest>) -> Result<(), Ended> {
        let (mut asks, answers) = (true, self.answers.clone());
        loop {
            tokio::select! {
                request = requests.next(), if asks => match request {
                    // A client that is done asking may still be listening; one that is gone no longer reads.
                    None => asks = false,
                    Some(Err(_)) => return Ok(()),
                    Some(Ok(request)) => self.request(request).await?,
                },
                () = answers.closed() => return Ok(()),
                Some((id, fed)) = self.feeds.next(), if !self.feeds.is_empty() => self.fed(id, fed).await?,
                () = tokio::time::sleep_until(self.notify_at) => self.ask_the_quiet(),
            }
        }
    }

    async fn answer(&mut self, answer: WatchResponse) -> Result<(), Ended> {
        Ok(self.answers.send(Ok(answer)).await?)
    }

    async fn request(&mut self, request: WatchRequest) -> Result<(), Ended> {
        match request.request_union {
            None => Ok(()),
            Some(RequestUnion::CancelRequest(request)) => match self.remove(request.watch_id) {
                None => Ok(()),
                Some(_) => {
                    let header = self.face.header();
                    let (watch_id, canceled) = (request.watch_id, true);
                    self.answer(WatchResponse { header, watch_id, canceled, ..WatchResponse::default() }).await
                }
            },
            Some(RequestUnion::ProgressRequest(_)) => {
                let newest = self.face.store.revisions().0;
                self.asked = Some(newest);
                self.watches.values().for_each(|watch| watch.asker.request_progress());
                self.tell_progress().await
            }
            Some(RequestUnion::CreateRequest(request)) => {
                let wanted = Wanted {
                    filters: request.filters,
                    prev_kv: request.prev_kv,
                    fragment: request.fragment,
                    progress_notify: request.progress_notify,
                };
                let key = if request.key.is_empty() { vec![0] } else { request.key };
                let scope = words::scope(&key, &request.range_end).map_err(Ended::With)?;
                self.create(request.watch_id, scope, request.start_revision, wanted).await
            }
        }
    }

    async fn create(&mut self, id: i64, scope: Scope, start: Revision, wanted: Wanted) -> Result<(), Ended> {
        let newest = self.face.store.revisions().0;
        let refusal = match id {
            _ if self.watches.len() >= MAX_WATCHES => Some("too many watches on one stream"),
            id if id != 0 && self.watches.contains_key(&id) => Some("mvcc: watcher duplicate ID"),
            _ => None,
        };
        if let Some(reason) = refusal {
            let (created, canceled, cancel_reason) = (true, true, reason.to_owned());
            let header = header(newest);
            let refused =
                WatchResponse { header, watch_id: NO_WATCH, created, canceled, cancel_reason, ..Default::default() };
            return self.answer(refused).await;
        }
        let id = if id == 0 { self.free_id() } else { id };
        let created = WatchResponse { header: header(newest), watch_id: id, created: true, ..Default::default() };
        self.answer(created).await?;
        let after = if start > 0 { start - 1 } else { newest };
        self.open(id, scope, after, wanted).await
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Feeds a watch from a revision on, in place of the feed it had.
    async fn open(&mut self, id: i64, scope: Scope, after: Revision, wanted: Wanted) -> Result<(), Ended> {
        let feed = match self.face.store.feed(scope.clone(), after) {
            Ok(feed) => feed,
            Err(Error::Compacted { compacted, .. }) => return self.compacted(id, compacted).await,
            Err(error) => return Err(error.into()),
        };
        let asker = feed.asker();
        let fed = unfold(feed, move |mut feed| async move {
            let told = feed.next().await?;
            Some(((id, told), feed))
        });
        let (fed, abort) = abortable(fed);
        self.feeds.push(fed.boxed());
        let watch = Watch { wanted, scope, cursor: after, asker, abort, is_quiet: true, is_due: false };
        self.watches.insert(id, watch);
        Ok(())
    }

    fn remove(&mut self, id: i64) -> Option<Watch> {
        let watch = self.watches.remove(&id)?;
        watch.abort.abort();
        Some(watch)
    }

    async fn compacted(&mut self, id: i64, compacted: Revision) -> Result<(), Ended> {
        let cancelled = WatchResponse {
            header: self.face.header(),
            watch_id: id,
            canceled: true,
            compact_revision: compacted,
            cancel_reason: words::COMPACTED.to_owned(),
            ..WatchResponse::default()
        };
        self.answer(cancelled).await
    }

    async fn fed(&mut self, id: i64, fed: Result<Told, Error>) -> Result<(), Ended> {
        match fed {
            Ok(told) => self.told(id, told).await,
            Err(Error::Compacted { compacted, .. }) => {
                self.remove(id);
                self.compacted(id, compacted).await
            }
            Err(Error::Lagged) => match self.remove(id) {
                None => Ok(()),
                Some(watch) => {
                    self.open(id, watch.scope, watch.cursor, watch.wanted).await?;
                    // What was asked of the old feed is asked of the new one.
                    self.watches.values().for_each(|watch| watch.asker.request_progress());
                    Ok(())
                }
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn told(&mut self, id: i64, told: Told) -> Result<(), Ended> {
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        watch.cursor = watch.cursor.max(told.revision);
        let (wanted, is_due) = (watch.wanted.clone(), std::mem::take(&mut watch.is_due));
        let events = events(&self.face, &wanted, &told).await?;
        if events.is_empty() && is_due {
            let header = header(told.revision);
            self.answer(WatchResponse { header, watch_id: id, ..WatchResponse::default() }).await?;
        }
        if !events.is_empty() {
            if let Some(watch) = self.watches.get_mut(&id) {
                watch.is_quiet = false;
            }
            for part in fragments(id, told.revision, events, wanted.fragment) {
                self.answer(part).await?;
            }
        }
        self.tell_progress().await
    }

    /// Answers who asked how far the watches are, once all of them are there.
    async fn tell_progress(&mut self) -> Result<(), Ended> {
        match self.asked {
            Some(asked) if self.watches.values().all(|watch| watch.cursor >= asked) => {
                self.asked = None;
                let header = header(asked);
                self.answer(WatchResponse { header, watch_id: NO_WATCH, ..WatchResponse::default() }).await
            }
            _ => Ok(()),
        }
    }

    /// Those who want to hear of it when nothing happens.
    fn ask_the_quiet(&mut self) {
        self.notify_at = Instant::now() + PROGRESS_EVERY;
        for watch in self.watches.values_mut().filter(|watch| watch.wanted.progress_notify) {
            if std::mem::replace(&mut watch.is_quiet, true) {
                watch.is_due = true;
                watch.asker.request_progress();
            }
        }
    }
}

/// What a watch is told of changes.
async fn events(face: &Face, wanted: &Wanted, told: &Told) -> Result<Vec<Event>, Ended> {
    let (no_put, no_delete) = (FilterType::Noput as i32, FilterType::Nodelete as i32);
    let filter = |change: &Change| if is_removal(change) { no_delete } else { no_put };
    let changes: Vec<&Change> = told.changes.iter().filter(|c| !wanted.filters.contains(&filter(c))).collect();
    let mut before = Vec::new();
    if wanted.prev_kv && !changes.is_empty() {
        let keys = changes.iter().map(|change| (change.key.clone(), change.at.revision)).collect();
        before = face.store.before(keys).await?;
    }
    let mut before = before.into_iter();
    let event = |change: &&Change| Event {
        r#type: if is_removal(change) { EventType::Delete } else { EventType::Put } as i32,
        kv: Some(told_value(change)),
        prev_kv: before.next().flatten().map(|before| words::key_value(&before, false)),
    };
    Ok(changes.iter().map(event).collect())
}

/// A removal has no more than its key and its revision.
fn told_value(change: &Change) -> KeyValue {
    words::key_value(change, is_removal(change))
}

fn is_removal(change: &Change) -> bool {
    change.created == 0
}

/// One answer, or several where the client takes parts and one would be too large.
fn fragments(watch_id: i64, revision: Revision, events: Vec<Event>, may_split: bool) -> Vec<WatchResponse> {
    let mut parts: Vec<Vec<Event>> = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        bytes += event.encoded_len();
        if may_split && bytes > MAX_REQUEST_BYTES && parts.last().is_some_and(|part| !part.is_empty()) {
            bytes = event.encoded_len();
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    let last = parts.len() - 1;
    let part = |(n, events)| WatchResponse {
        header: header(revision),
        watch_id,
        fragment: n < last,
        events,
        ..WatchResponse::default()
    };
    parts.into_iter().enumerate().map(part).collect()
}
