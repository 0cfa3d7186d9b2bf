//! Forgets what is long past. A burst of changes would otherwise be held until as many others have followed it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Cache;

/// For how long the past is held at least, as far as there is room; up to twice that. (Upstream's is 75 s:
/// `eventFreshDuration` in `apiserver/pkg/storage/cacher/watch_cache.go`.)
const AGE: Duration = Duration::from_secs(75);

/// Forgets the old past of all kinds. Sleeps while nothing happens and little is held.
pub(crate) async fn age(cache: Arc<Cache>, stop: CancellationToken) {
    let mut revision = cache.revision.subscribe();
    // What was replayed at the start ages too.
    revision.mark_changed();
    let forget = async {
        // The sender lives as long as the cache.
        while revision.changed().await.is_ok() {
            tokio::time::sleep(AGE).await;
            while cache.age() {
                tokio::time::sleep(AGE).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = forget => {}
    }
}

#[cfg(test)]
mod tests {
    use api::kinds;
    use serde_json::json;
    use store::KeyValue;
    use store::embedded::Embedded;
    use tokio::time::Instant;

    use super::super::kind_cache::Update;
    use super::*;
    use crate::cache::{Change, Entry, FellBehind, Filter, Urgency};
    use crate::query::Query;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_forgotten_and_who_follows_live_misses_nothing() {
        let cache = Arc::new(Cache::new(Arc::new(Embedded::in_memory().unwrap())));
        let stop = CancellationToken::new();
        let aging = tokio::spawn(age(cache.clone(), stop.clone()));
        let kind = kinds().find(|kind| kind.info.plural == "configmaps").unwrap();
        let held = cache.of(kind).clone();
        let change = |revision: i64| {
            let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "ns"},
                "data": {"a": "b".repeat(10_000)}});
            let key_value = KeyValue {
                key: "/registry/configmaps/ns/m".into(),
                value: value.to_string().into(),
                create_revision: 2,
                mod_revision: revision,
            };
            let (key, value) = (key_value.key.clone(), &key_value.value);
            let entry = Entry::new(kind, key, value, (2, revision), Change::Modified).unwrap();
            held.apply(vec![Update::Put(Arc::new(entry))], revision);
            cache.revision.send_replace(revision);
        };
        let filter = Filter::parse(kind.info, None, None, &Query::parse(None)).unwrap();
        let (_, mut cursor) = held.follow_from_now(&filter, 1, Urgency::AtOnce);
        (2..=201).for_each(change);
        let (past, _) = held.follow_after(&filter, 1, Urgency::AtOnce).unwrap();
        assert_eq!(past.len(), 200);
        let mut seen = 0;
        cursor
            .read(|_| {
                seen += 1;
                true
            })
            .unwrap();
        assert_eq!(seen, 200);
        let begun = Instant::now();
        tokio::time::sleep(2 * AGE + Duration::from_secs(1)).await;
        assert!(begun.elapsed() < 3 * AGE);
        assert_eq!(held.follow_after(&filter, 1, Urgency::AtOnce).err(), Some(FellBehind));
        let (past, _) = held.follow_after(&filter, held.complete_after(), Urgency::AtOnce).unwrap();
        assert!((10..100).contains(&past.len()), "a little stays: {}", past.len());
        change(202);
        cursor
            .read(|event| {
                assert_eq!(event.entry.revision, 202);
                true
            })
            .unwrap();
        stop.cancel();
        aging.await.unwrap();
    }
}
