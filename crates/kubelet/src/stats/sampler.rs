//! Two measurements a moment apart, because a rate needs two. Nothing is measured while nobody asks: the first who does
//! waits for the second measurement, whoever asks soon after is answered from the last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ContainerUsage;
use super::node::NodeUsage;
use crate::runtime::Result;

/// A rate over less than this is noise.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// A rate over more than this says nothing about now.
const WINDOW_MAX: Duration = Duration::from_secs(60);

/// Everything, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The machine.
    pub node: NodeUsage,
    /// Every running container.
    pub containers: Vec<ContainerUsage>,
}

/// Remembers the last two measurements.
#[derive(Default)]
pub struct Sampler {
    last: Mutex<Option<Taken>>,
}

struct Taken {
    at: Instant,
    before: Arc<Snapshot>,
    now: Arc<Snapshot>,
}

impl Sampler {
    /// The last measurement and one before it, made with `measure` where what is known is too old. Those who ask
    /// together share the work.
    pub async fn pair<F>(&self, measure: impl Fn() -> F) -> Result<(Arc<Snapshot>, Arc<Snapshot>)>
    where
        F: Future<Output = Result<Snapshot>>,
    {
        let mut last = self.last.lock().await;
        let age = last.as_ref().map(|taken| taken.at.elapsed());
        let before = match (age, &*last) {
            (Some(age), Some(taken)) if age < WINDOW_MIN => return Ok((taken.before.clone(), taken.now.clone())),
            (Some(age), Some(taken)) if age < WINDOW_MAX => taken.now.clone(),
            _ => {
                let first = Arc::new(measure().await?);
                tokio::time::sleep(WINDOW_MIN).await;
                first
            }
        };
        let now = Arc::new(measure().await?);
        *last = Some(Taken { at: Instant::now(), before: before.clone(), now: now.clone() });
        Ok((before, now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_who_asks_waits_and_the_next_do_not() {
        let (sampler, count) = (Sampler::default(), AtomicU32::new(0));
        let measure = || async {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Snapshot::default())
        };
        for (sentence, pause, measured, waits) in [
            ("nothing is known", Duration::ZERO, 2, true),
            ("known just now", Duration::from_millis(900), 2, false),
            ("known a while ago", Duration::from_secs(15), 3, false),
            ("known too long ago", Duration::from_secs(600), 5, true),
        ] {
            tokio::time::advance(pause).await;
            let asked = Instant::now();
            sampler.pair(measure).await.unwrap();
            assert_eq!(count.load(Ordering::Relaxed), measured, "{sentence}");
            assert_eq!(asked.elapsed() >= WINDOW_MIN, waits, "{sentence}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_together_share_the_work() {
        let (sampler, count) = (Sampler::default(), AtomicU32::new(0));
        let measure = || async {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Snapshot::default())
        };
        let (left, right) = tokio::join!(sampler.pair(measure), sampler.pair(measure));
        assert!(Arc::ptr_eq(&left.unwrap().1, &right.unwrap().1));
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
