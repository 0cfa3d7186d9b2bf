//! What may run short, when it does, and the conditions that follow (`pkg/kubelet/eviction/api`, `helpers.go`). Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use api::quantity::{Format, Quantity};
use jiff::Timestamp;

use crate::clock::after;
use crate::stats::node::NodeUsage;

/// Something of which there may be too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory.
    MemoryAvailable,
    /// Bytes on the disk of pods' files.
    NodefsAvailable,
    /// Entries on it.
    NodefsInodesFree,
    /// Bytes on the disk of images.
    ImagefsAvailable,
    /// Entries on it.
    ImagefsInodesFree,
    /// Process ids.
    PidAvailable,
}

impl Signal {
    const ALL: [(&'static str, Signal); 6] = [
        ("memory.available", Signal::MemoryAvailable),
        ("nodefs.available", Signal::NodefsAvailable),
        ("nodefs.inodesFree", Signal::NodefsInodesFree),
        ("imagefs.available", Signal::ImagefsAvailable),
        ("imagefs.inodesFree", Signal::ImagefsInodesFree),
        ("pid.available", Signal::PidAvailable),
    ];

    /// As thresholds name it.
    pub fn name(self) -> &'static str {
        Signal::ALL.iter().find(|(_, signal)| *signal == self).map_or("", |(name, _)| *name)
    }

    fn named(name: &str) -> Result<Signal, String> {
        let known = Signal::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, signal)| *signal).ok_or_else(|| format!("unsupported eviction signal {name}"))
    }

    /// The resource a pod uses of it.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodefsAvailable | Signal::ImagefsAvailable => "ephemeral-storage",
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }

    /// Whether removing images and dead containers helps.
    pub fn is_disk(self) -> bool {
        !matches!(self, Signal::MemoryAvailable | Signal::PidAvailable)
    }
}

/// A part of what there is, or so much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes or a count.
    Quantity(u64),
    /// Percent of the capacity.
    Percent(f64),
}

impl Amount {
    /// Of a capacity.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Amount::Quantity(quantity) => quantity,
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    /// `100Mi`, `10%`.
    fn from_str(text: &str) -> Result<Amount, String> {
        let wrong = || format!("must be positive, and an amount or a percentage below 100: {text}");
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.parse().map_err(|_| wrong())?;
                (0.0..100.0).contains(&percent).then_some(Amount::Percent(percent)).ok_or_else(wrong)
            }
            None => {
                let quantity: Quantity = text.parse().map_err(|_| wrong())?;
                u64::try_from(quantity.units()).map(Amount::Quantity).map_err(|_| wrong())
            }
        }
    }
}

/// How little is too little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// Less than this.
    pub amount: Amount,
    /// How long it may be so before pods go: a soft threshold. `None`: not at all.
    pub grace: Option<Duration>,
    /// How much more than this is won back once pods go.
    pub min_reclaim: Option<Amount>,
}

/// `memory.available=VALUE`, as flags about single signals have it.
pub fn of_signal<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<(Signal, T), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} does not look like signal=value"))?;
    Ok((Signal::named(name)?, parse(value).map_err(|error| format!("{name}: {error}"))?))
}

/// `thresholds` with their grace periods, of which each has one.
pub fn soft(thresholds: &[Threshold], graces: &[(Signal, Duration)]) -> Result<Vec<Threshold>, String> {
    let with_grace = |threshold: &Threshold| {
        let name = threshold.signal.name();
        let found = graces.iter().find(|(signal, _)| *signal == threshold.signal);
        let grace =
            found.ok_or_else(|| format!("grace period must be specified for the soft eviction threshold {name}"))?;
        Ok(Threshold { grace: Some(grace.1), ..*threshold })
    };
    thresholds.iter().map(with_grace).collect()
}

impl FromStr for Threshold {
    type Err = String;

    /// `memory.available<100Mi`, `nodefs.available<10%`.
    fn from_str(text: &str) -> Result<Threshold, String> {
        let (name, amount) =
            text.split_once('<').ok_or_else(|| format!("{text:?} does not look like signal<amount"))?;
        let signal = Signal::named(name)?;
        let amount = amount.parse().map_err(|error| format!("eviction threshold {name} {error}"))?;
        Ok(Threshold { signal, amount, grace: None, min_reclaim: None })
    }
}

/// Upstream's hard thresholds.
pub fn defaults() -> Vec<Threshold> {
    let threshold = |signal, amount| Threshold { signal, amount, grace: None, min_reclaim: None };
    vec![
        threshold(Signal::MemoryAvailable, Amount::Quantity(100 << 20)),
        threshold(Signal::NodefsAvailable, Amount::Percent(10.0)),
        threshold(Signal::NodefsInodesFree, Amount::Percent(5.0)),
        threshold(Signal::ImagefsAvailable, Amount::Percent(15.0)),
        threshold(Signal::ImagefsInodesFree, Amount::Percent(5.0)),
    ]
}

/// How much there is of something, and how much is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Left.
    pub available: u64,
    /// All.
    pub capacity: u64,
}

/// Of each signal that can be measured here.
pub type Observations = BTreeMap<Signal, Observation>;

/// What a measurement of the machine says. What a file system does not count (capacity 0) never runs short.
pub fn observe(usage: &NodeUsage) -> Observations {
    let memory = usage.usage.memory.and_then(|memory| {
        let capacity = memory.limit?;
        Some(Observation { available: capacity.saturating_sub(memory.working_set), capacity })
    });
    let pids = usage.max_processes.zip(usage.usage.processes);
    let pids = pids.map(|(capacity, used)| Observation { available: capacity.saturating_sub(used), capacity });
    let disk = |available, capacity| Observation { available, capacity };
    [
        (Signal::MemoryAvailable, memory),
        (Signal::NodefsAvailable, usage.fs.map(|fs| disk(fs.available, fs.capacity))),
        (Signal::NodefsInodesFree, usage.fs.map(|fs| disk(fs.inodes_free, fs.inodes))),
        (Signal::ImagefsAvailable, usage.image_fs.map(|fs| disk(fs.available, fs.capacity))),
        (Signal::ImagefsInodesFree, usage.image_fs.map(|fs| disk(fs.inodes_free, fs.inodes))),
        (Signal::PidAvailable, pids),
    ]
    .into_iter()
    .filter_map(|(signal, observation)| Some((signal, observation.filter(|o| o.capacity > 0)?)))
    .collect()
}

/// The thresholds that are met, the one whose resource matters most first: memory, then disks; of one resource the hard
/// one first. With `reclaiming` one is met until as much has been won back as is to be.
pub fn met(thresholds: &[Threshold], observations: &Observations, reclaiming: bool) -> Vec<Threshold> {
    let is_met = |threshold: &&Threshold| {
        let observed = observations.get(&threshold.signal);
        observed.is_some_and(|observed| {
            let more = threshold.min_reclaim.filter(|_| reclaiming).map_or(0, |more| more.of(observed.capacity));
            observed.available < threshold.amount.of(observed.capacity).saturating_add(more)
        })
    };
    let mut met: Vec<Threshold> = thresholds.iter().filter(is_met).copied().collect();
    met.sort_by_key(|threshold| (threshold.signal, threshold.grace));
    met
}

/// The thresholds that are met, and since when: what a round of the eviction manager leaves for the next one
/// (`synchronize` in `pkg/kubelet/eviction/eviction_manager.go`).
#[derive(Clone, Debug, Default)]
pub struct Thresholds {
    since: Vec<(Threshold, Timestamp)>,
    /// Those by which pods went last time: they count until enough is won back.
    due: Vec<Threshold>,
}

impl Thresholds {
    /// Takes in what is observed at `now`.
    pub fn observe(&mut self, all: &[Threshold], observations: &Observations, now: Timestamp) {
        let mut short = met(all, observations, false);
        let unresolved = met(&self.due, observations, true).into_iter().filter(|t| !short.contains(t));
        let unresolved: Vec<Threshold> = unresolved.collect();
        short.extend(unresolved);
        short.sort_by_key(|threshold| (threshold.signal, threshold.grace));
        let since = |t: &Threshold| self.since.iter().find(|(known, _)| known == t).map_or(now, |(_, since)| *since);
        self.since = short.iter().map(|threshold| (*threshold, since(threshold))).collect();
        let is_due = |(t, since): &&(Threshold, Timestamp)| t.grace.is_none_or(|grace| after(*since, grace) <= now);
        self.due = self.since.iter().filter(is_due).map(|(threshold, _)| *threshold).collect();
    }

    /// Those that are met: what conditions are made from.
    pub fn short(&self) -> Vec<Threshold> {
        self.since.iter().map(|(threshold, _)| *threshold).collect()
    }

    /// Those that have been met for long enough that something must be done.
    pub fn due(&self) -> &[Threshold] {
        &self.due
    }
}

/// What the machine runs short of, as conditions of the node say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk, or entries on it.
    pub disk: bool,
    /// Process ids.
    pub pids: bool,
}

impl fmt::Display for Pressure {
    /// `[DiskPressure]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pids, "PIDPressure")];
        let on: Vec<&str> = all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        write!(f, "[{}]", on.join(" "))
    }
}

/// When each signal was last short, so that a condition stays for a while and pods are not sent back at once
/// (`--eviction-pressure-transition-period`).
#[derive(Clone, Debug, Default)]
pub struct Shortages(BTreeMap<Signal, Timestamp>);

impl Shortages {
    /// The conditions, given what is `met` at `now`.
    pub fn pressure(&mut self, met: &[Threshold], now: Timestamp, transition: Duration) -> Pressure {
        self.0.extend(met.iter().map(|threshold| (threshold.signal, now)));
        self.0.retain(|_, last| *last == now || after(*last, transition) > now);
        let any = |of: fn(&Signal) -> bool| self.0.keys().any(of);
        Pressure {
            memory: any(|signal| *signal == Signal::MemoryAvailable),
            disk: any(|signal| signal.is_disk()),
            pids: any(|signal| *signal == Signal::PidAvailable),
        }
    }
}

/// An amount as messages show it.
pub fn shown(signal: Signal, amount: u64) -> String {
    let units = i64::try_from(amount).unwrap_or(i64::MAX);
    let format = match signal {
        Signal::MemoryAvailable | Signal::NodefsAvailable | Signal::ImagefsAvailable => Format::BinarySi,
        _ => Format::DecimalSi,
    };
    Quantity::from_units(units, format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_read_as_upstreams_flag() {
        for (text, expected) in [
            ("memory.available<100Mi", Ok((Signal::MemoryAvailable, Amount::Quantity(100 << 20)))),
            ("nodefs.inodesFree<5%", Ok((Signal::NodefsInodesFree, Amount::Percent(5.0)))),
            ("pid.available<1k", Ok((Signal::PidAvailable, Amount::Quantity(1000)))),
            ("cpu.available<1", Err("unsupported eviction signal cpu.available")),
            ("memory.available", Err("does not look like")),
            ("memory.available<-1", Err("must be positive")),
            ("nodefs.available<100%", Err("below 100")),
            ("nodefs.available<x%", Err("below 100")),
        ] {
            let parsed = text.parse::<Threshold>();
            match expected {
                Ok((signal, amount)) => {
                    assert_eq!(parsed, Ok(Threshold { signal, amount, grace: None, min_reclaim: None }), "{text}");
                }
                Err(message) => assert!(parsed.unwrap_err().contains(message), "{text}"),
            }
        }
    }

    fn observed(signal: Signal, available: u64, capacity: u64) -> Observations {
        [(signal, Observation { available, capacity })].into()
    }

    #[test]
    fn a_threshold_is_met_below_it() {
        let thresholds = defaults();
        for (observations, expected) in [
            (observed(Signal::MemoryAvailable, (100 << 20) - 1, 1 << 30), 1),
            (observed(Signal::MemoryAvailable, 100 << 20, 1 << 30), 0),
            (observed(Signal::NodefsAvailable, 99, 1000), 1),
            (observed(Signal::NodefsAvailable, 100, 1000), 0),
            (observed(Signal::PidAvailable, 0, 1000), 0),
            (Observations::new(), 0),
        ] {
            assert_eq!(met(&thresholds, &observations, false).len(), expected, "{observations:?}");
        }
    }

    #[test]
    fn soft_thresholds_have_a_grace_and_all_may_win_back_more() {
        let parse = |text: &str| of_signal(text, |value| value.parse::<Amount>());
        assert_eq!(parse("memory.available=1Gi"), Ok((Signal::MemoryAvailable, Amount::Quantity(1 << 30))));
        for (text, expected) in [
            ("memory.available", "signal=value"),
            ("cpu=1", "unsupported"),
            ("pid.available=-1", "pid.available: must be"),
        ] {
            assert!(parse(text).unwrap_err().contains(expected), "{text}");
        }
        let threshold: Threshold = "memory.available<100".parse().unwrap();
        assert_eq!(
            soft(&[threshold], &[]).unwrap_err(),
            "grace period must be specified for the soft eviction threshold memory.available"
        );
        let mut soft = soft(&[threshold], &[(Signal::MemoryAvailable, Duration::from_secs(60))]).unwrap();
        soft[0].min_reclaim = Some(Amount::Quantity(50));
        soft.push(Threshold { amount: Amount::Quantity(10), ..threshold });
        let mut thresholds = Thresholds::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut look = |available, second| {
            thresholds.observe(&soft, &observed(Signal::MemoryAvailable, available, 1000), at(second));
            (thresholds.short().len(), thresholds.due().len())
        };
        for (sentence, available, second, expected) in [
            ("there is enough", 100, 0, (0, 0)),
            ("it is short, and may be for a while", 99, 10, (1, 0)),
            ("it recovers", 100, 20, (0, 0)),
            ("the grace begins anew", 99, 30, (1, 0)),
            ("not yet", 99, 89, (1, 0)),
            ("long enough", 99, 90, (1, 1)),
            ("more is to be won back than was missing", 149, 100, (1, 1)),
            ("until that is done", 150, 110, (0, 0)),
            ("far too little is too little at once", 9, 120, (2, 1)),
        ] {
            assert_eq!(look(available, second), expected, "{sentence}");
        }
    }

    #[test]
    fn pressure_stays_for_the_transition_period() {
        let (mut shortages, at) = (Shortages::default(), |second| Timestamp::from_second(second).unwrap());
        let met = ["nodefs.available<10%".parse().unwrap()];
        let period = Duration::from_secs(300);
        let disk = Pressure { disk: true, ..Pressure::default() };
        assert_eq!(shortages.pressure(&met, at(0), period), disk);
        assert_eq!(shortages.pressure(&[], at(299), period), disk);
        assert_eq!(shortages.pressure(&[], at(300), period), Pressure::default());
        assert_eq!(shortages.pressure(&met, at(301), Duration::ZERO), disk, "also without a period");
        assert_eq!(disk.to_string(), "[DiskPressure]");
    }
}
