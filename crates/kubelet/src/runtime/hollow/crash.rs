//! Where whoever drives the machine dies: calls that never return, counted by halves.

use parking_lot::Mutex;
use tokio::sync::watch;

/// How many halves of calls are still to return.
#[derive(Default)]
pub(super) struct Crash {
    left: Mutex<Option<u64>>,
    happened: watch::Sender<bool>,
}

impl Crash {
    /// After so many halves from now on; `None`: never.
    pub(super) fn at(&self, step: Option<u64>) {
        *self.left.lock() = step;
        self.happened.send_replace(false);
    }

    /// One half of a call; returns unless its caller dies here.
    pub(super) async fn point(&self) {
        let dies = match self.left.lock().as_mut() {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if dies {
            self.happened.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    /// Waits for it.
    pub(super) async fn happened(&self) {
        // The sender is ours.
        let _ = self.happened.subscribe().wait_for(|happened| *happened).await;
    }
}
