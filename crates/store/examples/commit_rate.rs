//! How many durable commits of 2 kB a second the embedded store does, by the number of concurrent writers.
//!
//! `cargo run --release -p store --example commit_rate [DIR [WRITERS]]`
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::embedded::{Embedded, Options};
use store::{Action, Expect, Op, Store};

const VALUE_BYTES: usize = 2048;
const DURATION: Duration = Duration::from_secs(3);

fn main() {
    let root = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("{:>8} {:>12} {:>9} {:>9}", "writers", "commits/s", "p50 ms", "p99 ms");
    let counts = std::env::args().nth(2).map_or(vec![1, 8, 32, 64], |count| vec![count.parse().unwrap()]);
    for writers in counts {
        let dir = tempfile::tempdir_in(Path::new(&root)).unwrap();
        let store = Arc::new(Embedded::open(dir.path(), Options::default()).unwrap());
        let mut latencies = runtime.block_on(write(store, writers));
        latencies.sort_unstable();
        let at = |percent: usize| latencies[latencies.len() * percent / 100].as_secs_f64() * 1000.0;
        let rate = latencies.len() as f64 / DURATION.as_secs_f64();
        println!("{writers:>8} {rate:>12.0} {:>9.2} {:>9.2}", at(50), at(99));
    }
}

async fn write(store: Arc<Embedded>, writers: usize) -> Vec<Duration> {
    let end = Instant::now() + DURATION;
    let writers: Vec<_> = (0..writers).map(|writer| tokio::spawn(write_until(store.clone(), writer, end))).collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.unwrap());
    }
    latencies
}

/// New keys, as creating pods does.
async fn write_until(store: Arc<Embedded>, writer: usize, end: Instant) -> Vec<Duration> {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let key = format!("/registry/pods/default/w{writer}-{}", latencies.len());
        let op = Op { key, expect: Expect::Absent, action: Action::Put(value.clone(), None) };
        let start = Instant::now();
        store.commit(vec![op]).await.unwrap();
        latencies.push(start.elapsed());
    }
    latencies
}
