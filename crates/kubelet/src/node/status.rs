//! A Node's status as a function of the machine (`pkg/kubelet/nodestatus/setters.go`). Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::eviction::signals::Pressure;
use super::reserved::{self, Reserved};
use crate::config::Config;
use crate::runtime::{Image, Machine};

/// Images named in a status at most, and names of each (`--node-status-max-images`, `MaxNamesPerImageInNodeStatus`).
const MAX_IMAGES: usize = 50;
const MAX_IMAGE_NAMES: usize = 5;
/// What the kubelet says it is.
pub const KUBELET_VERSION: &str = concat!("v1.35.0+coracle.", env!("CARGO_PKG_VERSION"));

/// What a status is made from.
#[derive(Clone)]
pub struct Facts<'a> {
    /// The kubelet's configuration.
    pub config: &'a Config,
    /// The machine.
    pub machine: &'a Machine,
    /// The node server's port.
    pub port: Option<u16>,
    /// What the machine runs short of.
    pub pressure: Pressure,
    /// Images that are present.
    pub images: &'a [Image],
    /// Why pods cannot run yet, if they cannot.
    pub not_ready: Option<(&'static str, String)>,
}

/// The status of the node whose status was `old`, at `now`.
pub fn status(facts: &Facts<'_>, old: &NodeStatus, now: Timestamp) -> NodeStatus {
    let machine = facts.machine;
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", &facts.config.node_ip.to_string()),
            address("Hostname", &facts.config.node_name),
        ]),
        allocatable: Some(amounts(&reserved::allocatable(facts.config, machine), facts.config.max_pods)),
        capacity: Some(amounts(&all(machine), facts.config.max_pods)),
        conditions: Some(conditions(facts, old, now)),
        daemon_endpoints: facts
            .port
            .map(|port| NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }) }),
        images: Some(images(facts.images)).filter(|images| !images.is_empty()),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.clone(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: machine.runtime_version.clone(),
            kernel_version: machine.kernel_version.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: machine.operating_system.clone(),
            os_image: machine.os_image.clone(),
            swap: None,
            system_uuid: machine.system_uuid.clone(),
        }),
        ..old.clone()
    }
}

fn address(type_: &str, address: &str) -> NodeAddress {
    NodeAddress { type_: type_.to_owned(), address: address.to_owned() }
}

/// Everything the machine has.
fn all(machine: &Machine) -> Reserved {
    let (cpu, memory, disk) = (machine.milli_cpu, machine.memory, machine.ephemeral_storage);
    [("cpu", cpu), ("memory", memory), ("ephemeral-storage", disk)].map(|(name, n)| (name.to_owned(), n)).into()
}

fn amounts(of: &Reserved, pods: u32) -> BTreeMap<String, Quantity> {
    use api::quantity::{Format, Quantity as Amount};
    let amount = |(name, amount): (&String, &i64)| match name.as_str() {
        "cpu" => (name.clone(), Amount::from_milli(*amount)),
        _ => (name.clone(), Amount::from_units(*amount, Format::BinarySi)),
    };
    let pods = ("pods".to_owned(), Amount::from_units(i64::from(pods), Format::DecimalSi));
    of.iter().map(amount).chain([pods]).map(|(name, amount)| (name, Quantity(amount.to_string()))).collect()
}

/// The largest images first, as upstream names them.
fn images(present: &[Image]) -> Vec<ContainerImage> {
    let mut images: Vec<&Image> = present.iter().filter(|image| !image.names.is_empty()).collect();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let named = |image: &Image| ContainerImage {
        names: Some(image.names.iter().take(MAX_IMAGE_NAMES).cloned().collect()),
        size_bytes: Some(image.size),
    };
    images.into_iter().take(MAX_IMAGES).map(named).collect()
}

fn conditions(facts: &Facts<'_>, old: &NodeStatus, now: Timestamp) -> Vec<NodeCondition> {
    let pressure = facts.pressure;
    let mut owned = [
        pressed("MemoryPressure", pressure.memory, "Memory", "memory available"),
        pressed("DiskPressure", pressure.disk, "Disk", "no disk pressure"),
        pressed("PIDPressure", pressure.pids, "PID", "PID available"),
        match &facts.not_ready {
            None => condition("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
            Some((reason, message)) => condition("Ready", false, reason, message.clone()),
        },
    ];
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let before = old.conditions.as_deref().unwrap_or_default();
    for condition in &mut owned {
        let same = before.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        condition.last_transition_time =
            same.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(now.clone()));
        condition.last_heartbeat_time = Some(now.clone());
    }
    let others = before.iter().filter(|c| !owned.iter().any(|o| o.type_ == c.type_)).cloned().collect::<Vec<_>>();
    owned.into_iter().chain(others).collect()
}

fn pressed(type_: &str, short: bool, what: &str, sufficient: &str) -> NodeCondition {
    let (reason, message) = match (short, what) {
        (true, "Memory") => ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available".to_owned()),
        (false, "Memory") => ("KubeletHasSufficientMemory", format!("kubelet has sufficient {sufficient}")),
        (true, "Disk") => ("KubeletHasDiskPressure", "kubelet has disk pressure".to_owned()),
        (false, "Disk") => ("KubeletHasNoDiskPressure", format!("kubelet has {sufficient}")),
        (true, _) => ("KubeletHasInsufficientPID", "kubelet has insufficient PID available".to_owned()),
        (false, _) => ("KubeletHasSufficientPID", format!("kubelet has sufficient {sufficient}")),
    };
    condition(type_, short, reason, message)
}

fn condition(type_: &str, on: bool, reason: &str, message: String) -> NodeCondition {
    NodeCondition {
        type_: type_.to_owned(),
        status: if on { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..NodeCondition::default()
    }
}

/// The machine's boot, if the Node still tells of another.
pub fn rebooted<'a>(old: &NodeStatus, new: &'a NodeStatus) -> Option<&'a str> {
    let before = old.node_info.as_ref().map(|info| &info.boot_id).filter(|boot| !boot.is_empty())?;
    let now = &new.node_info.as_ref()?.boot_id;
    (now != before).then_some(now.as_str())
}

/// Whether two statuses differ in more than the times of their heartbeats.
pub fn differs(left: &NodeStatus, right: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(left) != still(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &NodeStatus) -> &NodeCondition {
        status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Ready").unwrap()
    }

    #[test]
    fn readiness_changes_its_transition_time_and_heartbeats_do_not() {
        let config = Config::new("box1", "10.0.0.1".parse().unwrap(), "/x");
        let machine = Machine { milli_cpu: 2000, memory: 1 << 30, ephemeral_storage: 1 << 30, ..Machine::default() };
        let not_ready = Some(("KubeletNotReady", "why".to_owned()));
        let mut facts = Facts {
            config: &config,
            machine: &machine,
            port: Some(1),
            pressure: Pressure::default(),
            images: &[],
            not_ready,
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = status(&facts, &NodeStatus::default(), at(1));
        assert_eq!(
            (ready(&first).status.as_str(), ready(&first).reason.as_deref()),
            ("False", Some("KubeletNotReady"))
        );
        let again = status(&facts, &first, at(2));
        assert!(!differs(&first, &again));
        facts.not_ready = None;
        let later = status(&facts, &again, at(3));
        assert!(differs(&again, &later));
        assert_eq!(ready(&later).last_transition_time, Some(Time(at(3))));
        let capacity = later.capacity.unwrap();
        assert_eq!(
            (capacity["cpu"].0.as_str(), capacity["memory"].0.as_str(), capacity["pods"].0.as_str()),
            ("2", "1Gi", "110")
        );
        let allocatable = later.allocatable.unwrap();
        assert_eq!((allocatable["cpu"].0.as_str(), allocatable["memory"].0.as_str()), ("2", "924Mi"));
    }

    #[test]
    fn a_reboot_is_seen_by_the_boot_that_is_told() {
        let told = |boot_id: &str| {
            let info = NodeSystemInfo { boot_id: boot_id.to_owned(), ..NodeSystemInfo::default() };
            NodeStatus { node_info: Some(info), ..NodeStatus::default() }
        };
        assert_eq!(rebooted(&NodeStatus::default(), &told("a")), None, "a node that was never told of");
        assert_eq!(rebooted(&told(""), &told("a")), None, "a node that was told of without");
        assert_eq!(rebooted(&told("a"), &told("a")), None, "the minion alone was started anew");
        assert_eq!(rebooted(&told("a"), &told("b")), Some("b"));
    }

    #[test]
    fn images_are_bounded_and_largest_first() {
        let image =
            |n: usize| Image { id: n.to_string(), names: vec![n.to_string()], size: n as i64, ..Image::default() };
        let named = images(&(0..200).map(image).collect::<Vec<_>>());
        assert_eq!((named.len(), named[0].size_bytes), (MAX_IMAGES, Some(199)));
    }
}
