//! `stats/summary` (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`): the node and its pods, as one document. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::node::FileSystem;
use super::sampler::Snapshot;
use super::{ContainerDisk, ContainerUsage, Interface, Memory, Usage};
use crate::runtime::PodIdentity;

/// What the document is made from.
pub struct Facts<'a> {
    /// The node's name.
    pub node_name: &'a str,
    /// The newest measurement.
    pub now: &'a Snapshot,
    /// An older one, for rates.
    pub before: &'a Snapshot,
    /// What each container has on disk, by id; `None` where only processor and memory are asked for.
    pub disks: Option<&'a BTreeMap<String, ContainerDisk>>,
    /// Bytes of each volume, by the pod's UID and the volume's name.
    pub volumes: &'a BTreeMap<String, BTreeMap<String, u64>>,
}

/// The document.
pub fn summary(facts: &Facts<'_>) -> Value {
    let node = &facts.now.node;
    let mut about_node = Map::from_iter([
        ("nodeName".to_owned(), json!(facts.node_name)),
        ("cpu".to_owned(), cpu(&node.usage, Some(&facts.before.node.usage))),
        ("memory".to_owned(), memory(&node.usage)),
    ]);
    put(&mut about_node, "startTime", node.booted_at.map(|at| json!(seconds(at))));
    if facts.disks.is_some() {
        let at = node.usage.at;
        put(&mut about_node, "network", network(&node.network, at));
        put(&mut about_node, "fs", node.fs.map(|fs| file_system(&fs, at)));
        let image_fs = node.image_fs.map(|fs| file_system(&fs, at));
        put(&mut about_node, "runtime", image_fs.map(|fs| json!({"imageFs": fs, "containerFs": fs})));
        let rlimit = node.usage.processes.zip(node.max_processes);
        let rlimit = rlimit.map(|(used, max)| json!({"time": seconds(at), "maxpid": max, "curproc": used}));
        put(&mut about_node, "rlimit", rlimit);
    }
    let mut pods: BTreeMap<&str, Vec<&ContainerUsage>> = BTreeMap::new();
    for container in &facts.now.containers {
        pods.entry(&container.pod.uid).or_default().push(container);
    }
    let pods: Vec<Value> = pods.values().map(|containers| pod(containers, facts)).collect();
    json!({"node": about_node, "pods": pods})
}

/// One pod; `containers` is never empty.
fn pod(containers: &[&ContainerUsage], facts: &Facts<'_>) -> Value {
    let PodIdentity { namespace, name, uid, .. } = &containers[0].pod;
    let own = containers.iter().filter(|c| !c.is_sandbox());
    let total = total(containers.iter().map(|c| &c.usage));
    let before = containers.iter().filter_map(|c| earlier(c, facts)).collect::<Vec<_>>();
    // A rate of the sum is only true where each of its parts was there before.
    let before = (before.len() == containers.len()).then(|| self::total(before.into_iter()));
    let started_at = containers.iter().filter_map(|c| c.started_at).min();
    let mut about = Map::from_iter([
        ("podRef".to_owned(), json!({"name": name, "namespace": namespace, "uid": uid})),
        ("containers".to_owned(), own.clone().map(|c| container(c, facts)).collect()),
        ("cpu".to_owned(), cpu(&total, before.as_ref())),
        ("memory".to_owned(), memory(&total)),
    ]);
    put(&mut about, "startTime", started_at.map(|at| json!(seconds(at))));
    put(&mut about, "process_stats", total.processes.map(|count| json!({"process_count": count})));
    if let Some(disks) = facts.disks {
        let sandbox = containers.iter().find(|c| c.is_sandbox());
        put(&mut about, "network", sandbox.and_then(|s| network(&s.network, total.at)));
        let volumes = facts.volumes.get(uid);
        let entry = |(name, used): (&String, &u64)| json!({"time": seconds(total.at), "name": name, "usedBytes": used});
        put(&mut about, "volume", volumes.map(|volumes| volumes.iter().map(entry).collect()));
        let files = own.filter_map(|c| disks.get(&c.id)).map(|disk| disk.root + disk.logs).sum::<u64>();
        let used = files + volumes.iter().flat_map(|volumes| volumes.values()).sum::<u64>();
        let fs = facts.now.node.fs;
        let mut storage = fs.map_or_else(|| json!({}), |fs| file_system(&fs, total.at));
        storage["usedBytes"] = json!(used);
        about.insert("ephemeral-storage".to_owned(), storage);
    }
    Value::Object(about)
}

fn container(container: &ContainerUsage, facts: &Facts<'_>) -> Value {
    let mut about = Map::from_iter([
        ("name".to_owned(), json!(container.name)),
        ("cpu".to_owned(), cpu(&container.usage, earlier(container, facts))),
        ("memory".to_owned(), memory(&container.usage)),
    ]);
    put(&mut about, "startTime", container.started_at.map(|at| json!(seconds(at))));
    let disk = facts.disks.and_then(|disks| disks.get(&container.id));
    let on = |fs: Option<FileSystem>, used: u64| {
        let mut entry = fs.map_or_else(|| json!({}), |fs| file_system(&fs, container.usage.at));
        entry["usedBytes"] = json!(used);
        entry
    };
    put(&mut about, "rootfs", disk.map(|disk| on(facts.now.node.image_fs, disk.root)));
    put(&mut about, "logs", disk.map(|disk| on(facts.now.node.fs, disk.logs)));
    Value::Object(about)
}

/// The same life of the container in the older measurement.
fn earlier<'a>(container: &ContainerUsage, facts: &Facts<'a>) -> Option<&'a Usage> {
    let same = |c: &&ContainerUsage| c.id == container.id && c.started_at == container.started_at;
    facts.before.containers.iter().find(same).map(|c| &c.usage)
}

/// What all of `usages` use together.
fn total<'a>(usages: impl Iterator<Item = &'a Usage>) -> Usage {
    let add = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a + b).or(a).or(b);
    usages.fold(Usage::default(), |sum, usage| Usage {
        at: sum.at.max(usage.at),
        cpu_nanos: add(sum.cpu_nanos, usage.cpu_nanos),
        memory: match (sum.memory, usage.memory) {
            (Some(a), Some(b)) => Some(Memory {
                usage: a.usage + b.usage,
                working_set: a.working_set + b.working_set,
                rss: a.rss + b.rss,
                page_faults: a.page_faults + b.page_faults,
                major_page_faults: a.major_page_faults + b.major_page_faults,
                limit: None,
            }),
            (a, b) => a.or(b),
        },
        processes: add(sum.processes, usage.processes),
    })
}

fn cpu(usage: &Usage, before: Option<&Usage>) -> Value {
    let mut about = Map::from_iter([("time".to_owned(), json!(seconds(usage.at)))]);
    put(&mut about, "usageNanoCores", before.and_then(|before| nano_cores(before, usage)).map(|n| json!(n)));
    put(&mut about, "usageCoreNanoSeconds", usage.cpu_nanos.map(|nanos| json!(nanos)));
    Value::Object(about)
}

/// Billionths of a core that were busy between two measurements; `None` if they do not belong together.
pub fn nano_cores(before: &Usage, now: &Usage) -> Option<u64> {
    let busy = now.cpu_nanos?.checked_sub(before.cpu_nanos?)?;
    let passed = u128::try_from(now.at.duration_since(before.at).as_nanos()).ok().filter(|passed| *passed > 0)?;
    u64::try_from(u128::from(busy) * 1_000_000_000 / passed).ok()
}

fn memory(usage: &Usage) -> Value {
    let mut about = Map::from_iter([("time".to_owned(), json!(seconds(usage.at)))]);
    if let Some(memory) = &usage.memory {
        let available = memory.limit.map(|limit| json!(limit.saturating_sub(memory.working_set)));
        put(&mut about, "availableBytes", available);
        put(&mut about, "usageBytes", Some(json!(memory.usage)));
        put(&mut about, "workingSetBytes", Some(json!(memory.working_set)));
        put(&mut about, "rssBytes", Some(json!(memory.rss)));
        put(&mut about, "pageFaults", Some(json!(memory.page_faults)));
        put(&mut about, "majorPageFaults", Some(json!(memory.major_page_faults)));
    }
    Value::Object(about)
}

/// The interfaces, and the first of them as the one that counts.
fn network(interfaces: &[Interface], at: Timestamp) -> Option<Value> {
    let shown = |i: &Interface| json!({"name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors, "txBytes": i.tx_bytes, "txErrors": i.tx_errors});
    let main = interfaces.iter().find(|i| i.name == "eth0").or(interfaces.first())?;
    let mut about = shown(main);
    about["time"] = json!(seconds(at));
    about["interfaces"] = interfaces.iter().map(shown).collect();
    Some(about)
}

fn file_system(fs: &FileSystem, at: Timestamp) -> Value {
    let inodes_used = fs.inodes.saturating_sub(fs.inodes_free);
    json!({"time": seconds(at), "availableBytes": fs.available, "capacityBytes": fs.capacity, "usedBytes": fs.used,
        "inodesFree": fs.inodes_free, "inodes": fs.inodes, "inodesUsed": inodes_used})
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    map.extend(value.map(|value| (key.to_owned(), value)));
}

/// Times of the API have whole seconds.
fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::node::NodeUsage;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn used(name: &str, millis: i64, cpu_nanos: u64, working_set: u64) -> ContainerUsage {
        let pod = PodIdentity { namespace: "ns".into(), name: "web".into(), uid: "u1".into(), grace_period_seconds: 0 };
        let memory = Memory { usage: working_set + 1, working_set, limit: Some(100), ..Memory::default() };
        ContainerUsage {
            pod,
            name: name.into(),
            id: format!("id-{name}"),
            started_at: Some(at(0)),
            usage: Usage { at: at(millis), cpu_nanos: Some(cpu_nanos), memory: Some(memory), processes: Some(1) },
            network: if name == crate::names::SANDBOX {
                vec![Interface { name: "eth0".into(), rx_bytes: 7, ..Interface::default() }]
            } else {
                Vec::new()
            },
        }
    }

    fn snapshot(millis: i64, containers: Vec<ContainerUsage>) -> Snapshot {
        let usage = Usage { at: at(millis), cpu_nanos: Some(millis as u64 * 1_000_000), ..Usage::default() };
        let fs = Some(FileSystem { capacity: 100, available: 40, used: 60, inodes: 10, inodes_free: 4 });
        Snapshot { node: NodeUsage { usage, fs, ..NodeUsage::default() }, containers }
    }

    #[test]
    fn pods_are_the_sum_of_their_containers() {
        let before = snapshot(1000, vec![used("POD", 1000, 0, 1), used("c", 1000, 500, 20)]);
        let now = snapshot(3000, vec![used("POD", 3000, 0, 1), used("c", 3000, 1_000_000_500, 30)]);
        let disks = [("id-c".to_owned(), ContainerDisk { root: 5, logs: 2 })].into();
        let volumes = [("u1".to_owned(), [("v".to_owned(), 10)].into())].into();
        let facts = Facts { node_name: "box1", now: &now, before: &before, disks: Some(&disks), volumes: &volumes };
        let summary = summary(&facts);
        assert_eq!(summary["node"]["cpu"]["usageNanoCores"], 1_000_000_000);
        assert_eq!(summary["node"]["fs"]["inodesUsed"], 6);
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"], json!({"name": "web", "namespace": "ns", "uid": "u1"}));
        assert_eq!(
            (&pod["cpu"]["usageNanoCores"], &pod["memory"]["workingSetBytes"]),
            (&json!(500_000_000), &json!(31))
        );
        assert_eq!((&pod["network"]["rxBytes"], &pod["process_stats"]["process_count"]), (&json!(7), &json!(2)));
        assert_eq!((&pod["ephemeral-storage"]["usedBytes"], &pod["volume"][0]["usedBytes"]), (&json!(17), &json!(10)));
        let containers = pod["containers"].as_array().unwrap();
        assert_eq!((containers.len(), &containers[0]["memory"]["availableBytes"]), (1, &json!(70)));
        assert_eq!(
            (&containers[0]["rootfs"]["usedBytes"], &containers[0]["logs"]["usedBytes"]),
            (&json!(5), &json!(2))
        );
    }

    #[test]
    fn only_processor_and_memory_where_no_more_is_asked() {
        let now = snapshot(1, vec![used("POD", 1, 0, 1), used("c", 1, 0, 1)]);
        let volumes = BTreeMap::new();
        let facts = Facts { node_name: "box1", now: &now, before: &now, disks: None, volumes: &volumes };
        let summary = summary(&facts);
        assert!(summary["node"].get("fs").is_none() && summary["pods"][0].get("network").is_none());
        assert!(summary["pods"][0]["cpu"].get("usageNanoCores").is_none(), "no time has passed");
    }

    #[test]
    fn rates_need_the_same_counter_twice() {
        let usage = |millis, cpu_nanos| Usage { at: at(millis), cpu_nanos, ..Usage::default() };
        for (before, now, expected) in [
            (usage(0, Some(0)), usage(500, Some(250_000_000)), Some(500_000_000)),
            (usage(0, Some(5)), usage(500, Some(4)), None),
            (usage(0, None), usage(500, Some(4)), None),
            (usage(500, Some(1)), usage(500, Some(4)), None),
            (usage(500, Some(1)), usage(400, Some(4)), None),
        ] {
            assert_eq!(nano_cores(&before, &now), expected, "{before:?} {now:?}");
        }
    }
}
