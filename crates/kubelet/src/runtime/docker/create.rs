//! From specs to what Docker is asked to make. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, PortBinding, SystemInfo,
};

use super::super::{ContainerSpec, Error, Machine, Recursive, Resources, Result, SandboxSpec, Seccomp};
use super::connect::Version;
use super::{DockerOptions, pause};
use crate::container_spec::CPU_PERIOD_MICROS;
use crate::names;

/// A container's log: so large a file, so many of them (`containerLogMaxSize`, `containerLogMaxFiles`).
const LOG_MAX_SIZE: &str = "10m";
const LOG_MAX_FILES: &str = "5";
/// The sandbox goes last when memory is short.
const SANDBOX_OOM_SCORE_ADJ: i64 = -998;

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
pub(super) fn container(
    spec: &ContainerSpec,
    node: &str,
    oom_score_adj_min: i64,
    version: Version,
) -> ContainerCreateBody {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let join = format!("container:{}", spec.sandbox_id);
    let mut security = Vec::new();
    if spec.no_new_privileges {
        security.push("no-new-privileges".to_owned());
    }
    match &spec.seccomp {
        Seccomp::RuntimeDefault => {}
        Seccomp::Unconfined => security.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(json) => security.push(format!("seccomp={json}")),
    }
    security.extend(spec.app_armor.iter().map(|profile| format!("apparmor={profile}")));
    security.extend(spec.se_linux.iter().map(|label| format!("label={label}")));
    let pid_mode = match (spec.host_pid, &spec.target_id, spec.shared_pid) {
        (true, ..) => Some("host".to_owned()),
        (false, Some(target), _) => Some(format!("container:{target}")),
        (false, None, true) => Some(join.clone()),
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
        stop_signal: spec.stop_signal.clone(),
        labels: Some(labels(spec, node)),
        // What the image says about its own health is not Kubernetes' way to ask.
        healthcheck: Some(bollard::models::HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        host_config: Some(HostConfig {
            network_mode: Some(join.clone()),
            ipc_mode: Some(if spec.host_ipc { "host".to_owned() } else { join }),
            pid_mode,
            mounts: Some(spec.mounts.iter().map(|wanted| mount(wanted, version)).collect()),
            cpu_shares: Some(spec.resources.cpu_shares),
            cpu_period: spec.resources.cpu_quota.map(|_| CPU_PERIOD_MICROS),
            cpu_quota: spec.resources.cpu_quota,
            memory: spec.resources.memory,
            // As much as memory: no swap.
            memory_swap: spec.resources.memory,
            oom_score_adj: Some(spec.oom_score_adj.max(oom_score_adj_min)),
            group_add: Some(spec.groups.clone()).filter(|groups| !groups.is_empty()),
            privileged: Some(spec.privileged),
            cap_add: Some(spec.cap_add.clone()).filter(|cap| !cap.is_empty()),
            cap_drop: Some(spec.cap_drop.clone()).filter(|cap| !cap.is_empty()),
            readonly_rootfs: Some(spec.read_only_root),
            masked_paths: spec.unmasked_proc.then(Vec::new),
            readonly_paths: spec.unmasked_proc.then(Vec::new),
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
        (names::RESOURCES, written(&spec.resources)),
        (names::IMAGE_ID, spec.image_id.clone()),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
    labels
}

/// `shares/quota/memory`.
fn written(resources: &Resources) -> String {
    let Resources { cpu_shares, cpu_quota, memory } = resources;
    format!("{cpu_shares}/{}/{}", cpu_quota.unwrap_or(0), memory.unwrap_or(0))
}

/// What a container may use, as Docker says; what an engine without the means left out is as it was asked for, so that it is
/// not asked again and again.
pub(super) fn resources(config: Option<&HostConfig>, label: &str) -> Resources {
    let mut asked = label.split('/').map(|part| part.parse::<i64>().ok().filter(|n| *n > 0));
    let mut or_asked = |said: Option<i64>| {
        let asked = asked.next().flatten();
        said.filter(|n| *n > 0).or(asked)
    };
    Resources {
        cpu_shares: or_asked(config.and_then(|c| c.cpu_shares)).unwrap_or(0),
        cpu_quota: or_asked(config.and_then(|c| c.cpu_quota)),
        memory: or_asked(config.and_then(|c| c.memory)),
    }
}

/// What Docker is asked to change of a container that may use what it `had`.
pub(super) fn update(had: &Resources, resources: &Resources) -> ContainerUpdateBody {
    let quota = resources.cpu_quota.filter(|_| had.cpu_quota != resources.cpu_quota);
    let memory = resources.memory.filter(|_| had.memory != resources.memory);
    ContainerUpdateBody {
        cpu_shares: Some(resources.cpu_shares).filter(|shares| *shares != had.cpu_shares),
        cpu_period: quota.map(|_| CPU_PERIOD_MICROS),
        cpu_quota: quota,
        memory,
        memory_swap: memory,
        ..ContainerUpdateBody::default()
    }
}

fn mount(mount: &super::super::Mount, version: Version) -> Mount {
    let propagation = match mount.propagation {
        "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
        "rshared" => MountBindOptionsPropagationEnum::RSHARED,
        _ => MountBindOptionsPropagationEnum::RPRIVATE,
    };
    // From 25 on Docker makes read-only mounts so all the way down, unless told otherwise.
    let knows = mount.read_only && version >= RECURSIVE_READ_ONLY;
    let bind_options = MountBindOptions {
        propagation: Some(propagation),
        read_only_force_recursive: (knows && mount.recursive_read_only == Recursive::Yes).then_some(true),
        read_only_non_recursive: (knows && mount.recursive_read_only == Recursive::No).then_some(true),
        ..MountBindOptions::default()
    };
    Mount {
        target: Some(mount.target.clone()),
        source: Some(mount.source.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        bind_options: Some(bind_options),
        ..Mount::default()
    }
}

/// The first API version whose mounts are read-only all the way down.
const RECURSIVE_READ_ONLY: Version = (1, 44);

/// What a container wants that this engine cannot do.
pub(super) fn check(spec: &ContainerSpec, version: Version) -> Result<()> {
    let wants = |mount: &&super::super::Mount| mount.recursive_read_only == Recursive::Yes;
    match spec.mounts.iter().find(wants) {
        Some(mount) if version < RECURSIVE_READ_ONLY => Err(Error::Refused(format!(
            "failed to resolve recursive read-only mode: the mount at \"{}\" requested recursive read-only mode, but it is not \
             supported by the runtime",
            mount.target
        ))),
        _ => Ok(()),
    }
}

/// The machine of an engine elsewhere, as that says.
pub(super) fn remote_machine(machine: &mut Machine, info: SystemInfo) {
    machine.milli_cpu = info.ncpu.unwrap_or(0).saturating_mul(1000);
    machine.memory = info.mem_total.unwrap_or(0);
    machine.kernel_version = info.kernel_version.unwrap_or_default();
    machine.os_image = info.operating_system.unwrap_or_default();
    machine.operating_system = info.os_type.unwrap_or_else(|| "linux".to_owned());
    machine.architecture = match info.architecture.as_deref() {
        Some("x86_64") => "amd64".to_owned(),
        Some("aarch64") => "arm64".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(recursive_read_only: Recursive) -> ContainerSpec {
        let (source, target) = ("/s".into(), "/t".to_owned());
        let mount = super::super::super::Mount {
            source,
            target,
            read_only: true,
            propagation: "rprivate",
            recursive_read_only,
        };
        ContainerSpec { mounts: vec![mount], ..ContainerSpec::default() }
    }

    #[test]
    fn mounts_are_read_only_as_deep_as_asked_or_refused() {
        let of = |spec: &ContainerSpec, version| {
            let body = container(spec, "n", 0, version);
            let options = body.host_config.unwrap().mounts.unwrap().remove(0).bind_options.unwrap();
            (options.read_only_non_recursive, options.read_only_force_recursive)
        };
        for (recursive, old, new) in [
            (Recursive::No, Ok((None, None)), (Some(true), None)),
            (Recursive::IfPossible, Ok((None, None)), (None, None)),
            (Recursive::Yes, Err(()), (None, Some(true))),
        ] {
            let spec = mounted(recursive);
            assert_eq!(check(&spec, (1, 41)).map(|()| of(&spec, (1, 41))).map_err(drop), old, "{recursive:?}");
            assert!(check(&spec, (1, 47)).is_ok());
            assert_eq!(of(&spec, (1, 47)), new, "{recursive:?}");
        }
    }

    #[test]
    fn what_a_container_may_use_reads_back_and_changes_only_where_it_differs() {
        let all = Resources { cpu_shares: 512, cpu_quota: Some(50_000), memory: Some(64 << 20) };
        let spec = ContainerSpec { resources: all, ..ContainerSpec::default() };
        let body = container(&spec, "n", 0, (1, 41));
        let label = body.labels.unwrap()[names::RESOURCES].clone();
        assert_eq!(resources(body.host_config.as_ref(), ""), all);
        let poor = HostConfig { cpu_shares: Some(512), cpu_quota: Some(0), memory: Some(0), ..HostConfig::default() };
        assert_eq!(resources(Some(&poor), &label), all, "an engine without quotas");
        let more = HostConfig { cpu_shares: Some(1024), cpu_quota: Some(0), memory: Some(0), ..HostConfig::default() };
        let none = Resources { cpu_shares: 1024, ..Resources::default() };
        assert_eq!(resources(Some(&more), "2/0/0"), none);
        assert_eq!(update(&all, &all), ContainerUpdateBody::default());
        let wanted = update(&all, &Resources { cpu_quota: Some(100_000), ..all });
        assert_eq!((wanted.cpu_period, wanted.cpu_quota, wanted.memory), (Some(100_000), Some(100_000), None));
        let wanted = update(&all, &Resources { memory: Some(128 << 20), ..all });
        assert_eq!((wanted.memory, wanted.memory_swap, wanted.cpu_shares), (Some(128 << 20), Some(128 << 20), None));
    }

    #[test]
    fn logs_are_rotated() {
        let config = container(&ContainerSpec::default(), "n", 0, (1, 41)).host_config.unwrap().log_config.unwrap();
        assert_eq!(config.config.unwrap()["max-size"], LOG_MAX_SIZE);
    }
}
