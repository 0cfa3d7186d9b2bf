//! The baseline level: nothing that is a known way to become the node (`policy/check_*.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, HTTPGetAction, LifecycleHandler, PodSpec, Probe, SELinuxOptions, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Violation;
use super::levels::{Version, since};
use super::violations::{bad, bad_context, blame, containers_named, plural, quoted, setters, words};

/// What containers may have beside nothing.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel settings that are the pod's own, and the version since which they may be set.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SELINUX_TYPES: [&str; 4] = ["", "container_t", "container_init_t", "container_kvm_t"];

/// `strict`: the restricted level brings stricter rules of its own on some of these.
pub(super) fn violations(version: Version, strict: bool, metadata: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
    let own_capabilities = strict && since(version, 22);
    let own_seccomp = strict && since(version, 19);
    let found = [
        app_armor(metadata, spec),
        (!own_capabilities).then(|| capabilities(spec)).flatten(),
        host_namespaces(spec),
        (!strict).then(|| host_path_volumes(spec)).flatten(),
        host_ports(spec),
        since(version, 34).then(|| host_probes(spec)).flatten(),
        privileged(spec),
        proc_mount(spec),
        selinux(version, spec),
        (!own_seccomp && since(version, 19)).then(|| seccomp(spec)).flatten(),
        sysctls(version, spec),
        windows_host_process(spec),
    ];
    found.into_iter().flatten().collect()
}

fn app_armor(metadata: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let allowed = |profile: &str| matches!(profile, "RuntimeDefault" | "Localhost");
    let of_pod = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref()).map(|p| p.type_.as_str());
    let of_pod = of_pod.filter(|p| !allowed(p));
    let of = |c: &Container| {
        c.security_context.as_ref()?.app_armor_profile.as_ref().map(|p| p.type_.clone()).filter(|p| !allowed(p))
    };
    let containers = bad(spec, |c| of(c).is_some());
    let types: BTreeSet<String> =
        api::pods::all_containers(spec).filter_map(of).chain(of_pod.map(str::to_owned)).collect();
    let annotations = metadata.annotations.iter().flatten().filter(|(key, value)| {
        let fine = matches!(value.as_str(), "" | "runtime/default") || value.starts_with("localhost/");
        key.starts_with(APP_ARMOR_ANNOTATION) && !fine
    });
    let annotations: Vec<String> = annotations.map(|(key, value)| format!("{key}={value:?}")).collect();
    let mut setters = setters(of_pod.is_some(), &containers);
    if !annotations.is_empty() {
        setters.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    let values: Vec<String> = types.into_iter().chain(annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    blame(&setters, reason, |who| format!("{who} must not set AppArmor profile type to {}", quoted(&values)))
}

/// The capabilities a container adds.
pub(super) fn added(container: &Container) -> impl Iterator<Item = &str> {
    let capabilities = container.security_context.as_ref().and_then(|s| s.capabilities.as_ref());
    capabilities.and_then(|c| c.add.as_ref()).into_iter().flatten().map(String::as_str)
}

fn capabilities(spec: &PodSpec) -> Option<Violation> {
    added_beyond(spec, &CAPABILITIES).map(|detail| Violation { reason: "non-default capabilities".to_owned(), detail })
}

/// Which containers add more than `allowed`, and what.
pub(super) fn added_beyond(spec: &PodSpec, allowed: &[&str]) -> Option<String> {
    let containers = bad(spec, |c| added(c).any(|name| !allowed.contains(&name)));
    let names = words(api::pods::all_containers(spec).flat_map(added).filter(|name| !allowed.contains(name)));
    let who = containers_named(&containers);
    (!containers.is_empty())
        .then(|| format!("{who} must not include {} in securityContext.capabilities.add", quoted(names)))
}

fn host_namespaces(spec: &PodSpec) -> Option<Violation> {
    let shared =
        [(spec.host_network, "hostNetwork=true"), (spec.host_pid, "hostPID=true"), (spec.host_ipc, "hostIPC=true")];
    let shared: Vec<&str> = shared.into_iter().filter(|(is, _)| *is == Some(true)).map(|(_, word)| word).collect();
    (!shared.is_empty()).then(|| Violation { reason: "host namespaces".to_owned(), detail: shared.join(", ") })
}

fn host_path_volumes(spec: &PodSpec) -> Option<Violation> {
    let volumes = spec.volumes.iter().flatten().filter(|v| v.host_path.is_some());
    let names: Vec<&str> = volumes.map(|v| v.name.as_str()).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names));
    (!names.is_empty()).then(|| Violation { reason: "hostPath volumes".to_owned(), detail: detail() })
}

/// `container "a" uses hostPort 80`.
fn uses(containers: &[&str], what: &str, values: &str) -> String {
    format!("{} {} {what} {values}", containers_named(containers), plural("uses", "use", containers.len()))
}

fn host_ports(spec: &PodSpec) -> Option<Violation> {
    let ports = |c: &Container| -> BTreeSet<String> {
        c.ports.iter().flatten().filter_map(|p| p.host_port).filter(|p| *p != 0).map(|p| p.to_string()).collect()
    };
    let containers = bad(spec, |c| !ports(c).is_empty());
    let all: BTreeSet<String> = api::pods::all_containers(spec).flat_map(ports).collect();
    let joined = all.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let what = plural("hostPort", "hostPorts", all.len());
    (!containers.is_empty())
        .then(|| Violation { reason: "hostPort".to_owned(), detail: uses(&containers, what, &joined) })
}

/// A probe that goes elsewhere makes the kubelet a proxy (KEP-4940).
fn host_probes(spec: &PodSpec) -> Option<Violation> {
    let targets = |http: Option<&HTTPGetAction>, tcp: Option<&TCPSocketAction>| {
        let hosts = [http.and_then(|a| a.host.clone()), tcp.and_then(|a| a.host.clone())];
        hosts.into_iter().flatten().filter(|host| !host.is_empty())
    };
    let of_probe = |p: &Probe| targets(p.http_get.as_ref(), p.tcp_socket.as_ref()).collect::<Vec<_>>();
    let of_hook = |h: &LifecycleHandler| targets(h.http_get.as_ref(), h.tcp_socket.as_ref()).collect::<Vec<_>>();
    let hosts = |c: &Container| -> BTreeSet<String> {
        let probes = [&c.liveness_probe, &c.readiness_probe, &c.startup_probe].into_iter().flatten();
        let hooks = c.lifecycle.iter().flat_map(|l| [&l.post_start, &l.pre_stop]).flatten();
        probes.flat_map(of_probe).chain(hooks.flat_map(of_hook)).collect()
    };
    let mut containers = bad(spec, |c| !hosts(c).is_empty());
    containers.sort_unstable();
    let all: BTreeSet<String> = api::pods::all_containers(spec).flat_map(hosts).collect();
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
    (!containers.is_empty()).then(|| Violation {
        reason: "probe or lifecycle host".to_owned(),
        detail: uses(&containers, what, &quoted(&all)),
    })
}

fn privileged(spec: &PodSpec) -> Option<Violation> {
    let containers = bad_context(spec, |s| s.privileged == Some(true));
    blame(&setters(false, &containers), "privileged", |who| {
        format!("{who} must not set securityContext.privileged=true")
    })
}

fn proc_mount(spec: &PodSpec) -> Option<Violation> {
    let forbidden = |mount: &Option<String>| mount.as_deref().is_some_and(|m| m != "Default");
    let containers = bad_context(spec, |s| forbidden(&s.proc_mount));
    let contexts = api::pods::all_containers(spec).filter_map(|c| c.security_context.as_ref());
    let values = words(contexts.filter(|s| forbidden(&s.proc_mount)).filter_map(|s| s.proc_mount.as_deref()));
    blame(&setters(false, &containers), "procMount", |who| {
        format!("{who} must not set securityContext.procMount to {}", quoted(values))
    })
}

fn selinux(version: Version, spec: &PodSpec) -> Option<Violation> {
    let type_of = |o: &SELinuxOptions| o.type_.clone().unwrap_or_default();
    let allowed = |t: &str| SELINUX_TYPES.contains(&t) || since(version, 31) && t == "container_engine_t";
    let is_set = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
    let forbidden = |o: &SELinuxOptions| !allowed(&type_of(o)) || is_set(&o.user) || is_set(&o.role);
    let of_pod = spec.security_context.as_ref().and_then(|s| s.se_linux_options.as_ref());
    let containers = bad_context(spec, |s| s.se_linux_options.as_ref().is_some_and(forbidden));
    let contexts =
        api::pods::all_containers(spec).filter_map(|c| c.security_context.as_ref()?.se_linux_options.as_ref());
    let all: Vec<&SELinuxOptions> = of_pod.into_iter().chain(contexts).collect();
    let types: BTreeSet<String> = all.iter().map(|o| type_of(o)).filter(|t| !allowed(t)).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    if all.iter().any(|o| is_set(&o.user)) {
        data.push("user may not be set".to_owned());
    }
    if all.iter().any(|o| is_set(&o.role)) {
        data.push("role may not be set".to_owned());
    }
    let setters = setters(of_pod.is_some_and(forbidden), &containers);
    let verb = plural("sets", "set", setters.len());
    blame(&setters, "seLinuxOptions", |who| {
        format!("{who} {verb} forbidden securityContext.seLinuxOptions: {}", data.join("; "))
    })
}

fn seccomp(spec: &PodSpec) -> Option<Violation> {
    explicit_seccomp(spec, |type_| matches!(type_, "RuntimeDefault" | "Localhost"))
}

/// Seccomp profiles that someone chose and that are not `allowed`.
pub(super) fn explicit_seccomp(spec: &PodSpec, allowed: fn(&str) -> bool) -> Option<Violation> {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str());
    let of_pod = of_pod.filter(|t| !allowed(t));
    let containers = bad_context(spec, |s| s.seccomp_profile.as_ref().is_some_and(|p| !allowed(&p.type_)));
    let contexts = api::pods::all_containers(spec).filter_map(|c| c.security_context.as_ref());
    let types = contexts.filter_map(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str()).filter(|t| !allowed(t));
    let values = words(types.chain(of_pod));
    blame(&setters(of_pod.is_some(), &containers), "seccompProfile", |who| {
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values))
    })
}

fn sysctls(version: Version, spec: &PodSpec) -> Option<Violation> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, minor)| *known == name && since(version, *minor));
    let set = spec.security_context.as_ref().and_then(|s| s.sysctls.as_ref()).into_iter().flatten();
    let forbidden: Vec<&str> = set.map(|s| s.name.as_str()).filter(|name| !allowed(name)).collect();
    (!forbidden.is_empty()).then(|| Violation { reason: "forbidden sysctls".to_owned(), detail: forbidden.join(", ") })
}

fn windows_host_process(spec: &PodSpec) -> Option<Violation> {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.windows_options.as_ref());
    let containers = bad_context(spec, |s| s.windows_options.as_ref().is_some_and(|w| w.host_process == Some(true)));
    let setters = setters(of_pod.is_some_and(|w| w.host_process == Some(true)), &containers);
    blame(&setters, "hostProcess", |who| format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
