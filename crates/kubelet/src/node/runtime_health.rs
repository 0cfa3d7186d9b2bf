//! Whether the container runtime answers. It is asked every few seconds in a task of its own, so that one that hangs
//! delays nobody; if it has not answered for a while, the node says so and is not ready (`pkg/kubelet/runtime.go`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Kubelet;

/// How long the runtime may take to say that it is there.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Asks until dropped; `down` is true while the runtime has not answered for too long.
pub(super) async fn watch(kubelet: Arc<Kubelet>, down: watch::Sender<bool>) {
    let config = &kubelet.config;
    let mut beat = tokio::time::interval(config.runtime_ping_interval);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answered = Instant::now();
    loop {
        beat.tick().await;
        match tokio::time::timeout(ANSWER_MAX, kubelet.runtime.ping()).await {
            Ok(Ok(())) => answered = Instant::now(),
            Ok(Err(error)) => tracing::warn!(%error, "the container runtime does not answer"),
            Err(_) => tracing::warn!("the container runtime hangs"),
        }
        let is_down = answered.elapsed() > config.runtime_grace;
        down.send_if_modified(|last| std::mem::replace(last, is_down) != is_down);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::clock::Clock;
    use crate::runtime::Runtime;
    use crate::runtime::hollow::Hollow;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_hangs_is_down_after_its_grace_and_back_at_once() {
        let hollow = Hollow::new(Clock::tokio());
        let config = Config::new("box1", [127, 0, 0, 1].into(), "/nonexistent");
        let (grace, machine) = (config.runtime_grace, hollow.machine().await.unwrap());
        let kubelet = crate::testing::kubelet(&hollow, &machine, config, &crate::testing::empty_api());
        let (sender, mut down) = watch::channel(false);
        let watching = tokio::spawn(super::watch(kubelet, sender));
        tokio::time::sleep(grace * 3).await;
        assert!(!*down.borrow(), "it answers");
        hollow.hang(true);
        let hung = Instant::now();
        down.wait_for(|down| *down).await.unwrap();
        assert!(
            hung.elapsed() > grace - Duration::from_secs(5) && hung.elapsed() < grace + 2 * ANSWER_MAX,
            "{:?}",
            hung.elapsed()
        );
        hollow.hang(false);
        let back = Instant::now();
        down.wait_for(|down| !*down).await.unwrap();
        assert!(back.elapsed() <= 2 * ANSWER_MAX, "{:?}", back.elapsed());
        watching.abort();
    }
}
