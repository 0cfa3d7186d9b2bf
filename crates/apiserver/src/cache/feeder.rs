//! Keeps the cache equal to the store: one list at start, then one watch; after a failed watch the next one, or a new
//! list compared with what is held.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use store::{Event, KeyValue, ListRequest, Revision, Store};
use tokio_util::sync::CancellationToken;

use super::entry::{Change, Entry};
use super::kind_cache::{KindCache, Update};
use super::{Cache, REGISTRY};

/// Objects read from the store at once.
const PAGE: usize = 1000;
/// How many revisions of the past a cache starts with, and how long reading them may delay the start.
const HISTORY: Revision = 2_000;
const REPLAY_MAX: Duration = Duration::from_secs(2);
/// The first and the longest pause before the store is asked again after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// Fills an empty cache: with the state of a while ago, as far as the store remembers it, and what has happened since. So
/// watchers of a server that was restarted go on where they were.
pub(crate) async fn load(cache: &Cache, store: &dyn Store) -> Result<(), store::Error> {
    let now = store.revision().await?;
    let from = Some((now - HISTORY).max(1)).filter(|from| *from < now);
    let listed = match list(store, from).await {
        Err(store::Error::Compacted { compacted, .. }) if compacted < now => list(store, Some(compacted.max(1))).await,
        listed => listed,
    };
    let (items, revision) = match listed {
        Err(store::Error::Compacted { .. }) => list(store, None).await?,
        listed => listed?,
    };
    fill(cache, items, revision);
    if revision < now && tokio::time::timeout(REPLAY_MAX, replay(cache, store, now)).await.is_err() {
        tracing::debug!("the past is still being read");
    }
    Ok(())
}

/// Follows the store up to `until`. Whatever fails here is tried again by those who follow it for good.
async fn replay(cache: &Cache, store: &dyn Store, until: Revision) {
    let Ok(mut batches) = store.watch(REGISTRY, cache.revision()).await else { return };
    // The last revisions may have changed nothing that is watched.
    let _ = store.request_progress().await;
    while cache.revision() < until {
        let Some(Ok(batch)) = batches.next().await else { return };
        apply(cache, &batch.events, batch.revision);
    }
}

/// Makes the cache what was listed.
fn fill(cache: &Cache, items: Vec<KeyValue>, revision: Revision) {
    let mut by_kind: HashMap<&str, Vec<Arc<Entry>>> = HashMap::new();
    for item in items {
        if let Some(kind_cache) = cache.of_key(&item.key)
            && let Some(entry) = decode(kind_cache, &item, Change::Added)
        {
            by_kind.entry(kind_cache.kind.info.plural).or_default().push(entry);
        }
    }
    for kind_cache in cache.kinds() {
        kind_cache.reset(by_kind.remove(kind_cache.kind.info.plural).unwrap_or_default(), revision);
    }
    cache.revision.send_replace(revision);
}

/// Feeds the cache until told to stop; then its watchers are told that this was all.
pub(crate) async fn run(cache: Arc<Cache>, store: Arc<dyn Store>, stop: CancellationToken) {
    stop.run_until_cancelled(feed(&cache, &*store)).await;
    cache.close();
}

async fn feed(cache: &Cache, store: &dyn Store) {
    let mut pause = BACKOFF.0;
    loop {
        let after = cache.revision();
        let outcome = follow(cache, store, after).await;
        if cache.revision() > after {
            pause = BACKOFF.0;
        }
        let again = match outcome {
            Ok(()) | Err(store::Error::Lagged) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the watch on the store failed; comparing with a new list");
                resync(cache, store).await
            }
        };
        if let Err(error) = again {
            tracing::warn!(%error, "the store cannot be listed");
        }
        // A failed store is asked again after a growing pause.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn follow(cache: &Cache, store: &dyn Store, after: Revision) -> Result<(), store::Error> {
    let mut batches = store.watch(REGISTRY, after).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        apply(cache, &batch.events, batch.revision);
    }
    Ok(())
}

/// Takes in events of whole revisions, then tells everyone how far the cache is.
fn apply(cache: &Cache, events: &[Event], revision: Revision) {
    let mut by_kind: Vec<(&Arc<KindCache>, Vec<Update>)> = Vec::new();
    for event in events {
        let Some(kind_cache) = cache.of_key(event.key()) else { continue };
        let Some(update) = update(cache, kind_cache, event) else { continue };
        match by_kind.iter_mut().find(|(k, _)| Arc::ptr_eq(k, kind_cache)) {
            Some((_, updates)) => updates.push(update),
            None => by_kind.push((kind_cache, vec![update])),
        }
    }
    for (kind_cache, updates) in by_kind {
        kind_cache.apply(updates, revision);
    }
    cache.revision.send_if_modified(|r| {
        let newer = revision > *r;
        *r = revision.max(*r);
        newer
    });
}

fn update(cache: &Cache, kind_cache: &KindCache, event: &Event) -> Option<Update> {
    match event {
        Event::Put { current } => {
            let revisions = (current.create_revision, current.mod_revision);
            let change = if revisions.0 == revisions.1 { Change::Added } else { Change::Modified };
            let Some(select) = cache.hints.take(&current.key, &current.value) else {
                return decode(kind_cache, current, change).map(Update::Put);
            };
            let key = current.key.clone();
            let entry = Entry::known(kind_cache.kind, key, &current.value, revisions, change, select);
            Some(Update::Put(Arc::new(entry)))
        }
        Event::Delete { key, revision } => Some(Update::Delete(key.clone(), *revision)),
    }
}

/// One broken object never stops the rest: it is left out, and said so.
fn decode(kind_cache: &KindCache, item: &KeyValue, change: Change) -> Option<Arc<Entry>> {
    let revisions = (item.create_revision, item.mod_revision);
    match Entry::new(kind_cache.kind, item.key.clone(), &item.value, revisions, change) {
        Ok(entry) => Some(Arc::new(entry)),
        Err(error) => {
            tracing::error!(key = %item.key, %error, "stored object cannot be decoded");
            None
        }
    }
}

/// Everything, as of `revision` or now.
async fn list(store: &dyn Store, revision: Option<Revision>) -> Result<(Vec<KeyValue>, Revision), store::Error> {
    let mut request =
        ListRequest { prefix: REGISTRY.to_owned(), limit: Some(PAGE), revision, ..ListRequest::default() };
    let mut items = Vec::new();
    loop {
        let page = store.list(request.clone()).await?;
        let revision = page.revision;
        request.after = page.items.last().map(|i| i.key.to_string());
        request.revision = Some(request.revision.unwrap_or(revision));
        items.extend(page.items);
        if page.remaining == 0 || request.after.is_none() {
            return Ok((items, request.revision.unwrap_or(revision)));
        }
    }
}

/// Lists the store and takes in what differs, as the events a watch would have told.
async fn resync(cache: &Cache, store: &dyn Store) -> Result<(), store::Error> {
    let (items, revision) = list(store, None).await?;
    if revision < cache.revision() {
        tracing::error!(revision, "the store has an older history than it had; every watcher starts over");
        load(cache, store).await?;
        return Ok(());
    }
    let mut held: HashMap<&str, _> = HashMap::new();
    let mut updates: HashMap<&str, Vec<Update>> = HashMap::new();
    for kind_cache in cache.kinds() {
        held.insert(kind_cache.kind.info.plural, kind_cache.entries());
    }
    for item in &items {
        let Some(kind_cache) = cache.of_key(&item.key) else { continue };
        let plural = kind_cache.kind.info.plural;
        let known = held.get_mut(plural).and_then(|h| h.remove(&*item.key));
        updates.entry(plural).or_default().extend(difference(kind_cache, item, known));
    }
    for kind_cache in cache.kinds() {
        let plural = kind_cache.kind.info.plural;
        let mut updates = updates.remove(plural).unwrap_or_default();
        let gone = held.remove(plural).unwrap_or_default().into_keys();
        updates.extend(gone.map(|key| Update::Delete(key, revision)));
        updates.sort_by_key(Update::revision);
        kind_cache.apply(updates, revision);
    }
    cache.revision.send_replace(revision);
    Ok(())
}

/// What a watch would have told between the version held and the one listed.
fn difference(kind_cache: &KindCache, item: &KeyValue, known: Option<Arc<Entry>>) -> Vec<Update> {
    let put = |change| decode(kind_cache, item, change).map(Update::Put);
    match known {
        None => put(Change::Added).into_iter().collect(),
        Some(known) if known.revision == item.mod_revision => Vec::new(),
        Some(known) if known.create_revision == item.create_revision => put(Change::Modified).into_iter().collect(),
        // Another object of the same name: the one we know has ended in between.
        Some(known) => {
            let gone = Update::Delete(known.key.clone(), item.create_revision);
            std::iter::once(gone).chain(put(Change::Added)).collect()
        }
    }
}
