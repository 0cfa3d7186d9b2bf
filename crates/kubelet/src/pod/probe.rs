//! Probes, purely: which of them a container has, when they are due, and how results add up to a verdict
//! (`pkg/kubelet/prober/worker.go`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};

use crate::clock::{after, until};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Whether the container has started; until then no other probe runs.
    Startup,
    /// Whether it may be sent requests.
    Readiness,
    /// Whether it is worth keeping.
    Liveness,
}

impl Kind {
    /// As events name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// What all probes of one container say so far; `None` where a probe has not yet said enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Of the startup probe.
    pub started: Option<bool>,
    /// Of the readiness probe.
    pub ready: Option<bool>,
    /// Of the liveness probe.
    pub alive: Option<bool>,
    /// Whether its postStart hook failed.
    pub hook_failed: bool,
}

impl Health {
    /// The verdict of a kind of probe.
    pub fn of(&mut self, kind: Kind) -> &mut Option<bool> {
        match kind {
            Kind::Startup => &mut self.started,
            Kind::Readiness => &mut self.ready,
            Kind::Liveness => &mut self.alive,
        }
    }

    /// Whether the container is to be ended for what its probes and hook said.
    pub fn is_fatal(&self) -> bool {
        self.hook_failed || self.alive == Some(false) || self.started == Some(false)
    }
}

/// The probes `container` has.
pub fn probes(container: &Container) -> impl Iterator<Item = (Kind, &Probe)> {
    let all = [
        (Kind::Startup, &container.startup_probe),
        (Kind::Readiness, &container.readiness_probe),
        (Kind::Liveness, &container.liveness_probe),
    ];
    all.into_iter().filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
}

/// The probes of a running `container` that are to run now: the startup probe until it succeeded, then the others; none
/// that has given up; and in a pod that ends only readiness is still asked for.
pub fn wanted(container: &Container, health: Health, ending: bool) -> Vec<Kind> {
    let started = container.startup_probe.is_none() || health.started == Some(true);
    let runs = |kind| match kind {
        _ if health.is_fatal() => false,
        Kind::Startup => !started && !ending,
        Kind::Readiness => started,
        Kind::Liveness => started && !ending,
    };
    probes(container).map(|(kind, _)| kind).filter(|kind| runs(*kind)).collect()
}

/// The same result over and over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    success: bool,
    count: i32,
}

impl Run {
    /// Counts one more result; the verdict, once enough of them agree.
    pub fn step(&mut self, success: bool, probe: &Probe) -> Option<bool> {
        self.count = if self.success == success { self.count.saturating_add(1) } else { 1 };
        self.success = success;
        let threshold = if success { probe.success_threshold } else { probe.failure_threshold };
        let default = if success { 1 } else { 3 };
        (self.count >= threshold.filter(|t| *t > 0).unwrap_or(default)).then_some(success)
    }
}

/// A number of seconds of a probe, at least one.
fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(default))
}

/// How long one try may take.
pub fn timeout(probe: &Probe) -> Duration {
    seconds(probe.timeout_seconds, 1)
}

/// The time between two tries.
pub fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10)
}

/// When a container that `started_at` is first asked. One that ran before this kubelet did, which began `at`, is asked
/// after a random part (`dice`, of 1) of the period, so that not all probes of a node run at once.
pub fn first(probe: &Probe, started_at: Timestamp, at: Timestamp, dice: f64) -> Timestamp {
    let delay = u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0);
    let due = after(started_at, Duration::from_secs(delay));
    if started_at >= at {
        return due;
    }
    due.max(after(at, period(probe).mul_f64(dice.clamp(0.0, 1.0))))
}

/// The try after that which was due at `last`, at `now`: a whole number of periods later, those missed left out.
pub fn next(probe: &Probe, last: Timestamp, now: Timestamp) -> Timestamp {
    let period = period(probe);
    let passed = until(last, now).as_nanos() / period.as_nanos();
    after(last, period.saturating_mul(u32::try_from(passed + 1).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::at;
    use super::*;

    fn probe(value: serde_json::Value) -> Probe {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn results_add_up_to_a_verdict_at_their_thresholds() {
        let twice = probe(json!({"successThreshold": 2, "failureThreshold": 3}));
        let cases = [
            ("one success is not two", "+", None),
            ("two are", "++", Some(true)),
            ("a failure between begins anew", "+-+", None),
            ("two failures are not three", "++--", None),
            ("three are", "++---", Some(false)),
            ("and go on being so", "++----", Some(false)),
            ("until enough successes", "++----++", Some(true)),
        ];
        for (sentence, results, expected) in cases {
            let mut run = Run::default();
            let last = results.chars().map(|r| run.step(r == '+', &twice)).last().unwrap();
            assert_eq!(last, expected, "{sentence}");
        }
        let mut run = Run::default();
        assert_eq!(run.step(true, &Probe::default()), Some(true), "one success is enough unless said otherwise");
        let said: Vec<_> = (0..3).map(|_| run.step(false, &Probe::default())).collect();
        assert_eq!(said, [None, None, Some(false)]);
    }

    #[test]
    fn other_probes_wait_for_the_startup_probe() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "startupProbe": {}, "livenessProbe": {}, "readinessProbe": {}}))
                .unwrap();
        let health = |started, alive| Health { started, alive, ..Health::default() };
        let cases = [
            ("at first only it runs", health(None, None), false, vec![Kind::Startup]),
            ("then the others", health(Some(true), None), false, vec![Kind::Readiness, Kind::Liveness]),
            ("a failed start is final", health(Some(false), None), false, vec![]),
            ("as is a dead container", health(Some(true), Some(false)), false, vec![]),
            ("a pod that ends is still ready or not", health(Some(true), None), true, vec![Kind::Readiness]),
        ];
        for (sentence, health, ending, expected) in cases {
            assert_eq!(wanted(&container, health, ending), expected, "{sentence}");
        }
    }

    #[test]
    fn tries_keep_their_rhythm_whatever_one_takes() {
        let probe = probe(json!({"initialDelaySeconds": 5, "periodSeconds": 10}));
        assert_eq!(first(&probe, at(100), at(0), 0.5), at(105));
        assert_eq!(first(&probe, at(-100), at(0), 0.5), at(5), "an adopted container waits a part of the period");
        assert_eq!(first(&probe, at(-1), at(0), 0.1), at(4), "and not less than its delay");
        assert_eq!(next(&probe, at(105), at(106)), at(115));
        assert_eq!(next(&probe, at(105), at(114)), at(115));
        assert_eq!(next(&probe, at(105), at(131)), at(135), "what was missed is left out");
    }
}
