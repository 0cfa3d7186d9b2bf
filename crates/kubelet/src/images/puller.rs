//! Pulls, many at a time but not all at once. Pods that want the same image with the same credentials wait for one pull;
//! it ends when none of them waits any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::ImageError;
use crate::runtime::image::Progress;
use crate::runtime::{Credentials, Image, Runtime};

/// Pulls at a time where nobody says (`maxParallelImagePulls`).
pub const DEFAULT_PARALLEL: usize = 5;

/// How long a pull takes before it is said how far it is.
const FIRST_TOLD: Duration = Duration::from_secs(30);

/// What was pulled.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The image.
    pub image: Image,
    /// Which of the credentials the registry accepted; `None`: it asked for none.
    pub accepted: Option<usize>,
    /// How long the pull itself took.
    pub took: Duration,
}

type Pulled = Result<Pull, ImageError>;
type Flight = BoxFuture<'static, Pulled>;

/// The pulls under way, by what is pulled with which credentials: whoever wants the same joins.
type Flights = HashMap<(String, Vec<Credentials>), (WeakShared<Flight>, Arc<Progress>)>;

/// All pulls of a node.
pub struct Puller {
    slots: Arc<Semaphore>,
    flights: Mutex<Flights>,
}

impl Default for Puller {
    fn default() -> Puller {
        Puller::new(DEFAULT_PARALLEL)
    }
}

impl Puller {
    /// At most `parallel` pulls at a time; more wait.
    pub fn new(parallel: usize) -> Puller {
        Puller { slots: Arc::new(Semaphore::new(parallel.max(1))), flights: Mutex::default() }
    }

    /// Pulls `image` with the first of `credentials` that its registry accepts, or without any where there are none.
    pub async fn pull(&self, runtime: &Arc<dyn Runtime>, image: &str, credentials: Vec<Credentials>) -> Pulled {
        self.flight(runtime, image, credentials).0.await
    }

    /// Like [`Puller::pull`]; calls `tell` with the bytes that are here and those to come, as long as it takes: after half
    /// a minute, and then each time after twice as long as before.
    pub async fn pull_and_tell(
        &self,
        runtime: &Arc<dyn Runtime>,
        image: &str,
        credentials: Vec<Credentials>,
        mut tell: impl FnMut(u64, u64) + Send,
    ) -> Pulled {
        let (mut flight, progress) = self.flight(runtime, image, credentials);
        let mut wait = FIRST_TOLD;
        loop {
            match tokio::time::timeout(wait, &mut flight).await {
                Ok(pulled) => return pulled,
                Err(_) => wait *= 2,
            }
            if let Some((done, total)) = progress.bytes() {
                tell(done, total);
            }
        }
    }

    fn flight(
        &self,
        runtime: &Arc<dyn Runtime>,
        image: &str,
        credentials: Vec<Credentials>,
    ) -> (Shared<Flight>, Arc<Progress>) {
        let key = (image.to_owned(), credentials);
        let mut flights = self.flights.lock();
        if let Some((flight, progress)) = flights.get(&key)
            && let Some(flight) = flight.upgrade().filter(|flight| flight.peek().is_none())
        {
            return (flight, progress.clone());
        }
        flights.retain(|_, (flight, _)| flight.upgrade().is_some());
        let progress = Arc::new(Progress::default());
        let told = progress.clone();
        let (runtime, slots, (image, credentials)) = (runtime.clone(), self.slots.clone(), key.clone());
        let flight: Flight = Box::pin(async move {
            let failed = |message: String| ImageError { reason: "ErrImagePull", message };
            let _slot = slots.acquire().await.map_err(|error| failed(error.to_string()))?;
            let begun = Instant::now();
            let (image, accepted) = super::pull(runtime.as_ref(), &image, &credentials, &told).await?;
            Ok(Pull { image, accepted, took: begun.elapsed() })
        });
        let flight = flight.shared();
        flights.extend(flight.downgrade().map(|weak| (key, (weak, progress.clone()))));
        (flight, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::hollow::Hollow;

    #[tokio::test(start_paused = true)]
    async fn one_pull_serves_all_who_want_the_same() {
        let hollow = Hollow::default();
        hollow.slow_pulls(Duration::from_secs(10));
        let runtime: Arc<dyn Runtime> = Arc::new(hollow.clone());
        let puller = Puller::new(2);
        let pull = |image: &'static str| puller.pull(&runtime, image, Vec::new());
        let begun = Instant::now();
        let (a, b, c, d) = tokio::join!(pull("one"), pull("one"), pull("two"), pull("three"));
        assert_eq!(hollow.pulls(), 3, "two share one");
        assert_eq!(begun.elapsed().as_secs(), 20, "two at a time, and the third after them");
        for pulled in [a, b, c, d] {
            assert_eq!(pulled.unwrap().took.as_secs(), 10, "waiting is not pulling");
        }
        pull("one").await.unwrap();
        assert_eq!(hollow.pulls(), 4, "who comes later pulls again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_pull_tells_how_far_it_is_ever_more_rarely() {
        let hollow = Hollow::default();
        hollow.put_image("one", 1000);
        hollow.slow_pulls(Duration::from_secs(1000));
        let runtime: Arc<dyn Runtime> = Arc::new(hollow.clone());
        let puller = Puller::new(1);
        let begun = Instant::now();
        let told = Mutex::new(Vec::new());
        let tell = |done, total| told.lock().push((begun.elapsed().as_secs(), done, total));
        let watched = puller.pull_and_tell(&runtime, "one", Vec::new(), tell);
        let (watched, joined) = tokio::join!(watched, puller.pull(&runtime, "one", Vec::new()));
        watched.unwrap();
        joined.unwrap();
        assert_eq!(*told.lock(), [(30, 0, 1000), (90, 0, 1000), (210, 0, 1000), (450, 0, 1000), (930, 500, 1000)]);
        assert_eq!(hollow.pulls(), 1);

        hollow.slow_pulls(Duration::from_secs(20));
        let none = |_, _| panic!("a short pull tells nothing");
        puller.pull_and_tell(&runtime, "one", Vec::new(), none).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_nobody_waits_for_ends() {
        let hollow = Hollow::default();
        hollow.slow_pulls(Duration::from_secs(1000));
        let runtime: Arc<dyn Runtime> = Arc::new(hollow.clone());
        let puller = Puller::new(1);
        let given_up = tokio::time::timeout(Duration::from_secs(1), puller.pull(&runtime, "one", Vec::new())).await;
        assert!(given_up.is_err());
        hollow.slow_pulls(Duration::ZERO);
        puller.pull(&runtime, "two", Vec::new()).await.unwrap();
    }
}
