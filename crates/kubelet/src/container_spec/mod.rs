//! From a pod's spec to what the runtime is asked to make. Pure.

mod security;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::env::{EnvError, expansion};
use crate::node::eviction::rank;
use crate::runtime::{ContainerSpec, HostPort, Image, Mount, Resources, SandboxSpec};
use security::Security;

/// Where last words are written if the container names no place.
pub const DEFAULT_TERMINATION_LOG: &str = "/dev/termination-log";
/// Docker's period for processor quotas.
pub const CPU_PERIOD_MICROS: i64 = 100_000;
/// Least share and quota the kernel takes.
const MIN_SHARES: i64 = 2;
const MIN_QUOTA_MICROS: i64 = 1000;
/// `pkg/kubelet/qos/policy.go`.
const OOM_GUARANTEED: i64 = -997;
const OOM_BEST_EFFORT: i64 = 1000;
/// The priority class of what a node needs (`SystemNodeCritical`).
const NODE_CRITICAL: &str = "system-node-critical";

/// One life of a container.
#[derive(Clone, Debug)]
pub struct Life<'a> {
    /// The sandbox it joins.
    pub sandbox_id: &'a str,
    /// How often it was restarted before.
    pub restart_count: i32,
    /// The wait written on it.
    pub backoff: Duration,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// What of the host it sees.
    pub mounts: Vec<Mount>,
    /// Its image.
    pub image: &'a Image,
    /// What [`local_seccomp_profile`] names.
    pub seccomp_profile: Option<String>,
    /// The container whose processes it sees, where that is not its own sandbox.
    pub target_id: Option<String>,
    /// Bytes of memory the machine has.
    pub machine_memory: i64,
}

/// The file below the kubelet's seccomp directory that the container's system call filter is in, if it has one there.
pub fn local_seccomp_profile<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a str> {
    Security::of(pod, container).local_seccomp_profile()
}

/// What the runtime is asked to make for `container` of `pod`.
pub fn container_spec(pod: &Pod, container: &Container, life: Life<'_>) -> Result<ContainerSpec, EnvError> {
    let security = Security::of(pod, container);
    security.check_non_root(life.image, &crate::pod::full_name(pod))?;
    let (cap_add, cap_drop) = security.capabilities();
    let expand = |words: &Option<Vec<String>>| {
        words.as_ref().filter(|words| !words.is_empty()).map(|words| {
            words.iter().map(|word| expansion::expand(word, |name| lookup(&life.env, name))).collect::<Vec<_>>()
        })
    };
    let spec = pod.spec.as_ref();
    let on = |flag: Option<bool>| flag == Some(true);
    Ok(ContainerSpec {
        pod: crate::pod::identity(pod),
        name: container.name.clone(),
        hash: crate::pod::container_hash(container),
        restart_count: life.restart_count,
        backoff: life.backoff,
        sandbox_id: life.sandbox_id.to_owned(),
        image: container.image.clone().unwrap_or_default(),
        image_id: life.image.id.clone(),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        tty: on(container.tty),
        stdin: on(container.stdin),
        stdin_once: on(container.stdin_once),
        resources: resources(container),
        oom_score_adj: oom_score_adj(pod, container, life.machine_memory),
        user: security.user(life.image),
        groups: security.groups(),
        privileged: security.privileged(),
        cap_add,
        cap_drop,
        read_only_root: security.read_only_root(),
        no_new_privileges: security.no_new_privileges(),
        seccomp: security.seccomp(life.seccomp_profile),
        app_armor: security.app_armor(),
        se_linux: security.se_linux(),
        unmasked_proc: security.unmasked_proc(),
        stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()),
        target_id: life.target_id,
        host_pid: spec.is_some_and(|s| on(s.host_pid)),
        shared_pid: spec.is_some_and(|s| on(s.share_process_namespace)),
        host_ipc: spec.is_some_and(|s| on(s.host_ipc)),
        env: life.env,
        mounts: life.mounts,
    })
}

/// What a container may use.
pub fn resources(container: &Container) -> Resources {
    let quota = |cpu: api::quantity::Quantity| cpu.milli().saturating_mul(CPU_PERIOD_MICROS) / 1000;
    Resources {
        cpu_shares: cpu_shares(container),
        cpu_quota: limit(container, "cpu").map(|cpu| quota(cpu).max(MIN_QUOTA_MICROS)),
        memory: limit(container, "memory").map(|memory| memory.units()).filter(|memory| *memory > 0),
    }
}

fn lookup(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
}

/// The sandbox the runtime is asked to make for `pod`.
pub fn sandbox_spec(pod: &Pod, spec: &PodSpec, attempt: u32, hostname: String) -> SandboxSpec {
    let on = |flag: Option<bool>| flag == Some(true);
    let host_network = on(spec.host_network);
    let sysctls = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    let sysctls = sysctls.map(|s| (s.name.replace('/', "."), s.value.clone())).collect();
    SandboxSpec {
        pod: crate::pod::identity(pod),
        attempt,
        hostname,
        host_network,
        host_pid: on(spec.host_pid),
        host_ipc: on(spec.host_ipc),
        ports: if host_network { Vec::new() } else { host_ports(spec) },
        sysctls,
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = crate::pod::init_containers(spec).iter().filter(|i| crate::pod::is_sidecar(i));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let mapped = ports.filter_map(|port| {
        Some(HostPort {
            host_ip: port.host_ip.clone().unwrap_or_default(),
            host_port: u16::try_from(port.host_port?).ok().filter(|port| *port > 0)?,
            container_port: u16::try_from(port.container_port).ok()?,
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
        })
    });
    let mut mapped: Vec<HostPort> = mapped.collect();
    mapped.sort();
    mapped.dedup();
    mapped
}

fn resource<'a>(list: Option<&'a BTreeMap<String, Quantity>>, name: &str) -> Option<&'a Quantity> {
    list.and_then(|list| list.get(name))
}

fn limit(container: &Container, name: &str) -> Option<api::quantity::Quantity> {
    resource(container.resources.as_ref()?.limits.as_ref(), name).map(api::quantity::of)
}

fn request(container: &Container, name: &str) -> Option<api::quantity::Quantity> {
    let resources = container.resources.as_ref()?;
    resource(resources.requests.as_ref(), name).or(resource(resources.limits.as_ref(), name)).map(api::quantity::of)
}

/// 1024 shares for a core that is requested (`MilliCPUToShares`).
fn cpu_shares(container: &Container) -> i64 {
    let milli = request(container, "cpu").map_or(0, |cpu| cpu.milli());
    (milli * 1024 / 1000).clamp(MIN_SHARES, 262_144)
}

/// Who is killed first when memory is short: those who asked for nothing, then those who use more than they asked for
/// (`GetContainerOOMScoreAdjust`). A sidecar goes no sooner than whom it serves.
fn oom_score_adj(pod: &Pod, container: &Container, machine_memory: i64) -> i64 {
    if is_node_critical(pod) {
        return OOM_GUARANTEED;
    }
    match api::pods::qos_class(pod) {
        "Guaranteed" => OOM_GUARANTEED,
        "BestEffort" => OOM_BEST_EFFORT,
        _ => {
            let asked = |container: &Container| request(container, "memory").map_or(0, |memory| memory.units());
            let mut requested = asked(container);
            if let Some(spec) = pod.spec.as_ref().filter(|spec| is_sidecar_of(spec, container)) {
                requested = requested.max(spec.containers.iter().map(asked).min().unwrap_or(0));
            }
            let share = i128::from(requested) * 1000 / i128::from(machine_memory.max(1));
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
        }
    }
}

/// Whether the machine is no node without the pod (`IsNodeCriticalPod`).
fn is_node_critical(pod: &Pod) -> bool {
    let class = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref());
    class == Some(NODE_CRITICAL) && rank::is_critical(pod)
}

fn is_sidecar_of(spec: &PodSpec, container: &Container) -> bool {
    crate::pod::init_containers(spec).iter().any(|init| init.name == container.name && crate::pod::is_sidecar(init))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runtime::Seccomp;

    fn spec_of(
        pod_spec: serde_json::Value,
        container: serde_json::Value,
        user: &str,
    ) -> Result<ContainerSpec, EnvError> {
        let mut spec = pod_spec;
        spec["containers"] = json!([container]);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let image = Image { user: user.to_owned(), ..Image::default() };
        let life = Life {
            sandbox_id: "s",
            restart_count: 0,
            backoff: Duration::ZERO,
            env: vec![("A".into(), "1".into())],
            mounts: Vec::new(),
            image: &image,
            seccomp_profile: Some("{}".into()),
            target_id: None,
            machine_memory: 1000 << 20,
        };
        container_spec(&pod, &container, life)
    }

    #[test]
    fn resources_become_cgroup_settings() {
        let limits = json!({"name": "c", "resources": {"requests": {"cpu": "250m", "memory": "500Mi"},
            "limits": {"cpu": "1500m", "memory": "600Mi"}}});
        let spec = spec_of(json!({}), limits, "").unwrap();
        let expected = Resources { cpu_shares: 256, cpu_quota: Some(150_000), memory: Some(600 << 20) };
        assert_eq!(spec.resources, expected);
        assert_eq!(spec.oom_score_adj, 500, "half of the node's memory is requested");
        let spec = spec_of(json!({}), json!({"name": "c"}), "").unwrap();
        let expected = Resources { cpu_shares: 2, ..Resources::default() };
        assert_eq!((spec.resources, spec.oom_score_adj), (expected, 1000));
    }

    #[test]
    fn who_is_killed_first_is_as_upstream_has_it() {
        let memory = |name: &str, memory: &str| json!({"name": name, "resources": {"requests": {"memory": memory}}});
        let sidecar = |memory: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"memory": memory}}});
        let critical = |priority: i32| json!({"priorityClassName": NODE_CRITICAL, "priority": priority, "containers": [memory("c", "100Mi")]});
        let of = |inits: serde_json::Value| json!({"containers": [memory("c", "300Mi"), memory("d", "200Mi")], "initContainers": [inits]});
        for (sentence, spec, name, expected) in [
            ("a tenth of the machine is asked for", json!({"containers": [memory("c", "100Mi")]}), "c", 900),
            ("less than a thousandth", json!({"containers": [memory("c", "1")]}), "c", 999),
            ("all and more", json!({"containers": [memory("c", "9Gi")]}), "c", 3),
            ("what a node needs", critical(2_000_001_000), "c", -997),
            ("what only says so", critical(0), "c", 900),
            ("a sidecar is as safe as the least of whom it serves", of(sidecar("1Mi")), "s", 800),
            ("or safer", of(sidecar("400Mi")), "s", 600),
            ("who only initializes is not", of(memory("s", "1Mi")), "s", 999),
        ] {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let (_, container) = crate::pod::container(pod.spec.as_ref().unwrap(), name).unwrap();
            assert_eq!(oom_score_adj(&pod, &container, 1000 << 20), expected, "{sentence}");
        }
    }

    #[test]
    fn commands_are_expanded_and_security_is_carried_over() {
        let spec = spec_of(
            json!({"securityContext": {"runAsUser": 5, "fsGroup": 9}}),
            json!({"name": "c", "command": ["x", "$(A)", "$$(A)"], "securityContext": {
                "runAsGroup": 6, "capabilities": {"add": ["NET_ADMIN"]}, "allowPrivilegeEscalation": false}}),
            "",
        )
        .unwrap();
        assert_eq!(spec.command.unwrap(), ["x", "1", "$(A)"]);
        assert_eq!((spec.user.as_str(), spec.groups), ("5:6", vec!["9".to_owned()]));
        assert!(spec.no_new_privileges && spec.cap_add == ["NET_ADMIN"]);
    }

    #[test]
    fn confinement_is_the_containers_else_the_pods() {
        let pod = || {
            json!({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"},
            "appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}, "seLinuxOptions": {"level": "s0"}}})
        };
        let plain = spec_of(json!({}), json!({"name": "c"}), "").unwrap();
        assert_eq!((plain.seccomp, plain.app_armor), (Seccomp::Unconfined, None), "who asks for none has none");
        let own = spec_of(pod(), json!({"name": "c"}), "").unwrap();
        assert_eq!((own.seccomp, own.app_armor.as_deref()), (Seccomp::RuntimeDefault, Some("p")));
        assert_eq!(own.se_linux, ["level:s0"]);
        let context = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "f.json"},
            "appArmorProfile": {"type": "Unconfined"}, "procMount": "Unmasked"});
        let over = spec_of(
            pod(),
            json!({"name": "c", "securityContext": context,
            "lifecycle": {"stopSignal": "SIGUSR1"}}),
            "",
        )
        .unwrap();
        assert_eq!((over.seccomp, over.app_armor.as_deref()), (Seccomp::Profile("{}".into()), Some("unconfined")));
        assert!(over.unmasked_proc && over.stop_signal.as_deref() == Some("SIGUSR1"));
        let group = spec_of(json!({}), json!({"name": "c", "securityContext": {"runAsGroup": 7}}), "nobody:5").unwrap();
        assert_eq!(group.user, "nobody:7");
    }

    #[test]
    fn nobody_runs_as_root_who_must_not() {
        let pod = || json!({"securityContext": {"runAsNonRoot": true}});
        assert!(spec_of(pod(), json!({"name": "c"}), "").is_err());
        assert!(spec_of(pod(), json!({"name": "c"}), "nginx").is_err());
        assert!(spec_of(pod(), json!({"name": "c"}), "1000").is_ok());
        assert!(spec_of(pod(), json!({"name": "c", "securityContext": {"runAsUser": 0}}), "1000").is_err());
    }

    #[test]
    fn host_ports_are_the_sandboxs_and_none_on_the_hosts_network() {
        let mut spec = PodSpec {
            containers: vec![
                serde_json::from_value(json!({"name": "c", "ports": [
                    {"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}))
                .unwrap(),
            ],
            ..PodSpec::default()
        };
        let ports = sandbox_spec(&Pod::default(), &spec, 0, "h".into()).ports;
        let expected = HostPort { host_ip: String::new(), host_port: 8080, container_port: 80, protocol: "tcp".into() };
        assert_eq!(ports, [expected]);
        spec.host_network = Some(true);
        assert!(sandbox_spec(&Pod::default(), &spec, 0, "h".into()).ports.is_empty());
    }
}
