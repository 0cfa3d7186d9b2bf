//! How many ended containers are kept, and for how long (`pkg/kubelet/kuberuntime/kuberuntime_gc.go`). Those of one name are
//! the pod's worker's; those of the whole node are counted here, where there is a bound on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::Kubelet;
use crate::clock::after;
use crate::runtime::{Container, Runtime};

/// How often the node's ended containers are counted, if there is a bound on them (`ContainerGCPeriod`).
const PERIOD: Duration = Duration::from_secs(60);

/// What is kept of containers that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Of each name in a pod (`--maximum-dead-containers-per-container`); `None`: all.
    pub per_container: Option<usize>,
    /// On the node (`--maximum-dead-containers`); `None`: all.
    pub on_node: Option<usize>,
    /// How long each stays at least after it was made (`--minimum-container-ttl-duration`).
    pub min_age: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { per_container: Some(1), on_node: None, min_age: Duration::ZERO }
    }
}

/// An ended container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its pod's UID.
    pub uid: String,
    /// Its name in the pod.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// Which of its name's lives it was.
    pub attempt: i32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Those of `dead` that are too many on the node: at first every name keeps the same number, and at least one; then the
/// oldest go. Planning again on what is left gives nothing.
pub fn plan(dead: &[Dead], policy: &Policy, now: Timestamp) -> Vec<String> {
    let Some(max) = policy.on_node else { return Vec::new() };
    let mut names: BTreeMap<(&str, &str), Vec<&Dead>> = BTreeMap::new();
    let old = dead.iter().filter(|dead| after(dead.created_at, policy.min_age) <= now);
    for dead in old {
        names.entry((&dead.uid, &dead.name)).or_default().push(dead);
    }
    let count: usize = names.values().map(Vec::len).sum();
    if count <= max {
        return Vec::new();
    }
    let newest_first = |dead: &&Dead| std::cmp::Reverse((dead.attempt, dead.created_at));
    let each = (max / names.len().max(1)).max(1);
    let (mut kept, mut gone): (Vec<&Dead>, Vec<&Dead>) = (Vec::new(), Vec::new());
    for mut lives in names.into_values() {
        lives.sort_by_key(newest_first);
        gone.extend(lives.drain(each.min(lives.len())..));
        kept.extend(lives);
    }
    kept.sort_by_key(|dead| std::cmp::Reverse(dead.created_at));
    gone.extend(kept.drain(max.min(kept.len())..));
    gone.into_iter().map(|dead| dead.id.clone()).collect()
}

/// Those of a pod's `containers` that go where the disk is short: all that are old enough, of a pod that is over. What comes
/// next for one that goes on depends on its ended lives, and their logs are asked for (`evictContainers`).
pub fn of_the_over(containers: &[Container], over: bool, policy: &Policy, now: Timestamp) -> Vec<String> {
    let goes = |one: &&Container| over && one.exit().is_some() && after(one.created_at, policy.min_age) <= now;
    containers.iter().filter(goes).map(|one| one.id.clone()).collect()
}

/// Counts again and again, until dropped.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    if kubelet.config.dead_containers.on_node.is_none() {
        return;
    }
    let mut beat = tokio::time::interval(PERIOD);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let dead = dead(&*kubelet.runtime).await;
        for id in plan(&dead, &kubelet.config.dead_containers, kubelet.config.clock.now()) {
            if let Err(error) = kubelet.runtime.remove(&id).await {
                tracing::warn!(id, %error, "cannot remove a dead container");
            }
        }
    }
}

/// Every ended container of the node that nobody needs: the last life of one that does not run now says how long its
/// back-off is.
pub(crate) async fn dead(runtime: &dyn Runtime) -> Vec<Dead> {
    let mut all = Vec::new();
    for known in runtime.pods().await.unwrap_or_default() {
        let Ok(state) = runtime.pod_state(&known.identity.uid).await else { continue };
        let all_lives = state.containers.clone();
        let is_last =
            |one: &Container| all_lives.iter().all(|c| c.name != one.name || c.restart_count <= one.restart_count);
        let ended = state.containers.into_iter().filter(|c| c.exit().is_some() && !is_last(c));
        all.extend(ended.map(|container| Dead {
            uid: known.identity.uid.clone(),
            name: container.name,
            id: container.id,
            attempt: container.restart_count,
            created_at: container.created_at,
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// `pod/name/attempt`, made at that second.
    fn dead(all: &[(&str, i64)]) -> Vec<Dead> {
        let one = |(id, second): &(&str, i64)| {
            let parts: Vec<&str> = id.split('/').collect();
            let (uid, name) = (parts[0].to_owned(), parts[1].to_owned());
            Dead { uid, name, id: (*id).to_owned(), attempt: parts[2].parse().unwrap(), created_at: at(*second) }
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn the_node_keeps_no_more_than_it_may() {
        let all = dead(&[("p/a/0", 1), ("p/a/1", 2), ("p/a/2", 3), ("p/b/0", 4), ("q/a/0", 5)]);
        let policy = |on_node, min_age| Policy { on_node, min_age: Duration::from_secs(min_age), ..Policy::default() };
        for (sentence, policy, expected) in [
            ("without a bound all stay", policy(None, 0), vec![]),
            ("within it, too", policy(Some(5), 0), vec![]),
            ("each name keeps its share", policy(Some(4), 0), vec!["p/a/1", "p/a/0"]),
            (
                "which is one at least, and then the oldest go",
                policy(Some(1), 0),
                vec!["p/a/1", "p/a/0", "p/b/0", "p/a/2"],
            ),
            ("none is kept", policy(Some(0), 0), vec!["p/a/1", "p/a/0", "q/a/0", "p/b/0", "p/a/2"]),
            ("who is young neither goes nor counts", policy(Some(1), 97), vec!["p/a/1", "p/a/0"]),
        ] {
            let gone = plan(&all, &policy, at(100));
            assert_eq!(gone, expected, "{sentence}");
            let left: Vec<Dead> = all.iter().filter(|dead| !gone.contains(&dead.id)).cloned().collect();
            assert!(plan(&left, &policy, at(100)).is_empty(), "planned again: {sentence}");
        }
    }

    #[test]
    fn only_what_is_over_is_emptied() {
        use crate::pod::testing::{World, exited, pod};
        use crate::runtime::Phase;
        let web = pod(serde_json::json!({"containers": [{"name": "c"}]}));
        let world = World::default().container(&web, "c", "s", exited(1, 1)).container(&web, "c", "s", Phase::Running);
        let (policy, now) = (Policy::default(), crate::pod::testing::at(10));
        let old = Policy { min_age: Duration::from_secs(11), ..policy };
        for (sentence, over, policy, expected) in [
            ("one that goes on keeps its ended lives", false, policy, [].as_slice()),
            ("of one that is over they go, and nothing that runs", true, policy, &["c-0"]),
            ("but what is young stays", true, old, &[]),
        ] {
            assert_eq!(of_the_over(&world.state.containers, over, &policy, now), expected, "{sentence}");
        }
    }
}
