//! Many watchers: how fast a burst reaches them all, and how late a steady stream of changes does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::load;
use crate::parts::Bench;
use crate::report::Samples;

/// What a burst is.
const BURST_WATCHERS: usize = 50;
const BURST_CHANGES: usize = 10_000;

/// What a crowd is.
const CROWD_WATCHERS: usize = 1000;
const CROWD_CHANGES_A_SECOND: u32 = 200;
const CROWD_SECONDS: u32 = 10;
const CROWD_PODS: usize = 100;

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
    let master = bench.master(&["--components", "apiserver"]).await?;
    let arrivals = Arrivals::new(BURST_WATCHERS * BURST_CHANGES);
    let seen = arrivals.clone();
    let streams = load::watchers(&master.target, BURST_WATCHERS, move |_, chunk| {
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
    let master = bench.master(&["--components", "apiserver"]).await?;
    let target = &master.target;
    load::create_pods(target, 8, CROWD_PODS, "crowd").await?;
    let epoch = Instant::now();
    let changes = (CROWD_CHANGES_A_SECOND * CROWD_SECONDS) as usize;
    let arrivals = Arrivals::new(CROWD_WATCHERS * changes);
    let latencies: Arc<Mutex<Vec<Duration>>> = Arc::new(Mutex::new(Vec::with_capacity(CROWD_WATCHERS * changes)));
    let (seen, kept) = (arrivals.clone(), latencies.clone());
    let streams = load::watchers(target, CROWD_WATCHERS, move |arrived, chunk| {
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
    let samples = Samples::new(std::mem::take(&mut *latencies.lock()));
    let figure = format!("{:.1} ms, p99 {:.1} ms", samples.milliseconds(0.5), samples.milliseconds(0.99));
    bench.report.add("1,000 watchers at 200 changes a second, median", figure, "p99 ≤ 20 ms");
    Ok(())
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
