//! What of the machine pods may have: everything but what is kept for the system, for the kubelet and its like, and what
//! must stay free (`pkg/kubelet/cm/node_container_manager_linux.go`). Pure.

use std::collections::BTreeMap;

use api::pods::Requests;
use api::quantity::Quantity;

use super::allocations::Room;
use super::eviction::signals::Signal;
use crate::config::Config;
use crate::runtime::Machine;

/// Amounts by resource: `cpu` in thousandths of a core, `memory` and `ephemeral-storage` in bytes.
pub type Reserved = BTreeMap<String, i64>;

/// Resources that can be kept back.
const RESERVABLE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Reads `cpu=200m,memory=150Mi`.
pub fn parse(text: &str) -> Result<(String, i64), String> {
    let (name, amount) =
        text.split_once('=').ok_or_else(|| format!("a reservation looks like cpu=200m, not {text:?}"))?;
    if !RESERVABLE.contains(&name) {
        return Err(format!("cannot reserve {name:?}, only {}", RESERVABLE.join(", ")));
    }
    let quantity: Quantity = amount.parse().map_err(|error| format!("{name}: {error}"))?;
    if quantity.is_negative() {
        return Err(format!("{name}: must not be negative"));
    }
    Ok((name.to_owned(), if name == "cpu" { quantity.milli() } else { quantity.units() }))
}

/// What pods may have of `machine`.
pub fn allocatable(config: &Config, machine: &Machine) -> Reserved {
    left(config, machine, true)
}

/// How much pods may hold together and one of them at most: what must stay free weighs for all, not for one
/// (`GetNodeAllocatableAbsolute`).
pub fn room(config: &Config, machine: &Machine) -> Room {
    let of = |left: Reserved| {
        let amount = |name: &str| left.get(name).copied().unwrap_or(0);
        Requests { milli_cpu: amount("cpu"), memory: amount("memory"), ephemeral_storage: amount("ephemeral-storage") }
    };
    let pods = i64::from(config.max_pods);
    Room { allocatable: of(left(config, machine, true)), capacity: of(left(config, machine, false)), pods }
}

fn left(config: &Config, machine: &Machine, keeps_free: bool) -> Reserved {
    let capacity =
        [("cpu", machine.milli_cpu), ("memory", machine.memory), ("ephemeral-storage", machine.ephemeral_storage)];
    let kept = |name: &str, capacity: i64| {
        let signal = match name {
            "memory" => Some(Signal::MemoryAvailable),
            "ephemeral-storage" => Some(Signal::NodefsAvailable),
            _ => None,
        };
        let thresholds = config.eviction_hard.iter().filter(|_| keeps_free);
        let threshold = thresholds.into_iter().find(|threshold| Some(threshold.signal) == signal);
        let free = threshold.map_or(0, |threshold| threshold.amount.of(u64::try_from(capacity).unwrap_or(0)));
        let reserved =
            [&config.system_reserved, &config.kube_reserved].map(|reserved| reserved.get(name).copied().unwrap_or(0));
        i64::try_from(free).unwrap_or(i64::MAX).saturating_add(reserved.iter().sum())
    };
    capacity.map(|(name, capacity)| (name.to_owned(), capacity.saturating_sub(kept(name, capacity)).max(0))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_and_thresholds_are_kept_back() {
        let mut config = Config::new("box1", "10.0.0.1".parse().unwrap(), "/x");
        let machine = Machine { milli_cpu: 4000, memory: 8 << 30, ephemeral_storage: 1000, ..Machine::default() };
        let of = |config: &Config| {
            let left = allocatable(config, &machine);
            (left["cpu"], left["memory"], left["ephemeral-storage"])
        };
        assert_eq!(of(&config), (4000, (8 << 30) - (100 << 20), 900));
        assert_eq!(room(&config, &machine).capacity.memory, 8 << 30, "what must stay free is not taken from one pod");
        config.system_reserved = [parse("cpu=500m").unwrap(), parse("memory=1Gi").unwrap()].into();
        config.kube_reserved = [parse("cpu=1").unwrap()].into();
        config.eviction_hard = Vec::new();
        assert_eq!(of(&config), (2500, 7 << 30, 1000));
        config.kube_reserved = [parse("memory=9Gi").unwrap()].into();
        assert_eq!(of(&config).1, 0, "never less than nothing");
    }

    #[test]
    fn wrong_reservations_are_named() {
        for (text, expected) in [
            ("cpu", "looks like cpu=200m"),
            ("disk=1", "cannot reserve \"disk\""),
            ("memory=x", "memory: quantities must match"),
            ("memory=-1", "must not be negative"),
        ] {
            assert!(parse(text).unwrap_err().contains(expected), "{text}");
        }
    }
}
