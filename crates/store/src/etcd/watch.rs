//! Watches on etcd: one stream each.
//!
//! Responses are taken whole (fragments are not asked for, the message limit is raised instead), and etcd never splits a
//! revision over two responses, so neither do our batches. A batch with events is complete up to its last event only:
//! the header of a watcher that is catching up is ahead of its events.
//!
//! Progress: asking etcd for it is trustworthy from 3.4.31, 3.5.13 and 3.6 on. Before, the answer may overtake events
//! (etcd issue 15220). There each watch finds out by itself: it knows how many keys its prefix has (it counts what its
//! events create and delete), and if etcd finds the same number and no key written after the cursor, nothing happened.

use etcd_client::{GetOptions, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use futures::StreamExt;
use tokio::sync::watch;

use super::convert::{Failure, event, header_revision, prefix_end};
use super::{Etcd, MAX_MESSAGE_BYTES, Reader, bounded};
use crate::{Error, Event, Revision, WatchBatch, WatchStream};

/// Asks all watches how far they are.
pub(super) struct Progress {
    asked: watch::Sender<u64>,
    /// Whether etcd's own answer can be trusted.
    native: bool,
}

impl Progress {
    pub(super) fn of_version(version: &str) -> Progress {
        Progress { asked: watch::Sender::new(0), native: has_safe_progress(version) }
    }

    pub(super) fn request(&self) {
        self.asked.send_modify(|times| *times += 1);
    }
}

/// kube-apiserver draws the line at the same versions.
fn has_safe_progress(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor, patch) = (parts.next(), parts.next(), parts.next().unwrap_or(0));
    match (major.unwrap_or(0), minor.unwrap_or(0)) {
        (3, 4) => patch >= 31,
        (3, 5) => patch >= 13,
        version => version >= (3, 6),
    }
}

/// Starts a watch of what happens after `after`.
pub(super) async fn watch(etcd: &Etcd, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
    let mut reader = Reader { kv: etcd.kv(), timeout: etcd.timeout, prefix: prefix.into() };
    let asked = etcd.progress.asked.subscribe();
    let after = after.max(0);
    let keys = match keys_at(&mut reader, after).await {
        Ok(keys) => keys,
        Err(failure) => return Err(etcd.explain(failure, after + 1).await),
    };
    let (sender, responses) = open(etcd, prefix, after.saturating_add(1)).await?;
    let native = etcd.progress.native || keys.is_none();
    let feed = Feed { reader, sender, responses, asked, native, wanted: false, keys: keys.unwrap_or(0), cursor: after };
    Ok(futures::stream::unfold(Some(feed), step).boxed())
}

/// How many keys the prefix had after `after`; `None` where that cannot be known. Fails if `after + 1` is compacted.
async fn keys_at(reader: &mut Reader, after: Revision) -> Result<Option<i64>, Failure> {
    let count = |revision| GetOptions::new().with_count_only().with_revision(revision);
    let checked = match reader.range(count(after.max(1))).await {
        Ok(found) if after > 0 => return Ok(Some(found.count())),
        // Revision 1 is still held: there was nothing before it.
        Ok(_) => return Ok(Some(0)),
        Err(Failure::Compacted) if after > 0 => reader.range(count(after.saturating_add(1))).await,
        Err(failure) => Err(failure),
    };
    match checked {
        Ok(_) | Err(Failure::Future) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn open(etcd: &Etcd, prefix: &str, from: Revision) -> Result<(WatchRequestSender, WatchResponseStream), Error> {
    let mut client = etcd.client.watch_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let options = WatchOptions::new().with_range(prefix_end(prefix)).with_start_revision(from).with_progress_notify();
    let start = if prefix.is_empty() { "\0" } else { prefix };
    let stream = bounded(etcd.timeout, client.watch(start, Some(options))).await.map_err(Failure::into_error)?;
    Ok(stream.split())
}

/// The compacted revision, which etcd tells watches only: one from the beginning on is refused with it.
pub(super) async fn compacted(etcd: &Etcd) -> Result<Revision, Error> {
    let first = GetOptions::new().with_count_only().with_revision(1);
    match etcd.range(b"\0".to_vec(), first).await {
        Err(Failure::Compacted) => {}
        Ok(_) => return Ok(1),
        Err(failure) => return Err(failure.into_error()),
    }
    // Until it ends the sender keeps the stream open.
    let (_sender, mut responses) = open(etcd, "", 1).await?;
    let refusal = async {
        while let Some(response) = responses.message().await? {
            if response.compact_revision() > 0 {
                return Ok(Some(response.compact_revision()));
            }
        }
        Ok(None)
    };
    match bounded(etcd.timeout, refusal).await.map_err(Failure::into_error)? {
        Some(compacted) => Ok(compacted),
        None => Err(Error::Unavailable("etcd ended a watch without a reason".to_owned())),
    }
}

/// One watch.
struct Feed {
    reader: Reader,
    sender: WatchRequestSender,
    responses: WatchResponseStream,
    asked: watch::Receiver<u64>,
    /// Ask etcd itself for progress.
    native: bool,
    /// Somebody asked for progress and has not been told.
    wanted: bool,
    /// How many keys the prefix has at the cursor; unused where `native`.
    keys: i64,
    cursor: Revision,
}

/// What a watch woke up for.
enum Woken {
    Response(Option<Result<WatchResponse, etcd_client::Error>>),
    Asked,
}

/// The next batch; after an error the stream is over.
async fn step(feed: Option<Feed>) -> Option<(Result<WatchBatch, Error>, Option<Feed>)> {
    let mut feed = feed?;
    match feed.next().await {
        Ok(batch) => Some((Ok(batch), Some(feed))),
        Err(error) => Some((Err(error), None)),
    }
}

impl Feed {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        loop {
            if self.wanted
                && let Some(batch) = self.verify_progress().await?
            {
                return Ok(batch);
            }
            let woken = tokio::select! {
                biased;
                response = self.responses.next() => Woken::Response(response),
                Ok(()) = self.asked.changed() => Woken::Asked,
            };
            match woken {
                Woken::Asked if self.native => {
                    self.sender.request_progress().await.map_err(|error| Failure::from(error).into_error())?;
                }
                Woken::Asked => self.wanted = true,
                Woken::Response(response) => {
                    if let Some(batch) = self.response(response)? {
                        return Ok(batch);
                    }
                }
            }
        }
    }

    fn response(
        &mut self,
        response: Option<Result<WatchResponse, etcd_client::Error>>,
    ) -> Result<Option<WatchBatch>, Error> {
        let response = match response {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(Failure::from(error).into_error()),
            None => return Err(Error::Unavailable("etcd closed the watch".to_owned())),
        };
        if response.compact_revision() > 0 {
            return Err(Error::Compacted { requested: self.cursor + 1, compacted: response.compact_revision() });
        }
        if response.canceled() {
            return Err(Error::Unavailable(format!("etcd cancelled the watch: {}", response.cancel_reason())));
        }
        if response.created() {
            return Ok(None);
        }
        let events: Vec<Event> = response.events().iter().filter_map(event).collect();
        self.keys += events.iter().map(key_change).sum::<i64>();
        let revision = events.last().map_or(header_revision(response.header()), Event::revision);
        if events.is_empty() && revision < self.cursor {
            return Ok(None);
        }
        self.cursor = revision;
        Ok(Some(WatchBatch { events, revision }))
    }

    /// A progress notice, if nothing happened since the cursor. Otherwise the events will come, and this is asked again.
    async fn verify_progress(&mut self) -> Result<Option<WatchBatch>, Error> {
        let newer = GetOptions::new().with_min_mod_revision(self.cursor + 1).with_keys_only();
        let found = self.reader.range(newer).await.map_err(Failure::into_error)?;
        let revision = header_revision(found.header());
        if !found.kvs().is_empty() || found.count() != self.keys {
            return Ok(None);
        }
        self.wanted = false;
        if revision < self.cursor {
            return Ok(None);
        }
        self.cursor = revision;
        Ok(Some(WatchBatch { events: Vec::new(), revision }))
    }
}

/// What an event does to the number of keys.
fn key_change(event: &Event) -> i64 {
    match event {
        Event::Put { current, .. } => i64::from(current.create_revision == current.mod_revision),
        Event::Delete { .. } => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_trusted_where_etcd_was_mended() {
        for (version, safe) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0", true),
            ("3.3.9", false),
        ] {
            assert_eq!(has_safe_progress(version), safe, "{version}");
        }
    }
}
