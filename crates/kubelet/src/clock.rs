//! What time it is, as an argument: the wall clock, or one that follows tokio's so that tests can pause it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// A clock. Cheap to copy.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The machine's wall clock.
    #[default]
    Wall,
    /// Starts at a wall-clock time and moves as tokio's clock does, also when that is paused and advanced.
    Tokio {
        /// The wall-clock time at the start.
        base: Timestamp,
        /// tokio's time at the start.
        start: Instant,
    },
}

impl Clock {
    /// A clock that follows tokio's, starting now.
    pub fn tokio() -> Clock {
        Clock::Tokio { base: Timestamp::now(), start: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::Wall => Timestamp::now(),
            Clock::Tokio { base, start } => after(*base, start.elapsed()),
        }
    }
}

/// `duration` after `time`, at most the end of time.
pub fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// How long it is from `from` until `to`; zero when `to` has passed.
pub fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
