//! Measurements as Prometheus text: `metrics/resource` (`pkg/kubelet/metrics/collectors/resource_metrics.go`),
//! `metrics/cadvisor` and `metrics`. Pure.

use std::fmt::Write;

use jiff::Timestamp;

use super::sampler::Snapshot;
use super::{ContainerUsage, Usage};
use crate::bootstrap::Certificates;

/// What content of this kind is called.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family of samples.
#[derive(Default)]
struct Family {
    text: String,
}

impl Family {
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes whatever is written.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let at = at.map_or_else(String::new, |at| format!(" {}", at.as_millisecond()));
        let value = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
        let _ = writeln!(self.text, "{name}{labels} {value}{at}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn cpu_seconds(usage: &Usage) -> Option<f64> {
    usage.cpu_nanos.map(|nanos| nanos as f64 / 1e9)
}

fn working_set(usage: &Usage) -> Option<f64> {
    usage.memory.map(|memory| memory.working_set as f64)
}

type Measure = fn(&Usage) -> Option<f64>;

/// Name, type, explanation and source of a measure; the first word of the name says whose it is.
type Row = (&'static str, &'static str, &'static str, Measure);

const CPU: Row =
    ("cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the {} in core-seconds", cpu_seconds);
const MEMORY: Row = ("memory_working_set_bytes", "gauge", "Current working set of the {} in bytes", working_set);

/// What metrics-server reads: processor time and working set of node, pods and containers, each with its time.
pub fn resource(snapshot: &Snapshot) -> String {
    let mut family = Family::default();
    for (name, kind, help, measure) in [CPU, MEMORY] {
        let container = format!("container_{name}");
        family.begin(&container, kind, &format!("[STABLE] {}", help.replace("{}", "container")));
        for (c, labels) in own(snapshot).map(|c| (c, container_labels(c))) {
            if let Some(value) = measure(&c.usage) {
                family.sample(&container, &labels, value, Some(c.usage.at));
            }
        }
    }
    family.begin(
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
    );
    for (c, labels) in own(snapshot).map(|c| (c, container_labels(c))) {
        if let Some(at) = c.started_at {
            family.sample("container_start_time_seconds", &labels, at.as_millisecond() as f64 / 1e3, None);
        }
    }
    for (name, kind, help, measure) in [CPU, MEMORY] {
        let node = format!("node_{name}");
        family.begin(&node, kind, &format!("[STABLE] {}", help.replace("{}", "node")));
        if let Some(value) = measure(&snapshot.node.usage) {
            family.sample(&node, &[], value, Some(snapshot.node.usage.at));
        }
    }
    for (name, kind, help, measure) in [CPU, MEMORY] {
        let pod = format!("pod_{name}");
        family.begin(&pod, kind, &format!("[STABLE] {}", help.replace("{}", "pod")));
        for sandbox in snapshot.containers.iter().filter(|c| c.is_sandbox()) {
            let parts = snapshot.containers.iter().filter(|c| c.pod.uid == sandbox.pod.uid);
            let value = parts.filter_map(|c| measure(&c.usage)).sum();
            let labels = [("namespace", sandbox.pod.namespace.as_str()), ("pod", sandbox.pod.name.as_str())];
            family.sample(&pod, &labels, value, Some(sandbox.usage.at));
        }
    }
    family.begin(
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    family.sample("resource_scrape_error", &[], 0.0, None);
    family.text
}

fn own(snapshot: &Snapshot) -> impl Iterator<Item = &ContainerUsage> {
    snapshot.containers.iter().filter(|c| !c.is_sandbox())
}

fn container_labels(container: &ContainerUsage) -> [(&'static str, &str); 3] {
    [("container", &container.name), ("namespace", &container.pod.namespace), ("pod", &container.pod.name)]
}

/// The part of cAdvisor's metrics that is measured here, under its names.
pub fn cadvisor(snapshot: &Snapshot) -> String {
    let mut family = Family::default();
    let rows: [Row; 6] = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", cpu_seconds),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", working_set),
        ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory.", |u| {
            u.memory.map(|m| m.usage as f64)
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |u| u.memory.map(|m| m.rss as f64)),
        ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", |u| {
            u.memory.map(|m| m.limit.unwrap_or(0) as f64)
        }),
        ("container_threads", "gauge", "Number of threads running inside the container.", |u| {
            u.processes.map(|count| count as f64)
        }),
    ];
    for (name, kind, help, measure) in rows {
        family.begin(name, kind, help);
        if let Some(value) = measure(&snapshot.node.usage) {
            family.sample(name, &[("id", "/")], value, Some(snapshot.node.usage.at));
        }
        for container in &snapshot.containers {
            let Some(value) = measure(&container.usage) else { continue };
            family.sample(name, &cadvisor_labels(container), value, Some(container.usage.at));
        }
    }
    for (name, help, value) in [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", 0),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", 1),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", 2),
        ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", 3),
    ] {
        family.begin(name, "counter", help);
        for container in &snapshot.containers {
            for interface in &container.network {
                let counts = [interface.rx_bytes, interface.rx_errors, interface.tx_bytes, interface.tx_errors];
                let mut labels = cadvisor_labels(container).to_vec();
                labels.insert(1, ("interface", &interface.name));
                family.sample(name, &labels, counts[value] as f64, Some(container.usage.at));
            }
        }
    }
    family.text
}

fn cadvisor_labels(container: &ContainerUsage) -> [(&'static str, &str); 4] {
    [
        ("container", if container.is_sandbox() { "" } else { &container.name }),
        ("name", &container.id),
        ("namespace", &container.pod.namespace),
        ("pod", &container.pod.name),
    ]
}

/// What the kubelet says about itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own<'a> {
    /// Its node.
    pub node_name: &'a str,
    /// Pods with workers.
    pub pods: usize,
    /// Containers that run, sandboxes not counted.
    pub containers: Option<usize>,
    /// Seconds of processor time it used.
    pub cpu_seconds: Option<f64>,
    /// Bytes of memory it has.
    pub resident_bytes: Option<f64>,
    /// Files it has open.
    pub open_files: Option<usize>,
    /// Its certificates, and what time it is.
    pub certificates: Option<(&'a Certificates, Timestamp)>,
}

/// The kubelet's own metrics.
pub fn own_metrics(own: &Own<'_>) -> String {
    let mut family = Family::default();
    family.begin("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
    family.sample("kubelet_node_name", &[("node", own.node_name)], 1.0, None);
    family.begin("kubelet_running_pods", "gauge", "[BETA] Number of pods that have a running pod sandbox");
    family.sample("kubelet_running_pods", &[], own.pods as f64, None);
    if let Some(containers) = own.containers {
        family.begin("kubelet_running_containers", "gauge", "[BETA] Number of containers currently running");
        family.sample("kubelet_running_containers", &[("container_state", "running")], containers as f64, None);
    }
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", own.cpu_seconds),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", own.resident_bytes),
        ("process_open_fds", "gauge", "Number of open file descriptors.", own.open_files.map(|count| count as f64)),
    ] {
        if let Some(value) = value {
            family.begin(name, kind, help);
            family.sample(name, &[], value, None);
        }
    }
    if let Some((certificates, now)) = own.certificates {
        family.certificates(certificates, now);
    }
    family.text
}

impl Family {
    /// Names and words of `pkg/kubelet/certificate/kubelet.go` and `pkg/kubelet/metrics`.
    fn certificates(&mut self, certificates: &Certificates, now: Timestamp) {
        const LEFT: &str = "TTL (time-to-live) of the Kubelet's";
        const MEANING: &str = "The value is in seconds until certificate expiry (negative if already expired). \
                               If {} certificate is invalid or unused, the value will be +INF.";
        let rows = [
            ("client", &certificates.client, "kubelet_certificate_manager_client_expiration_renew_errors"),
            ("serving", &certificates.serving, "kubelet_server_expiration_renew_errors"),
        ];
        for (what, kept, errors) in rows {
            let (name, whole) = match what {
                "client" => ("kubelet_certificate_manager_client_ttl_seconds", "the"),
                _ => ("kubelet_certificate_manager_server_ttl_seconds", "the shortest"),
            };
            let help = format!("[ALPHA] Gauge of {whole} {LEFT} {what} certificate. {}", MEANING.replace("{}", what));
            self.begin(name, "gauge", &help);
            self.sample(name, &[], kept.ttl_seconds(now), None);
            self.begin(errors, "counter", "[ALPHA] Counter of certificate renewal errors.");
            self.sample(errors, &[], kept.renew_errors() as f64, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::SANDBOX;
    use crate::runtime::PodIdentity;
    use crate::stats::node::NodeUsage;
    use crate::stats::{Interface, Memory};

    fn used(name: &str, cpu_nanos: u64) -> ContainerUsage {
        let pod = PodIdentity { namespace: "ns".into(), name: "web".into(), uid: "u".into(), ..Default::default() };
        ContainerUsage {
            pod,
            name: name.into(),
            id: format!("id-{name}"),
            usage: usage(cpu_nanos),
            ..Default::default()
        }
    }

    fn usage(cpu_nanos: u64) -> Usage {
        let memory = Some(Memory { working_set: 1024, ..Memory::default() });
        Usage { at: Timestamp::from_millisecond(1500).unwrap(), cpu_nanos: Some(cpu_nanos), memory, processes: None }
    }

    fn snapshot() -> Snapshot {
        let mut sandbox = used(SANDBOX, 500_000_000);
        sandbox.network = vec![Interface { name: "eth0".into(), tx_bytes: 9, ..Interface::default() }];
        let node = NodeUsage { usage: usage(9_000_000_000), ..NodeUsage::default() };
        Snapshot { node, containers: vec![sandbox, used("c", 1_000_000_000)] }
    }

    #[test]
    fn resource_metrics_read_as_upstreams() {
        let text = resource(&snapshot());
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"web\"} 1 1500",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"web\"} 1024 1500",
            "node_cpu_usage_seconds_total 9 1500",
            "node_memory_working_set_bytes 1024 1500",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"web\"} 1.5 1500",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"web\"} 2048 1500",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("\"POD\""), "the sandbox is no container");
    }

    #[test]
    fn cadvisor_metrics_have_the_networks_of_sandboxes() {
        let text = cadvisor(&snapshot());
        let sent = "container_network_transmit_bytes_total{container=\"\",interface=\"eth0\",name=\"id-POD\",namespace=\"ns\",pod=\"web\"} 9 1500";
        assert!(text.lines().any(|l| l == sent), "{text}");
        assert!(text.contains("container_cpu_usage_seconds_total{id=\"/\"} 9 1500"));
    }

    #[test]
    fn certificates_are_told_under_upstreams_names() {
        let certificates = Certificates::default();
        let own = Own { certificates: Some((&certificates, Timestamp::UNIX_EPOCH)), ..Own::default() };
        let text = own_metrics(&own);
        for line in [
            "# TYPE kubelet_certificate_manager_client_ttl_seconds gauge",
            "kubelet_certificate_manager_client_ttl_seconds +Inf",
            "kubelet_certificate_manager_server_ttl_seconds +Inf",
            "kubelet_certificate_manager_client_expiration_renew_errors 0",
            "kubelet_server_expiration_renew_errors 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let mut family = Family::default();
        family.sample("m", &[("a", "x\"\\\ny")], 1.5, None);
        assert_eq!(family.text, "m{a=\"x\\\"\\\\\\ny\"} 1.5\n");
    }
}
