//! A number that many wait to see change.
//!
//! What [`tokio::sync::watch`] is, for a crowd: there each wait queues up where all others do. Here whoever waits leaves a
//! waker in a place of its own once, and to wait again touches nothing that is anybody else's.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// What is told at the end.
const CLOSED: u64 = u64::MAX;

/// There will be no more news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// Tells.
#[derive(Default)]
pub(super) struct Bell {
    /// Written under the lock of `listeners`.
    number: AtomicU64,
    count: AtomicUsize,
    listeners: Mutex<Vec<Arc<AtomicWaker>>>,
}

impl Bell {
    /// Listens for what is told from now on.
    pub(super) fn listen(self: &Arc<Self>) -> Listener {
        let waker = Arc::new(AtomicWaker::new());
        let mut listeners = self.listeners.lock();
        listeners.push(waker.clone());
        self.count.store(listeners.len(), Ordering::Relaxed);
        Listener { heard: self.heard(), bell: self.clone(), waker }
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Tells everyone who listens; whether it was news.
    pub(super) fn tell(&self, number: u64) -> bool {
        let listeners = self.listeners.lock();
        let is_news = ![number, CLOSED].contains(&self.number());
        if is_news {
            self.number.store(number, Ordering::SeqCst);
            listeners.iter().for_each(|waker| waker.wake());
        }
        is_news
    }

    /// Tells everyone that this was all.
    pub(super) fn close(&self) {
        self.tell(CLOSED);
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// What one has heard who has heard everything; the end is heard again and again.
    fn heard(&self) -> Option<u64> {
        Some(self.number()).filter(|number| *number != CLOSED)
    }
}

/// Listens.
pub(super) struct Listener {
    bell: Arc<Bell>,
    waker: Arc<AtomicWaker>,
    /// What was heard last; nothing, where there is something to do whatever is told.
    heard: Option<u64>,
}

impl Listener {
    /// Has heard everything up to now.
    pub(super) fn mark_heard(&mut self) {
        self.heard = self.bell.heard();
    }

    /// Has not heard all yet.
    pub(super) fn mark_unheard(&mut self) {
        self.heard = None;
    }

    /// Waits until there is something that was not heard, and leaves it unheard.
    pub(super) async fn news(&mut self) -> Result<(), Closed> {
        poll_fn(|cx| {
            if !self.has_news() {
                self.waker.register(cx.waker());
            }
            if self.has_news() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if self.bell.number() == CLOSED { Err(Closed) } else { Ok(()) }
    }

    fn has_news(&self) -> bool {
        self.heard != Some(self.bell.number())
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.bell.number()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = self.bell.listeners.lock();
        if let Some(place) = listeners.iter().position(|waker| Arc::ptr_eq(waker, &self.waker)) {
            listeners.swap_remove(place);
        }
        self.bell.count.store(listeners.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn everyone_who_listens_hears_news_until_he_says_that_he_has_heard() {
        let bell = Arc::new(Bell::default());
        let mut listeners = [bell.listen(), bell.listen()];
        assert!(listeners.iter_mut().all(|one| one.news().now_or_never().is_none()));
        let waiting = tokio::spawn({
            let mut third = bell.listen();
            async move { third.news().await }
        });
        tokio::task::yield_now().await;
        assert!(bell.tell(1) && !bell.tell(1));
        waiting.await.unwrap().unwrap();
        for one in &mut listeners {
            assert_eq!((one.news().now_or_never(), one.news().now_or_never()), (Some(Ok(())), Some(Ok(()))));
            one.mark_heard();
            assert_eq!(one.news().now_or_never(), None);
            one.mark_unheard();
            assert_eq!(one.news().now_or_never(), Some(Ok(())));
        }
        assert_eq!(bell.listeners(), 2);
        drop(listeners);
        assert_eq!(bell.listeners(), 0);
    }

    #[tokio::test]
    async fn the_end_is_heard_again_and_again_and_by_whoever_comes_later() {
        let bell = Arc::new(Bell::default());
        let early = bell.listen();
        bell.close();
        assert!(!bell.tell(7));
        for mut one in [early, bell.listen()] {
            assert_eq!(one.news().now_or_never(), Some(Err(Closed)));
            one.mark_heard();
            assert_eq!(one.news().now_or_never(), Some(Err(Closed)));
        }
    }
}
