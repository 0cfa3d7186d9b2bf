//! WATCH: a cursor in the past of a kind, read as fast as the client takes it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use axum::body::Body;
use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use serde_json::json;
use store::Revision;
use tokio::time::{Instant, Sleep};

use super::revision::{Freshness, parse};
use crate::cache::{CacheEvent, Change, Chunk, Cursor, Entry, FellBehind, Filter, SharedChunk, Urgency};
use crate::call::Call;
use crate::component_status::Presence;
use crate::compress::{self, GzipStream, Packed, takes_gzip};
use crate::negotiate::{Encoding, Output, Shape};
use crate::options::initial_events_by_default;
use crate::respond::{self, ApiResponse};
use crate::server::Shared;
use crate::status::{ApiError, status_of};
use crate::table::{IncludeObject, Table, partial_metadata};

/// How often an idle watcher that asked for it is told how far the world is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before a watch ends its last bookmark is sent.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch without `timeoutSeconds` ends after this long, or up to twice that (`MinRequestTimeout`).
const MIN_DURATION_SECONDS: u64 = 1800;
/// As long as a client likes; beyond a century clocks may overflow.
const MAX_DURATION_SECONDS: u64 = 100 * 365 * 24 * 3600;

pub(super) async fn watch(call: &Call) -> Result<ApiResponse, ApiError> {
    if call.output.encoding != Encoding::Json {
        return Err(ApiError::NotAcceptable("application/json;stream=watch"));
    }
    let filter =
        Filter::parse(call.info.kind.info, call.info.namespace.as_deref(), call.info.name.as_deref(), &call.query)?;
    // In a box: it is handed on with every chunk.
    let watcher = Box::new(Watcher::start(call, filter).await?);
    let gzip = watcher.is_shared() && takes_gzip(call.headers.get_all(ACCEPT_ENCODING));
    let stream = futures::stream::unfold(Some((watcher, gzip.then(GzipStream::default))), |open| async move {
        let (mut watcher, mut gzip) = open?;
        let (chunk, open) = match (watcher.next().await, gzip.as_mut()) {
            (Some(told), None) => (told.plain(), Some((watcher, gzip))),
            (Some(told), Some(stream)) => (told.packed(stream), Some((watcher, gzip))),
            (None, _) => (gzip?.finish(), None),
        };
        Some((Ok::<_, std::convert::Infallible>(chunk), open))
    });
    let mut response = respond::json_body(Body::from_stream(stream));
    if gzip {
        compress::is_gzip(response.headers_mut());
    }
    Ok(response)
}

/// Something to tell.
enum Told {
    /// To this watcher.
    One(Bytes),
    /// To everyone who watches the same.
    All(Arc<SharedChunk>),
}

impl Told {
    fn plain(self) -> Bytes {
        match self {
            Told::One(chunk) => chunk,
            Told::All(chunk) => chunk.plain().clone(),
        }
    }

    fn packed(self, stream: &mut GzipStream) -> Bytes {
        match self {
            Told::One(chunk) => stream.push(&Packed::new(&chunk, &[]), None),
            Told::All(chunk) => stream.push(chunk.packed_after(stream.mark()), chunk.mark()),
        }
    }
}

/// One watch.
struct Watcher {
    shared: Arc<Shared>,
    /// That a component of the control plane watches.
    _presence: Option<Presence>,
    filter: Filter,
    view: View,
    cursor: Option<Cursor>,
    /// What there is at the start, told as ADDED.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// What happened between the revision asked for and now.
    past: std::vec::IntoIter<Arc<CacheEvent>>,
    /// The revision at which the initial state is complete, if the client waits for that word.
    announce: Option<Revision>,
    /// Nothing up to here is told.
    after: Revision,
    bookmarks: bool,
    /// The next bookmark, if the client asked for them, or the deadline. Kept over many events: setting a timer for each
    /// would cost as much as telling it.
    timer: Pin<Box<Sleep>>,
    /// The newest revision told.
    told: Revision,
    deadline: Instant,
    failed: Option<ApiError>,
}

impl Watcher {
    async fn start(call: &Call, filter: Filter) -> Result<Watcher, ApiError> {
        let cache = call.shared.cache.of(call.info.kind);
        let revision = parse(call.info.verb, call.query.get("resourceVersion"))?;
        let streams_list = call.query.flag("sendInitialEvents") || initial_events_by_default(&call.query);
        let (bookmarks, deadline) = (call.query.flag("allowWatchBookmarks"), deadline(call)?);
        let presence = call.shared.components.arrived(&call.user);
        let urgency = if presence.is_some() { Urgency::AtOnce } else { Urgency::InTurn };
        let mut watcher = Watcher {
            shared: call.shared.clone(),
            _presence: presence,
            view: View::of(call)?,
            filter,
            cursor: None,
            initial: Vec::new().into_iter(),
            past: Vec::new().into_iter(),
            announce: None,
            after: 0,
            bookmarks,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            told: 0,
            deadline,
            failed: None,
        };
        watcher.plan_bookmark();
        let from_now = streams_list || (revision.unwrap_or(0) == 0 && !call.query.has("sendInitialEvents"));
        if from_now {
            let known = match call.shared.reach(Freshness::of(call.info.verb, &call.query)?).await {
                // The watch has begun when that turns out.
                Err(future @ ApiError::TooLargeResourceVersion { .. }) => {
                    watcher.failed = Some(future);
                    return Ok(watcher);
                }
                known => known?,
            };
            let (snapshot, cursor) = cache.follow_from_now(&watcher.filter, known, urgency);
            watcher.announce = (streams_list && watcher.bookmarks).then_some(snapshot.revision);
            watcher.after = snapshot.revision;
            watcher.told = snapshot.revision;
            watcher.initial = snapshot.items.into_iter();
            watcher.cursor = Some(cursor);
            return Ok(watcher);
        }
        let revision = match revision {
            // Only what comes from now on is wanted.
            None | Some(0) => call.shared.reach(Freshness::Newest).await?,
            Some(revision) => revision,
        };
        watcher.after = revision;
        watcher.told = revision;
        match cache.follow_after(&watcher.filter, revision, urgency) {
            Ok((past, cursor)) => {
                watcher.past = past.into_iter();
                watcher.cursor = Some(cursor);
            }
            Err(FellBehind) => watcher.failed = Some(expired(revision, cache.complete_after())),
        }
        Ok(watcher)
    }

    /// The next bookmark comes in a while, and once more before the end (`nextBookmarkTime`).
    fn plan_bookmark(&mut self) {
        if self.bookmarks {
            let (now, last) = (Instant::now(), self.deadline - BOOKMARK_BEFORE_END);
            let next = now + BOOKMARK_EVERY;
            let next = if last > now { next.min(last) } else { next };
            self.timer.as_mut().reset(next.min(self.deadline));
        }
    }

    /// Whether what it is told beyond its start is what all others of its kind are told.
    fn is_shared(&self) -> bool {
        self.view.is_plain() && self.filter.is_everything()
    }

    /// The next chunk; `None` when the watch is over.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(error) = self.failed.take() {
                // After an error nothing may follow: clients would go on with a gap they do not know of.
                self.cursor = None;
                return Some(Told::One(error_event(&error)));
            }
            if let Some(chunk) = self.initial_chunk() {
                return Some(Told::One(chunk));
            }
            if let Some(revision) = self.announce.take() {
                self.told = revision;
                return Some(Told::One(self.view.bookmark(&self.filter, revision, true)));
            }
            let bookmark_is_due = self.wait().await? == Woken::ByTimer;
            // Read before the cursor: what the cursor then does not show has not happened up to here.
            let known = self.shared.cache.revision();
            match self.events() {
                Err(FellBehind) => {
                    let oldest = self.shared.cache.revision();
                    self.failed = Some(expired(self.told, oldest));
                }
                Ok(Some(told)) => return Some(told),
                Ok(None) if bookmark_is_due => {
                    self.plan_bookmark();
                    if known > self.told {
                        self.told = known;
                        return Some(Told::One(self.view.bookmark(&self.filter, known, false)));
                    }
                }
                Ok(None) => {}
            }
        }
    }

    fn initial_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Chunk::default();
        for entry in self.initial.by_ref() {
            chunk.push(self.view.frame(Change::Added, &entry));
            if chunk.is_full() {
                break;
            }
        }
        chunk.finish()
    }

    fn events(&mut self) -> Result<Option<Told>, FellBehind> {
        let mut chunk = Chunk::default();
        for event in self.past.by_ref() {
            tell(&self.filter, &mut self.view, self.after, &mut self.told, &event, &mut chunk);
            if chunk.is_full() {
                return Ok(chunk.finish().map(Told::One));
            }
        }
        if let Some(past) = std::mem::take(&mut chunk).finish() {
            return Ok(Some(Told::One(past)));
        }
        let sees_what_all_see = self.told > self.after && self.is_shared();
        let Some(cursor) = self.cursor.as_mut() else { return Ok(None) };
        if sees_what_all_see {
            let Some((chunk, last)) = cursor.read_joined(&self.filter)? else { return Ok(None) };
            self.told = self.told.max(last);
            return Ok(Some(Told::All(chunk)));
        }
        cursor.read(|event| {
            tell(&self.filter, &mut self.view, self.after, &mut self.told, event, &mut chunk);
            !chunk.is_full()
        })?;
        Ok(chunk.finish().map(Told::One))
    }

    /// Waits for news or until the next bookmark is due; `None` at the end.
    async fn wait(&mut self) -> Option<Woken> {
        if self.past.len() > 0 {
            return Some(Woken::ByNews);
        }
        tokio::select! {
            biased;
            news = self.cursor.as_mut()?.news() => news.is_ok().then_some(Woken::ByNews),
            () = &mut self.timer => (Instant::now() < self.deadline).then_some(Woken::ByTimer),
        }
    }
}

/// Why a watcher stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    ByNews,
    ByTimer,
}

fn tell(
    filter: &Filter,
    view: &mut View,
    after: Revision,
    told: &mut Revision,
    event: &Arc<CacheEvent>,
    chunk: &mut Chunk,
) {
    if event.entry.revision <= after {
        return;
    }
    if let Some(change) = event.seen_through(filter) {
        *told = (*told).max(event.entry.revision);
        chunk.push(view.event(change, event));
    }
}

/// The shape in which a watcher sees objects.
struct View {
    kind: &'static Kind,
    output: Output,
    table: Table,
    /// Whether a Table with column definitions has been sent.
    has_columns: bool,
}

impl View {
    fn of(call: &Call) -> Result<View, ApiError> {
        let is_table = call.output.shape == Shape::Table;
        let include = if is_table { IncludeObject::parse(&call.query)? } else { IncludeObject::Metadata };
        let table = Table::new(call.info.kind, include, call.output.meta);
        Ok(View { kind: call.info.kind, output: call.output, table, has_columns: false })
    }

    /// Whether it shows the very bytes the cache has.
    fn is_plain(&self) -> bool {
        self.output.shape == Shape::Object && self.kind.view.is_none()
    }

    fn event(&mut self, change: Change, event: &CacheEvent) -> Bytes {
        if self.is_plain() { event.frame(change) } else { self.frame(change, event.shown(change)) }
    }

    fn frame(&mut self, change: Change, entry: &Arc<Entry>) -> Bytes {
        let entry = entry.shown_as(self.kind);
        let object = match self.output.shape {
            Shape::Object => return entry.frame(change),
            Shape::Metadata | Shape::MetadataList => partial_metadata(entry.json(), self.output.meta),
            Shape::Table => {
                self.table.set_now();
                let columns = !std::mem::replace(&mut self.has_columns, true);
                self.table.of_one_with(entry.json(), columns)
            }
        };
        [change.prefix(), &object, b"}\n"].concat().into()
    }

    /// An event that only tells how far the world is: an object that has nothing but a version.
    fn bookmark(&mut self, filter: &Filter, revision: Revision, initial_end: bool) -> Bytes {
        let (kind, api_version) = match self.output.shape {
            Shape::Object | Shape::Table => (filter.info().kind, filter.info().api_version()),
            Shape::Metadata | Shape::MetadataList => ("PartialObjectMetadata", self.output.meta.to_owned()),
        };
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let mut object =
            json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}).to_string().into_bytes();
        if self.output.shape == Shape::Table {
            self.table.set_now();
            let columns = !std::mem::replace(&mut self.has_columns, true);
            object = self.table.of_one_with(&object, columns);
        }
        [br#"{"type":"BOOKMARK","object":"#.as_slice(), &object, b"}\n"].concat().into()
    }
}

fn deadline(call: &Call) -> Result<Instant, ApiError> {
    let random = || rand::random_range(MIN_DURATION_SECONDS..=2 * MIN_DURATION_SECONDS);
    let seconds = match call.query.integer("timeoutSeconds")? {
        None | Some(0) => random(),
        // Less than nothing is over at once.
        Some(seconds) => u64::try_from(seconds).unwrap_or(0),
    };
    Ok(Instant::now() + Duration::from_secs(seconds.min(MAX_DURATION_SECONDS)))
}

fn expired(asked: Revision, oldest: Revision) -> ApiError {
    ApiError::Expired(format!("too old resource version: {asked} ({oldest})"))
}

/// The end of a history as a watcher sees it: HTTP 200 and an ERROR event.
fn error_event(error: &ApiError) -> Bytes {
    let (_, status) = status_of(error);
    format!("{}\n", json!({"type": "ERROR", "object": status})).into()
}
