//! From specs to what Docker is asked to make. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountType, PortBinding,
};

use super::super::{ContainerSpec, SandboxSpec};
use super::{DockerOptions, pause};
use crate::names;

/// A container's log: so large a file, so many of them (`containerLogMaxSize`, `containerLogMaxFiles`).
const LOG_MAX_SIZE: &str = "10m";
const LOG_MAX_FILES: &str = "5";
/// The sandbox goes last when memory is short.
const SANDBOX_OOM_SCORE_ADJ: i64 = -998;
const CPU_PERIOD_MICROS: i64 = 100_000;

fn log_config() -> HostConfigLogConfig {
    let config = [("max-size", LOG_MAX_SIZE), ("max-file", LOG_MAX_FILES)];
    let config = config.map(|(key, value)| (key.to_owned(), value.to_owned()));
    HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(config.into()) }
}

/// The sandbox: a process that does nothing, in namespaces that the pod's containers join.
pub(super) fn sandbox(spec: &SandboxSpec, options: &DockerOptions, oom_score_adj_min: i64) -> ContainerCreateBody {
    let mut labels = names::pod_labels(&spec.pod, &options.node_name);
    labels.insert(names::CONTAINER_TYPE.to_owned(), names::TYPE_SANDBOX.to_owned());
    labels.insert(names::CONTAINER_NAME.to_owned(), names::SANDBOX.to_owned());
    labels.insert(names::ATTEMPT.to_owned(), spec.attempt.to_string());
    let network = if spec.host_network { "host" } else { options.network.as_str() };
    let mut exposed: Vec<String> = spec.ports.iter().map(|p| format!("{}/{}", p.container_port, p.protocol)).collect();
    exposed.dedup();
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let binding = PortBinding {
            host_ip: Some(port.host_ip.clone()).filter(|ip| !ip.is_empty()),
            host_port: Some(port.host_port.to_string()),
        };
        let key = format!("{}/{}", port.container_port, port.protocol);
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    ContainerCreateBody {
        image: Some(pause::image().to_owned()),
        hostname: Some(spec.hostname.clone()).filter(|_| !spec.host_network),
        labels: Some(labels),
        exposed_ports: Some(exposed).filter(|ports| !ports.is_empty()),
        host_config: Some(HostConfig {
            network_mode: Some(network.to_owned()),
            ipc_mode: Some(if spec.host_ipc { "host" } else { "shareable" }.to_owned()),
            pid_mode: spec.host_pid.then(|| "host".to_owned()),
            port_bindings: Some(bindings).filter(|bindings| !bindings.is_empty()),
            sysctls: Some(spec.sysctls.clone().into_iter().collect()).filter(|s: &HashMap<_, _>| !s.is_empty()),
            oom_score_adj: Some(SANDBOX_OOM_SCORE_ADJ.max(oom_score_adj_min)),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// A container that joins its pod's sandbox.
pub(super) fn container(spec: &ContainerSpec, node: &str, oom_score_adj_min: i64) -> ContainerCreateBody {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let join = format!("container:{}", spec.sandbox_id);
    let mut security = Vec::new();
    if spec.no_new_privileges {
        security.push("no-new-privileges".to_owned());
    }
    if spec.seccomp_unconfined {
        security.push("seccomp=unconfined".to_owned());
    }
    let pid_mode = match (spec.host_pid, spec.shared_pid) {
        (true, _) => Some("host".to_owned()),
        (false, true) => Some(join.clone()),
        _ => None,
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.command.clone(),
        cmd: spec.args.clone(),
        working_dir: text(&spec.working_dir),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: text(&spec.user),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        labels: Some(labels(spec, node)),
        // What the image says about its own health is not Kubernetes' way to ask.
        healthcheck: Some(bollard::models::HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        host_config: Some(HostConfig {
            network_mode: Some(join.clone()),
            ipc_mode: Some(if spec.host_ipc { "host".to_owned() } else { join }),
            pid_mode,
            mounts: Some(spec.mounts.iter().map(mount).collect()),
            cpu_shares: Some(spec.cpu_shares),
            cpu_period: spec.cpu_quota.map(|_| CPU_PERIOD_MICROS),
            cpu_quota: spec.cpu_quota,
            memory: spec.memory,
            // As much as memory: no swap.
            memory_swap: spec.memory,
            oom_score_adj: Some(spec.oom_score_adj.max(oom_score_adj_min)),
            group_add: Some(spec.groups.clone()).filter(|groups| !groups.is_empty()),
            privileged: Some(spec.privileged),
            cap_add: Some(spec.cap_add.clone()).filter(|cap| !cap.is_empty()),
            cap_drop: Some(spec.cap_drop.clone()).filter(|cap| !cap.is_empty()),
            readonly_rootfs: Some(spec.read_only_root),
            security_opt: Some(security).filter(|security| !security.is_empty()),
            log_config: Some(log_config()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn labels(spec: &ContainerSpec, node: &str) -> HashMap<String, String> {
    let mut labels = names::pod_labels(&spec.pod, node);
    let own = [
        (names::CONTAINER_TYPE, names::TYPE_CONTAINER.to_owned()),
        (names::CONTAINER_NAME, spec.name.clone()),
        (names::SANDBOX_ID, spec.sandbox_id.clone()),
        (names::HASH, spec.hash.clone()),
        (names::RESTART_COUNT, spec.restart_count.to_string()),
        (names::BACKOFF, spec.backoff.as_secs().to_string()),
        (names::IMAGE, spec.image.clone()),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
    labels
}

fn mount(mount: &super::super::Mount) -> Mount {
    let propagation = match mount.propagation {
        "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
        "rshared" => MountBindOptionsPropagationEnum::RSHARED,
        _ => MountBindOptionsPropagationEnum::RPRIVATE,
    };
    Mount {
        target: Some(mount.target.clone()),
        source: Some(mount.source.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..MountBindOptions::default() }),
        ..Mount::default()
    }
}
