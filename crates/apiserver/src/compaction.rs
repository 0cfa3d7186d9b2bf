//! Forgets history that is older than one interval, as kube-apiservers do for etcd and beside them
//! (`apiserver/pkg/storage/etcd3/compact.go`): who changes a key of its own since he last saw it compacts, and everybody
//! else waits for the next time. So several servers compact as one, and another takes over from one that is gone.

use std::sync::Arc;
use std::time::Duration;

use store::{Action, Error, Expect, Op, Revision, Store};
use tokio_util::sync::CancellationToken;

/// The key, with the revision that was compacted; how often it was written is the servers' common clock.
const COMPACT_REV_KEY: &str = "compact_rev_key";

/// Compacts the store to where it was one interval ago, once per interval.
pub(crate) async fn run(store: Arc<dyn Store>, interval: Duration, stop: CancellationToken) {
    let mut compactor = Compactor::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        match compactor.step(&*store).await {
            Ok(Some(revision)) => tracing::debug!(revision, "compacted"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the store cannot be compacted"),
        }
    }
}

/// What one server knows.
#[derive(Debug, Default)]
struct Compactor {
    /// The revision that last wrote the key, when it was seen; 0 where it was not there.
    seen: Revision,
    /// The newest revision at that time; 0 at the start.
    revision: Revision,
}

impl Compactor {
    /// What is done after each interval; returns what was compacted.
    async fn step(&mut self, store: &dyn Store) -> Result<Option<Revision>, Error> {
        let before = self.revision;
        let claim = Op {
            key: COMPACT_REV_KEY.to_owned(),
            expect: if self.seen == 0 { Expect::Absent } else { Expect::Unchanged(self.seen) },
            action: Action::Put(before.to_string().into(), None),
        };
        match store.commit(vec![claim]).await {
            Ok(revision) => (self.seen, self.revision) = (revision, revision),
            Err(Error::Conflict { current, .. }) => {
                self.seen = current.map_or(0, |current| current.mod_revision);
                self.revision = store.revision().await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        if before == 0 {
            return Ok(None);
        }
        match store.compact(before).await {
            // By hand, for one.
            Err(Error::Compacted { .. }) => Ok(None),
            compacted => compacted.map(|()| Some(before)),
        }
    }
}

#[cfg(test)]
mod tests {
    use store::embedded::Embedded;

    use super::*;

    async fn key(store: &dyn Store) -> (String, Revision) {
        let found = store.get(COMPACT_REV_KEY, None).await.unwrap().0.unwrap();
        (String::from_utf8(found.value.to_vec()).unwrap(), found.mod_revision)
    }

    async fn write(store: &dyn Store) -> Revision {
        let op = Op { key: "/a".into(), expect: Expect::Any, action: Action::Put("x".into(), None) };
        store.commit(vec![op]).await.unwrap()
    }

    #[tokio::test]
    async fn of_two_servers_one_compacts_and_the_other_takes_over() {
        let store = Embedded::in_memory().unwrap();
        let (mut one, mut two) = (Compactor::default(), Compactor::default());
        write(&store).await;
        assert_eq!(one.step(&store).await.unwrap(), None, "nothing is forgotten at the start");
        let (value, first) = key(&store).await;
        assert_eq!(value, "0");
        write(&store).await;
        assert_eq!(two.step(&store).await.unwrap(), None, "it sees that somebody does it");
        let seen = write(&store).await;
        assert_eq!(one.step(&store).await.unwrap(), Some(first), "what was there an interval ago");
        assert_eq!(key(&store).await, (first.to_string(), seen + 1));
        assert!(matches!(store.get("/a", Some(first - 1)).await, Err(Error::Compacted { .. })));
        assert_eq!(two.step(&store).await.unwrap(), None);
        let newest = write(&store).await;
        // The first is gone.
        assert_eq!(two.step(&store).await.unwrap(), Some(newest - 1), "to where it was when it last looked");
        assert_eq!(one.step(&store).await.unwrap(), None, "and the first, if it comes back, waits");
        assert_eq!(two.step(&store).await.unwrap(), Some(newest + 1));
    }

    #[tokio::test]
    async fn who_compacts_by_hand_or_removes_the_key_disturbs_nobody() {
        let store = Embedded::in_memory().unwrap();
        let mut one = Compactor::default();
        one.step(&store).await.unwrap();
        let newest = write(&store).await;
        store.compact(newest).await.unwrap();
        assert_eq!(one.step(&store).await.unwrap(), None, "it is compacted further than was wanted");
        let gone = Op { key: COMPACT_REV_KEY.into(), expect: Expect::Any, action: Action::Delete };
        store.commit(vec![gone]).await.unwrap();
        assert_eq!(one.step(&store).await.unwrap(), None);
        assert_eq!(one.step(&store).await.unwrap(), Some(newest + 2));
    }
}
