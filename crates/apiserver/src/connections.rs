//! The connections that are open, and how each is told to end.
//!
//! A connection is looked at with every event that goes through it, a thousand of them for one change where a crowd
//! watches: what it looks at is its own, and no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Context;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Told {
    /// To go on.
    Nothing,
    /// To answer what it was asked, and take no more.
    Finish,
    /// To end as it is.
    Cut,
}

/// Tells one connection.
#[derive(Debug, Default)]
pub(crate) struct End {
    told: AtomicU8,
    waker: AtomicWaker,
}

impl End {
    /// Ends the connection as it is.
    pub(crate) fn cut(&self) {
        self.tell(Told::Cut);
    }

    fn tell(&self, told: Told) {
        self.told.fetch_max(told as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// What the connection is told; the task is woken when that changes.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Told {
        self.waker.register(cx.waker());
        match self.told.load(Ordering::SeqCst) {
            told if told == Told::Cut as u8 => Told::Cut,
            told if told == Told::Finish as u8 => Told::Finish,
            _ => Told::Nothing,
        }
    }
}

/// All that are open.
#[derive(Default)]
pub(crate) struct Connections(Mutex<HashMap<usize, Arc<End>>>);

impl Connections {
    /// One more, until that is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        let end = Arc::new(End::default());
        self.0.lock().insert(place(&end), end.clone());
        Open { end, all: self.clone() }
    }

    /// Tells all to finish what they were asked.
    pub(crate) fn finish(&self) {
        self.0.lock().values().for_each(|end| end.tell(Told::Finish));
    }
}

/// One that is open.
pub(crate) struct Open {
    pub(crate) end: Arc<End>,
    all: Arc<Connections>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.0.lock().remove(&place(&self.end));
    }
}

/// Nobody else's.
fn place(end: &Arc<End>) -> usize {
    Arc::as_ptr(end).addr()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn told(open: &Open) -> Told {
        poll_fn(|cx| match open.end.poll(cx) {
            Told::Nothing => Poll::Pending,
            told => Poll::Ready(told),
        })
        .await
    }

    #[tokio::test]
    async fn those_that_are_open_are_told_and_wake() {
        let all = Arc::<Connections>::default();
        let (one, other) = (all.open(), all.open());
        let waiting = tokio::spawn(async move { (told(&one).await, one) });
        tokio::task::yield_now().await;
        all.finish();
        let (what, one) = waiting.await.unwrap();
        assert_eq!((what, told(&other).await), (Told::Finish, Told::Finish));
        one.end.cut();
        all.finish();
        assert_eq!(told(&one).await, Told::Cut, "to finish is less than to be cut");
        drop((one, other));
        assert!(all.0.lock().is_empty());
    }
}
