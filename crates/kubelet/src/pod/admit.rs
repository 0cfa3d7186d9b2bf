//! Whether this node can do what a pod asks. What it cannot, it refuses by name before anything of the pod is made
//! (`pkg/kubelet/lifecycle`, `pkg/kubelet/sysctl`): a field without effect would be worse.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, SecurityContext};

/// Why a pod does not run here: the reason and, after "Pod was rejected: ", the message of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `SysctlForbidden`.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// What differs from node to node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Abilities {
    /// Whether the kernel confines programs by AppArmor profiles.
    pub app_armor: bool,
    /// Whether the machine is about to go down.
    pub shutting_down: bool,
}

impl Abilities {
    /// Those of this machine.
    pub fn of_host() -> Abilities {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Abilities { app_armor: enabled.is_ok_and(|text| text.trim() == "Y"), shutting_down: false }
    }
}

/// The namespace a kernel setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

/// Settings that concern nobody but the pod (`pkg/kubelet/sysctl/safe_sysctls.go`).
const SAFE_SYSCTLS: &[(&str, Namespace)] = &[
    ("kernel.shm_rmid_forced", Namespace::Ipc),
    ("net.ipv4.ip_local_port_range", Namespace::Net),
    ("net.ipv4.tcp_syncookies", Namespace::Net),
    ("net.ipv4.ping_group_range", Namespace::Net),
    ("net.ipv4.ip_unprivileged_port_start", Namespace::Net),
    ("net.ipv4.ip_local_reserved_ports", Namespace::Net),
    ("net.ipv4.tcp_keepalive_time", Namespace::Net),
    ("net.ipv4.tcp_fin_timeout", Namespace::Net),
    ("net.ipv4.tcp_keepalive_intvl", Namespace::Net),
    ("net.ipv4.tcp_keepalive_probes", Namespace::Net),
    ("net.ipv4.tcp_rmem", Namespace::Net),
    ("net.ipv4.tcp_wmem", Namespace::Net),
];

/// Why this node does not run `pod`, if it does not.
pub fn refusal(pod: &Pod, abilities: Abilities) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let refuse = |reason, message: String| Some(Refusal { reason, message });
    if abilities.shutting_down {
        return refuse("NodeShutdown", "Pod was rejected as the node is shutting down.".to_owned());
    }
    let asked_os = pod.metadata.labels.as_ref().and_then(|labels| labels.get(api::well_known::LABEL_OS));
    if asked_os.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label".to_owned();
        return refuse("PodOSSelectorNodeLabelDoesNotMatch", message);
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS".to_owned();
        return refuse("PodOSNotSupported", message);
    }
    if let Some(message) = forbidden_sysctl(spec) {
        return refuse("SysctlForbidden", format!("forbidden sysctl: {message}"));
    }
    let security = spec.security_context.as_ref();
    if security.is_some_and(|s| s.supplemental_groups_policy.as_deref() == Some("Strict")) {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node".to_owned();
        return refuse("SupplementalGroupsPolicyNotSupported", message);
    }
    if !abilities.app_armor && confines(pod, spec) {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned();
        return refuse("AppArmor", message);
    }
    let unserved = unserved(spec);
    if !unserved.is_empty() {
        return refuse("UnsupportedField", format!("this node does not serve {}", unserved.join(", ")));
    }
    None
}

fn forbidden_sysctl(spec: &PodSpec) -> Option<String> {
    let sysctls = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    sysctls.into_iter().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        let Some((_, namespace)) = SAFE_SYSCTLS.iter().find(|(safe, _)| *safe == name) else {
            return Some(format!("{name:?} not allowlisted"));
        };
        match namespace {
            Namespace::Ipc if spec.host_ipc == Some(true) => {
                Some(format!("{name:?} not allowed with host IPC enabled"))
            }
            Namespace::Net if spec.host_network == Some(true) => {
                Some(format!("{name:?} not allowed with host Net enabled"))
            }
            _ => None,
        }
    })
}

/// Whether a profile of the node's own is asked for; the runtime's default profile is no profile where there is no
/// AppArmor.
fn confines(pod: &Pod, spec: &PodSpec) -> bool {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let own = |c: &Container| c.security_context.as_ref().and_then(|s| s.app_armor_profile.clone());
    let profiles = of_pod.cloned().into_iter().chain(containers(spec).into_iter().filter_map(|(_, c)| own(&c)));
    let by_field = profiles.into_iter().any(|profile| profile.type_ == "Localhost");
    let annotations = pod.metadata.annotations.iter().flatten();
    let prefix = "container.apparmor.security.beta.kubernetes.io/";
    by_field || annotations.into_iter().any(|(key, value)| key.starts_with(prefix) && value.starts_with("localhost/"))
}

/// Every container with its path.
fn containers(spec: &PodSpec) -> Vec<(String, Container)> {
    let list = |field: &str, all: Vec<Container>| -> Vec<(String, Container)> {
        all.into_iter().enumerate().map(|(i, c)| (format!("spec.{field}[{i}]"), c)).collect()
    };
    let mut all = list("initContainers", super::init_containers(spec).to_vec());
    all.extend(list("containers", spec.containers.clone()));
    all.extend(list("ephemeralContainers", super::ephemeral_containers(spec)));
    all
}

/// Paths of fields that are set and that nothing here acts on.
fn unserved(spec: &PodSpec) -> Vec<String> {
    let security = spec.security_context.as_ref();
    let of_pod = [
        (spec.host_users == Some(false), "spec.hostUsers"),
        (spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()), "spec.resourceClaims"),
        (spec.resources.as_ref().is_some_and(|r| *r != Default::default()), "spec.resources"),
        (spec.runtime_class_name.as_ref().is_some_and(|n| !n.is_empty()), "spec.runtimeClassName"),
        (spec.workload_ref.is_some(), "spec.workloadRef"),
        (security.is_some_and(|s| s.windows_options.is_some()), "spec.securityContext.windowsOptions"),
    ];
    let mut found: Vec<String> = of_pod.into_iter().filter(|(set, _)| *set).map(|(_, path)| path.to_owned()).collect();
    for (path, container) in containers(spec) {
        found.extend(unserved_in(&container).into_iter().map(|field| format!("{path}.{field}")));
    }
    found
}

fn unserved_in(container: &Container) -> Vec<String> {
    let resources = container.resources.as_ref();
    let huge = |name: &&String| name.starts_with("hugepages-");
    let limits = resources.and_then(|r| r.limits.as_ref());
    let security = container.security_context.as_ref();
    let windows = |s: &SecurityContext| s.windows_options.is_some();
    let mut found = Vec::new();
    found.extend(limits.iter().flat_map(|l| l.keys()).filter(huge).map(|name| format!("resources.limits[{name}]")));
    let fields = [
        (resources.is_some_and(|r| r.claims.as_ref().is_some_and(|c| !c.is_empty())), "resources.claims"),
        (security.is_some_and(windows), "securityContext.windowsOptions"),
        (container.volume_devices.as_ref().is_some_and(|d| !d.is_empty()), "volumeDevices"),
    ];
    found.extend(fields.into_iter().filter(|(set, _)| *set).map(|(_, field)| field.to_owned()));
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if variable.value_from.as_ref().is_some_and(|source| source.file_key_ref.is_some()) {
            found.push(format!("env[{index}].valueFrom.fileKeyRef"));
        }
    }
    for (index, rule) in container.restart_policy_rules.iter().flatten().enumerate() {
        if rule.action != "Restart" {
            found.push(format!("restartPolicyRules[{index}].action"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::pod;
    use super::*;

    fn said(spec: Value) -> Option<(&'static str, String)> {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        refusal(&pod(spec), Abilities::default()).map(|r| (r.reason, r.message))
    }

    #[test]
    fn what_the_node_cannot_do_is_refused_by_name() {
        let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        let mut on_host = sysctl("net.ipv4.tcp_syncookies");
        on_host["hostNetwork"] = json!(true);
        let container = |field: &str, value: Value| json!({"containers": [{"name": "c", field: value}]});
        let profile = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}});
        for (spec, reason, message) in [
            (json!({"os": {"name": "windows"}}), "PodOSNotSupported", "Failed to admit pod as the OS field"),
            (sysctl("kernel.msgmax"), "SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
            (
                on_host,
                "SysctlForbidden",
                "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled",
            ),
            (
                json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}),
                "SupplementalGroupsPolicyNotSupported",
                "SupplementalGroupsPolicy=Strict",
            ),
            (container("securityContext", profile), "AppArmor", "Cannot enforce AppArmor"),
            (json!({"hostUsers": false}), "UnsupportedField", "this node does not serve spec.hostUsers"),
            (json!({"runtimeClassName": "kata"}), "UnsupportedField", "this node does not serve spec.runtimeClassName"),
            (
                container("volumeDevices", json!([{"name": "v", "devicePath": "/d"}])),
                "UnsupportedField",
                "this node does not serve spec.containers[0].volumeDevices",
            ),
            (
                container("resources", json!({"limits": {"hugepages-2Mi": "2Mi"}})),
                "UnsupportedField",
                "this node does not serve spec.containers[0].resources.limits[hugepages-2Mi]",
            ),
        ] {
            let (found, text) = said(spec.clone()).unwrap_or_else(|| panic!("{spec} is taken"));
            assert!(found == reason && text.starts_with(message), "{spec}: {found} {text}");
        }
    }

    #[test]
    fn a_pod_labelled_for_another_system_is_refused() {
        let mut other = pod(json!({"containers": [{"name": "c"}]}));
        for (os, expected) in [("linux", None), ("windows", Some("PodOSSelectorNodeLabelDoesNotMatch"))] {
            other.metadata.labels = Some([("kubernetes.io/os".to_owned(), os.to_owned())].into());
            assert_eq!(refusal(&other, Abilities::default()).map(|r| r.reason), expected, "{os}");
        }
    }

    #[test]
    fn a_node_that_goes_down_takes_no_pods() {
        let abilities = Abilities { shutting_down: true, ..Abilities::default() };
        let refused = refusal(&pod(json!({"containers": [{"name": "c"}]})), abilities).unwrap();
        let message = "Pod was rejected as the node is shutting down.";
        assert_eq!((refused.reason, refused.message.as_str()), ("NodeShutdown", message));
    }

    #[test]
    fn what_it_can_do_is_not() {
        for spec in [
            json!({}),
            json!({"os": {"name": "linux"}, "hostUsers": true, "resources": {}}),
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"},
                {"name": "net/ipv4/ip_unprivileged_port_start", "value": "0"}]}}),
            json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}),
        ] {
            assert_eq!(said(spec.clone()), None, "{spec}");
        }
    }
}
