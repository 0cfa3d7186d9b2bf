//! Many watchers: how fast a burst reaches them all, and how late a steady stream of changes does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::load;
use crate::parts::Bench;
use crate::report::Samples;
use crate::stream::Accepts;

/// What a burst is.
const BURST_WATCHERS: usize = 50;
const BURST_CHANGES: usize = 10_000;

/// What a crowd is.
const CROWD_WATCHERS: usize = 1000;
const CROWD_CHANGES_A_SECOND: u32 = 200;
const CROWD_SECONDS: u32 = 10;
const CROWD_PODS: usize = 100;
/// Of so many watchers that take gzip one reads what he is told, and says how late it was.
const CROWD_READ: usize = 8;
/// What an event is at least, compressed together with others.
const LEAST_BYTES: usize = 100;

/// How long the last event may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Events that arrived, and a wake when all have.
struct Arrivals {
    expected: usize,
    seen: AtomicUsize,
    all: Notify,
}

impl Arrivals {
    fn new(expected: usize) -> Arc<Arrivals> {
        Arc::new(Arrivals { expected, seen: AtomicUsize::new(0), all: Notify::new() })
    }

    fn add(&self, events: usize) {
        if self.seen.fetch_add(events, Ordering::Relaxed) + events >= self.expected {
            self.all.notify_one();
        }
    }

    async fn wait(&self) -> Result<()> {
        let late = || format!("{} of {} events arrived", self.seen.load(Ordering::Relaxed), self.expected);
        tokio::time::timeout(PATIENCE, self.all.notified()).await.with_context(late)
    }
}

/// Creates as fast as 32 clients can, with watchers on everything.
pub(crate) async fn burst(bench: &mut Bench) -> Result<()> {
    let master = bench.api_server("apiserver").await?;
    let arrivals = Arrivals::new(BURST_WATCHERS * BURST_CHANGES);
    let seen = arrivals.clone();
    let streams = load::watchers(&master.target, BURST_WATCHERS, Accepts::Plain, move |_, chunk| {
        seen.add(memchr::memchr_iter(b'\n', chunk).count());
    })
    .await?;
    let begun = Instant::now();
    load::create_pods(&master.target, 32, BURST_CHANGES, "burst").await?;
    arrivals.wait().await?;
    #[allow(clippy::cast_precision_loss)]
    let rate = (BURST_WATCHERS * BURST_CHANGES) as f64 / begun.elapsed().as_secs_f64();
    drop(streams);
    bench.report.add("watch events a second to 50 watchers, in a burst", format!("{rate:.0}"), "≥ 200,000");
    Ok(())
}

/// What stands before the time a change was sent at, in nanoseconds since the part began.
const MARK: &[u8] = br#""sent":""#;
/// How far from an event's start that is at most.
const MARK_WITHIN: usize = 4096;

/// Changes at a steady pace, each carrying the time it was sent at, with a crowd watching.
pub(crate) async fn crowd(bench: &mut Bench) -> Result<()> {
    let gzip = crowd_that(bench, Accepts::Gzip).await?;
    let name = "1,000 watchers at 200 changes a second, as client-go watches (gzip), median";
    bench.report.add(name, gzip, "p99 ≤ 20 ms");
    let plain = crowd_that(bench, Accepts::Plain).await?;
    bench.report.add("the same without compression", plain, "");
    Ok(())
}

async fn crowd_that(bench: &mut Bench, accepts: Accepts) -> Result<String> {
    let master = bench.master(&["--components", "apiserver"]).await?;
    let target = &master.target;
    load::create_pods(target, 8, CROWD_PODS, "crowd").await?;
    let epoch = Instant::now();
    let changes = (CROWD_CHANGES_A_SECOND * CROWD_SECONDS) as usize;
    // To decompress a stream costs a client more than to send it costs the server, and all of them are on these processors.
    let (read, unread) = match accepts {
        Accepts::Plain => (CROWD_WATCHERS, 0),
        _ => (CROWD_WATCHERS / CROWD_READ, CROWD_WATCHERS - CROWD_WATCHERS / CROWD_READ),
    };
    let bytes = Arc::new(AtomicUsize::new(0));
    let counted = bytes.clone();
    let others = load::watchers(target, unread, Accepts::GzipUnread, move |_, chunk| {
        counted.fetch_add(chunk.len(), Ordering::Relaxed);
    })
    .await?;
    let arrivals = Arrivals::new(read * changes);
    let latencies: Arc<Mutex<Vec<Duration>>> = Arc::new(Mutex::new(Vec::with_capacity(read * changes)));
    let (seen, kept) = (arrivals.clone(), latencies.clone());
    let streams = load::watchers(target, read, accepts, move |arrived, chunk| {
        let now = arrived.duration_since(epoch);
        let found: Vec<Duration> = sent(chunk).map(|sent| now.saturating_sub(sent)).collect();
        kept.lock().extend(found);
        seen.add(memchr::memchr_iter(b'\n', chunk).count());
    })
    .await?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / CROWD_CHANGES_A_SECOND);
    let mut connection = target.connect().await?;
    for number in 0..changes {
        pace.tick().await;
        let path = format!("/api/v1/namespaces/default/pods/crowd-{}", number % CROWD_PODS);
        let nanos = epoch.elapsed().as_nanos();
        let body = format!(r#"{{"metadata":{{"annotations":{{"sent":"{nanos:020}"}}}}}}"#);
        connection.call(Method::PATCH, &path, Bytes::from(body)).await?;
    }
    arrivals.wait().await?;
    drop(streams);
    ensure!(others.len() == unread, "a watch ended early");
    let least = unread * changes * LEAST_BYTES;
    ensure!(bytes.load(Ordering::Relaxed) >= least, "less came than so many events are");
    drop(others);
    let samples = Samples::new(std::mem::take(&mut *latencies.lock()));
    Ok(format!("{:.1} ms, p99 {:.1} ms", samples.milliseconds(0.5), samples.milliseconds(0.99)))
}

/// The times in a chunk; one that the chunk's end cuts off is one sample less. They stand in the first half of an event, so
/// that looking for them costs little.
fn sent(chunk: &[u8]) -> impl Iterator<Item = Duration> {
    let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', chunk).map(|end| end + 1));
    starts.filter_map(|start| {
        let head = &chunk[start..chunk.len().min(start + MARK_WITHIN)];
        let at = memchr::memmem::find(head, MARK)? + MARK.len();
        Some(Duration::from_nanos(std::str::from_utf8(head.get(at..at + 20)?).ok()?.parse().ok()?))
    })
}
