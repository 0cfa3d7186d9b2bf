//! What is accepted though its author hardly means it, or though it will not be for ever (`pkg/api/pod/warnings.go`).

mod ports;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, AppArmorProfile, Container, EnvVar, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, PodTemplateSpec,
    Volume, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::field::Path;
use crate::{names, quantity};

/// Labels of nodes by which nothing new should be chosen (`pkg/api/node/util.go`).
const OLD_NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    ("failure-domain.beta.kubernetes.io/zone", r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#),
    ("beta.kubernetes.io/instance-type", r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];
/// Annotations that have become fields.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const OLD_APP_ARMOR: &str = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;
const OLD_SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
const SELECTS_NOTHING: &str = "a null labelSelector results in matching no pod";

/// Of a new pod. Later ones say nothing: hardly any comes from a person.
pub(super) fn pod(pod: &Pod) -> Vec<String> {
    let mut said: Vec<_> = pod.spec.iter().flat_map(|spec| old_app_armor(spec, &pod.metadata)).collect();
    said.extend(hostname(&pod.metadata, "the Pod's hostname"));
    said.extend(pod.spec.as_ref().map(|spec| of(spec, &pod.metadata, &Path::default())).unwrap_or_default());
    said
}

/// Of a pod to be.
pub(in crate::kinds) fn template(template: &PodTemplateSpec, path: &Path) -> Vec<String> {
    let none = ObjectMeta::default();
    let metadata = template.metadata.as_ref().unwrap_or(&none);
    let Some(spec) = template.spec.as_ref() else { return Vec::new() };
    let mut said = of(spec, metadata, path);
    if app_armor(spec).is_none() {
        let annotations = path.child("metadata").child("annotations");
        said.extend(app_armor_annotations(spec, metadata).map(|(key, _)| app_armor_is_old(&annotations.key(&key))));
    }
    said
}

/// Of a pod's annotations those that say something else than its field does (`applyAppArmorVersionSkew` in
/// `pkg/registry/core/pod/strategy.go`).
fn old_app_armor(spec: &PodSpec, metadata: &ObjectMeta) -> Vec<String> {
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Vec::new();
    }
    let annotations = Path::new("metadata").child("annotations");
    let differs = |value: &str| {
        let (type_, file) = match value.split_once('/') {
            Some(("localhost", file)) => ("Localhost", Some(file)),
            _ if value == "runtime/default" => ("RuntimeDefault", None),
            _ if value == "unconfined" => ("Unconfined", None),
            _ => return true,
        };
        app_armor(spec)
            .is_none_or(|of_pod| (of_pod.type_.as_str(), of_pod.localhost_profile.as_deref()) != (type_, file))
    };
    let differing = app_armor_annotations(spec, metadata).filter(|(_, value)| differs(value));
    differing.map(|(key, _)| app_armor_is_old(&annotations.key(&key))).collect()
}

fn app_armor(spec: &PodSpec) -> Option<&AppArmorProfile> {
    spec.security_context.as_ref()?.app_armor_profile.as_ref()
}

/// The annotations of containers that have no profile of their own in a field.
fn app_armor_annotations(spec: &PodSpec, metadata: &ObjectMeta) -> impl Iterator<Item = (String, String)> {
    let annotations = metadata.annotations.clone().unwrap_or_default();
    let has_field =
        |container: &Container| container.security_context.as_ref().is_some_and(|c| c.app_armor_profile.is_some());
    let without = containers(spec, &Path::default()).into_iter().filter(move |(container, _)| !has_field(container));
    without.filter_map(move |(container, _)| {
        annotations
            .get_key_value(&format!("{APP_ARMOR}{}", container.name))
            .map(|(key, value)| (key.clone(), value.clone()))
    })
}

fn app_armor_is_old(path: &Path) -> String {
    format!("{path}: {OLD_APP_ARMOR}")
}

/// Of a name that becomes part of host names.
pub(in crate::kinds) fn hostname(metadata: &ObjectMeta, becomes: &str) -> Vec<String> {
    let problems = names::is_dns1123_label(metadata.name.as_deref().unwrap_or(""));
    if problems.is_empty() {
        return Vec::new();
    }
    let problems = problems.join(" ");
    vec![format!(
        "metadata.name: this is used in {becomes}, which can result in surprising behavior; a DNS label is recommended: [{problems}]"
    )]
}

/// Of the terms by which nodes are chosen.
pub(in crate::kinds) fn node_selector_term(term: &NodeSelectorTerm, path: &Path) -> Vec<String> {
    let expressions = term.match_expressions.iter().flatten().enumerate();
    let old = expressions.filter_map(|(index, expression)| {
        let message = old_node_label(&expression.key)?;
        let path = path.child("matchExpressions").index(index).child("key");
        Some(format!("{path}: {} is {message}", expression.key))
    });
    old.collect()
}

/// Of an amount of bytes.
pub(in crate::kinds) fn fraction(
    amounts: Option<&BTreeMap<String, Amount>>,
    name: &str,
    path: &Path,
) -> Option<String> {
    let amount = amounts?.get(name)?;
    let is_whole = quantity::of(amount).milli() % 1000 == 0;
    let path = path.key(name);
    (!is_whole).then(|| format!("{path}: fractional byte value {:?} is invalid, must be an integer", amount.0))
}

fn of(spec: &PodSpec, metadata: &ObjectMeta, root: &Path) -> Vec<String> {
    let (path, annotations) = (root.child("spec"), root.child("metadata").child("annotations"));
    let mut said = placement(spec, &path);
    said.extend(old_annotations(metadata, &annotations));
    said.extend(volumes(spec, &path.child("volumes")));
    said.extend(shadowed_tokens(spec, &path.child("volumes")));
    let hosts = spec.host_aliases.iter().flatten().map(|alias| alias.ip.as_str());
    said.extend(repeated(hosts, &path.child("hostAliases"), "ip"));
    let secrets = || spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str());
    let list = path.child("imagePullSecrets");
    said.extend(repeated(secrets(), &list, "name"));
    let nameless = secrets().enumerate().filter(|(_, name)| name.is_empty());
    said.extend(nameless.map(|(index, _)| format!("{}: invalid empty name \"\"", list.index(index).child("name"))));
    for bytes in ["memory", "ephemeral-storage"] {
        said.extend(fraction(spec.overhead.as_ref(), bytes, &path.child("overhead")));
    }
    let has_profile = spec.security_context.as_ref().is_some_and(|context| context.seccomp_profile.is_some());
    if !has_profile && has(metadata, SECCOMP_OF_POD) {
        said.push(format!("{}: {OLD_SECCOMP}", annotations.key(SECCOMP_OF_POD)));
    }
    let all = containers(spec, &path);
    for (container, path) in &all {
        said.extend(of_container(container, path, metadata, &annotations));
    }
    said.extend(ports::warnings(&all));
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        said.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    said.extend(spec.affinity.iter().flat_map(|affinity| affinities(affinity, &path.child("affinity"))));
    said
}

fn has(metadata: &ObjectMeta, annotation: &str) -> bool {
    metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(annotation))
}

fn old_node_label(key: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

/// All containers of a pod with where they stand (`VisitContainersWithPath`).
fn containers(spec: &PodSpec, path: &Path) -> Vec<(Container, Path)> {
    let ephemeral: Vec<Container> =
        spec.ephemeral_containers.iter().flatten().map(crate::pods::from_ephemeral).collect();
    let lists = [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", spec.containers.as_slice()),
        ("ephemeralContainers", ephemeral.as_slice()),
    ];
    let of = |(name, list): (&str, &[Container])| -> Vec<_> {
        let path = path.child(name);
        list.iter().enumerate().map(|(index, container)| (container.clone(), path.index(index))).collect()
    };
    lists.into_iter().flat_map(of).collect()
}

fn placement(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut said = Vec::new();
    for key in spec.node_selector.iter().flat_map(|labels| labels.keys()) {
        said.extend(old_node_label(key).map(|message| format!("{}: {message}", path.child("nodeSelector").key(key))));
    }
    if let Some(nodes) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        let path = path.child("affinity").child("nodeAffinity");
        let required = nodes.required_during_scheduling_ignored_during_execution.as_ref();
        let terms = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
        for (index, term) in required.iter().flat_map(|required| &required.node_selector_terms).enumerate() {
            said.extend(node_selector_term(term, &terms.index(index)));
        }
        let preferred = nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let terms = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in preferred.enumerate() {
            said.extend(node_selector_term(&term.preference, &terms.index(index).child("preference")));
        }
    }
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = path.child("topologySpreadConstraints").index(index);
        if let Some(message) = old_node_label(&constraint.topology_key) {
            said.push(format!("{}: {} is {message}", path.child("topologyKey"), constraint.topology_key));
        }
        if constraint.label_selector.is_none() {
            said.push(format!("{}: {SELECTS_NOTHING}", path.child("labelSelector")));
        }
    }
    said
}

fn old_annotations(metadata: &ObjectMeta, path: &Path) -> Vec<String> {
    let there = OLD_ANNOTATIONS.iter().filter(|(key, _)| has(metadata, key));
    there.map(|(key, message)| format!("{}: {message}", path.key(key))).collect()
}

fn volumes(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut said = Vec::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.index(index);
        let old = old_volume(volume);
        said.extend(old.map(|(field, since)| format!("{}: {since}", path.child(field))));
        let claim = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref());
        if let Some(resources) = claim.and_then(|claim| claim.spec.resources.as_ref()) {
            let path = path.child("ephemeral").child("volumeClaimTemplate").child("spec").child("resources");
            said.extend(fraction(resources.requests.as_ref(), "storage", &path.child("requests")));
            said.extend(fraction(resources.limits.as_ref(), "storage", &path.child("limits")));
        }
    }
    said
}

/// Kinds of volumes that have had their time.
fn old_volume(volume: &Volume) -> Option<(&'static str, &'static str)> {
    let kinds = [
        (
            volume.photon_persistent_disk.is_some(),
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        (volume.git_repo.is_some(), "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        (volume.scale_io.is_some(), "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        (volume.flocker.is_some(), "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        (volume.storageos.is_some(), "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        (volume.quobyte.is_some(), "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        (volume.glusterfs.is_some(), "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        (volume.cephfs.is_some(), "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        (volume.rbd.is_some(), "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    kinds.into_iter().find(|(is_set, ..)| *is_set).map(|(_, field, since)| (field, since))
}

/// Files of projected volumes that lie where a token does.
fn shadowed_tokens(spec: &PodSpec, path: &Path) -> Vec<String> {
    let projected = || {
        let volumes = spec.volumes.iter().flatten().enumerate();
        volumes.flat_map(|(index, volume)| {
            let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
            sources.map(move |source| (index, source))
        })
    };
    let tokens: BTreeSet<&str> =
        projected().filter_map(|(_, source)| Some(source.service_account_token.as_ref()?.path.as_str())).collect();
    let mut said = Vec::new();
    for (index, source) in projected() {
        let path = path.index(index).child("projected").child("sources");
        let maps = source.config_map.iter().flat_map(|map| map.items.iter().flatten()).map(|item| &item.path);
        let secrets = source.secret.iter().flat_map(|secret| secret.items.iter().flatten()).map(|item| &item.path);
        let downward = source.downward_api.iter().flat_map(|api| api.items.iter().flatten()).map(|item| &item.path);
        let files = maps.enumerate().map(|(at, file)| ("configMap", at, file));
        let files = files.chain(secrets.enumerate().map(|(at, file)| ("secrets", at, file)));
        let files = files.chain(downward.enumerate().map(|(at, file)| ("downwardAPI", at, file)));
        for (kind, at, file) in files.filter(|(.., file)| tokens.contains(file.as_str())) {
            let path = path.child(kind).index(at);
            said.push(format!("{path}: has duplicated path with ServiceAccountToken {file:?}"));
        }
        let bundle = source.cluster_trust_bundle.iter().map(|bundle| &bundle.path);
        let path = path.child("ClusterTrustBundle");
        let shadowing = bundle.filter(|file| tokens.contains(file.as_str()));
        said.extend(shadowing.map(|file| format!("{path}: has duplicated path with ServiceAccountToken {file:?}")));
    }
    said
}

fn repeated<'a>(values: impl Iterator<Item = &'a str>, path: &Path, field: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let again = values.enumerate().filter(|(_, value)| !seen.insert(*value));
    again.map(|(index, value)| format!("{}: duplicate {field} {value:?}", path.index(index).child(field))).collect()
}

fn of_container(container: &Container, path: &Path, metadata: &ObjectMeta, annotations: &Path) -> Vec<String> {
    let mut said = Vec::new();
    let has_profile = container.security_context.as_ref().is_some_and(|context| context.seccomp_profile.is_some());
    let seccomp = format!("{SECCOMP_OF_CONTAINER}{}", container.name);
    if !has_profile && has(metadata, &seccomp) {
        said.push(format!("{}: {OLD_SECCOMP}", annotations.key(&seccomp)));
    }
    if let Some(resources) = &container.resources {
        let (limits, requests) = (path.child("resources").child("limits"), path.child("resources").child("requests"));
        for bytes in ["memory", "ephemeral-storage"] {
            said.extend(fraction(resources.limits.as_ref(), bytes, &limits));
            said.extend(fraction(resources.requests.as_ref(), bytes, &requests));
        }
    }
    said.extend(hidden(container.env.as_deref().unwrap_or_default(), &path.child("env")));
    said
}

/// Variables of which only the last counts. One that builds on the one before is meant.
fn hidden(env: &[EnvVar], path: &Path) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let again = env.iter().enumerate().filter(|(_, variable)| !seen.insert(variable.name.as_str()));
    let lost = again.filter(|(_, variable)| {
        let (value, before) = (variable.value.as_deref().unwrap_or(""), format!("$({})", variable.name));
        variable.value_from.is_some() || value == before || !value.contains(&before)
    });
    let say = |(index, variable): (usize, &EnvVar)| {
        let path = path.index(index);
        format!("{path}: hides previous definition of {:?}, which may be dropped when using apply", variable.name)
    };
    lost.map(say).collect()
}

fn affinities(affinity: &Affinity, path: &Path) -> Vec<String> {
    let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let near = near.map(|terms| {
        let preferred = &terms.preferred_during_scheduling_ignored_during_execution;
        ("podAffinity", &terms.required_during_scheduling_ignored_during_execution, preferred)
    });
    let far = far.map(|terms| {
        let preferred = &terms.preferred_during_scheduling_ignored_during_execution;
        ("podAntiAffinity", &terms.required_during_scheduling_ignored_during_execution, preferred)
    });
    let mut said = Vec::new();
    for (name, required, preferred) in near.into_iter().chain(far) {
        let path = path.child(name);
        let say = |path: Path| format!("{path}: {SELECTS_NOTHING}");
        let selects_nothing = |term: &PodAffinityTerm| term.label_selector.is_none();
        let list = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        let required = required.iter().flatten().enumerate().filter(|(_, term)| selects_nothing(term));
        said.extend(required.map(|(index, _)| say(list.index(index).child("labelSelector"))));
        let list = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        let weighted = |(_, term): &(usize, &WeightedPodAffinityTerm)| selects_nothing(&term.pod_affinity_term);
        let preferred = preferred.iter().flatten().enumerate().filter(weighted);
        said.extend(preferred.map(|(index, _)| say(list.index(index).child("podAffinityTerm").child("labelSelector"))));
    }
    said
}
