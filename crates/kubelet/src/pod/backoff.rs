//! How long a container that ended waits before it runs again: not at all the first time, then 10 s doubling to 5 min,
//! forgotten after 10 min of running (`pkg/kubelet/kubelet.go` `backOffPeriod`, `MaxContainerBackOff`).
//!
//! The wait is written on the container it follows, so a kubelet that starts again still knows it.

use std::time::Duration;

/// The first wait that is one.
pub const INITIAL: Duration = Duration::from_secs(10);
/// The longest wait.
pub const MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts over.
pub const RESET_AFTER: Duration = Duration::from_secs(600);

/// What to wait after the end of a container and what to write on its successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The successor starts this long after the end.
    pub wait: Duration,
    /// The wait after the successor's end, if that comes soon.
    pub next: Duration,
}

/// The step after a container on which `wait` was written and which ran for `ran`.
pub fn step(wait: Duration, ran: Duration) -> Step {
    if ran >= RESET_AFTER {
        return Step { wait: Duration::ZERO, next: INITIAL };
    }
    Step { wait, next: (wait * 2).clamp(INITIAL, MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_restart_is_at_once_then_waits_double_to_five_minutes() {
        let mut waits = Vec::new();
        let mut written = Duration::ZERO;
        for _ in 0..8 {
            let step = step(written, Duration::from_secs(1));
            waits.push(step.wait.as_secs());
            written = step.next;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_are_forgiven() {
        let forgiven = step(MAX, RESET_AFTER);
        assert_eq!(forgiven, Step { wait: Duration::ZERO, next: INITIAL });
    }
}
