//! The restricted level: what pods that care for security say of themselves (`policy/check_*.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use serde_json::Value;

use super::Violation;
use super::baseline::{added_beyond, explicit_seccomp};
use super::levels::{Version, since};
use super::violations::{bad, bad_context, blame, containers_named, plural, quoted, setters};

/// Volumes that are about the pod, not the node.
const VOLUME_TYPES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

pub(super) fn violations(version: Version, spec: &PodSpec) -> Vec<Violation> {
    // Since 1.25 what Windows does not know is not asked of pods that say they are for Windows.
    let windows = since(version, 25) && spec.os.as_ref().is_some_and(|os| os.name == "windows");
    let found = [
        (since(version, 8) && !windows).then(|| privilege_escalation(spec)).flatten(),
        (since(version, 22) && !windows).then(|| capabilities(spec)).flatten(),
        volumes(version, spec),
        run_as_non_root(spec),
        since(version, 23).then(|| run_as_user(spec)).flatten(),
        (since(version, 19) && !windows).then(|| seccomp(spec)).flatten(),
    ];
    found.into_iter().flatten().collect()
}

fn violation(reason: &str, detail: String) -> Violation {
    Violation { reason: reason.to_owned(), detail }
}

fn privilege_escalation(spec: &PodSpec) -> Option<Violation> {
    let refuses =
        |c: &Container| c.security_context.as_ref().is_some_and(|s| s.allow_privilege_escalation == Some(false));
    let containers = bad(spec, |c| !refuses(c));
    let who = containers_named(&containers);
    (!containers.is_empty()).then(|| {
        let detail = format!("{who} must set securityContext.allowPrivilegeEscalation=false");
        violation("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(spec: &PodSpec) -> Option<Violation> {
    let drops_all = |c: &Container| {
        let dropped = c.security_context.as_ref().and_then(|s| s.capabilities.as_ref()?.drop.as_ref());
        dropped.is_some_and(|d| d.iter().any(|name| name == "ALL"))
    };
    let keeping = bad(spec, |c| !drops_all(c));
    let who = containers_named(&keeping);
    let missing = (!keeping.is_empty()).then(|| format!(r#"{who} must set securityContext.capabilities.drop=["ALL"]"#));
    let details: Vec<String> = missing.into_iter().chain(added_beyond(spec, &["NET_BIND_SERVICE"])).collect();
    (!details.is_empty()).then(|| violation("unrestricted capabilities", details.join("; ")))
}

/// The name of the one field beside the name that a volume has: its type.
fn type_of(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let types =
        fields.as_object().into_iter().flat_map(|f| f.iter().filter(|(k, v)| *k != "name" && **v != Value::Null));
    types.map(|(name, _)| name.clone()).next().unwrap_or_else(|| "unknown".to_owned())
}

fn volumes(version: Version, spec: &PodSpec) -> Option<Violation> {
    let allowed = |t: &str| VOLUME_TYPES.contains(&t) || t == "image" && since(version, 31);
    let bad: Vec<(&str, String)> =
        spec.volumes.iter().flatten().map(|v| (v.name.as_str(), type_of(v))).filter(|(_, t)| !allowed(t)).collect();
    let types: BTreeSet<&str> = bad.iter().map(|(_, t)| t.as_str()).collect();
    (!bad.is_empty()).then(|| {
        let (volume, uses) = (plural("volume", "volumes", bad.len()), plural("uses", "use", bad.len()));
        let kind = plural("restricted volume type", "restricted volume types", types.len());
        let names = quoted(bad.iter().map(|(name, _)| *name));
        violation("restricted volume types", format!("{volume} {names} {uses} {kind} {}", quoted(types)))
    })
}

fn run_as_non_root(spec: &PodSpec) -> Option<Violation> {
    let reason = "runAsNonRoot != true";
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_non_root);
    let says = |c: &Container| c.security_context.as_ref().and_then(|s| s.run_as_non_root);
    let roots = bad(spec, |c| says(c) == Some(false));
    let silent = bad(spec, |c| says(c).is_none());
    // A pod's word counts only for containers that say nothing themselves.
    let pod_is_root = of_pod == Some(false) && !silent.is_empty();
    let explicit = blame(&setters(pod_is_root, &roots), reason, |who| {
        format!("{who} must not set securityContext.runAsNonRoot=false")
    });
    explicit.or_else(|| {
        let who = containers_named(&silent);
        let detail = format!("pod or {who} must set securityContext.runAsNonRoot=true");
        (of_pod.is_none() && !silent.is_empty()).then(|| violation(reason, detail))
    })
}

fn run_as_user(spec: &PodSpec) -> Option<Violation> {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user) == Some(0);
    let containers = bad_context(spec, |s| s.run_as_user == Some(0));
    blame(&setters(of_pod, &containers), "runAsUser=0", |who| format!("{who} must not set runAsUser=0"))
}

fn seccomp(spec: &PodSpec) -> Option<Violation> {
    let explicit = explicit_seccomp(spec, |type_| matches!(type_, "RuntimeDefault" | "Localhost"));
    let of_pod = spec.security_context.as_ref().is_some_and(|s| s.seccomp_profile.is_some());
    let silent = bad(spec, |c| c.security_context.as_ref().is_none_or(|s| s.seccomp_profile.is_none()));
    explicit.or_else(|| {
        let who = containers_named(&silent);
        let wanted = r#"must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#;
        (!of_pod && !silent.is_empty()).then(|| violation("seccompProfile", format!("pod or {who} {wanted}")))
    })
}
