//! `PodSecurity`: a namespace's labels say how much its pods may do to their node.
//!
//! `enforce` refuses pods, `warn` warns whoever creates them or what makes them, `audit` tells the audit log. When a
//! namespace comes to enforce more, its pods that would not be let in any more are named.
//! Compare `k8s.io/pod-security-admission/admission`.

mod baseline;
mod levels;
mod restricted;
#[cfg(test)]
mod tests;
mod violations;

use std::collections::BTreeMap;

use api::field::{self, ErrorList, Path};
use api::{Object, Resource};
use k8s_openapi::api::core::v1::{Container, Namespace, Pod, PodSpec, PodTemplate, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::levels::{AUDIT, ENFORCE, Level, LevelVersion, Mode, WARN};
use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

/// The audit log's keys for what was enforced, and for what would not have been let in.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
const AUDITED: &str = "pod-security.kubernetes.io/audit-violations";

/// How many of a namespace's pods are looked at when it comes to enforce more.
const MAX_PODS_TO_CHECK: usize = 3000;

pub(super) struct PodSecurity;

impl Plugin for PodSecurity {
    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, effects: &mut Effects) -> Result<(), ApiError> {
        let Some(object) = object.filter(|_| a.subresource.is_none()).map(Object::as_any) else { return Ok(()) };
        if let Some(pod) = object.downcast_ref::<Pod>() {
            return judge_pod(a, pod, effects);
        }
        if let Some(namespace) = object.downcast_ref::<Namespace>() {
            return judge_namespace(a, namespace, effects);
        }
        let template = match object.downcast_ref::<ReplicationController>() {
            Some(controller) => controller.spec.as_ref().and_then(|s| s.template.as_ref()),
            None => object.downcast_ref::<PodTemplate>().and_then(|t| t.template.as_ref()),
        };
        if let Some(spec) = template.and_then(|t| t.spec.as_ref()) {
            let empty = ObjectMeta::default();
            let metadata = template.and_then(|t| t.metadata.as_ref()).unwrap_or(&empty);
            let labels = labels_of_namespace(a);
            audit(a, &labels, metadata, spec);
            warn(&labels, metadata, spec, effects);
        }
        Ok(())
    }
}

type Labels = BTreeMap<String, String>;

/// The labels of the request's namespace that are about security. The namespace is checked in the same transaction, so
/// they are those that hold when the pod comes.
fn labels_of_namespace(a: &Attributes<'_>) -> Labels {
    let Some(namespace) = a.namespace else { return Labels::new() };
    let namespaces = a.cache.of(super::kind_of::<Namespace>());
    let entry = namespaces.get(&Namespace::INFO.registry_key(None, namespace));
    entry.and_then(|entry| entry.select.labels.as_deref().map(levels::security_labels)).unwrap_or_default()
}

fn judge_pod(a: &Attributes<'_>, pod: &Pod, effects: &mut Effects) -> Result<(), ApiError> {
    let Some(spec) = pod.spec.as_ref() else { return Ok(()) };
    let spec = &with_ephemeral(spec);
    let old = a.old.and_then(|o| o.as_any().downcast_ref::<Pod>());
    if old.is_some_and(|old| !matters(pod, old)) {
        return Ok(());
    }
    let labels = labels_of_namespace(a);
    if labels.is_empty() {
        return Ok(());
    }
    let enforced = levels::of(&labels, &ENFORCE);
    a.note(ENFORCED, enforced.to_string());
    audit(a, &labels, &pod.metadata, spec);
    let violations = violations(&enforced, &pod.metadata, spec);
    if !violations.is_empty() {
        return Err(a.forbidden(format!("violates PodSecurity {:?}: {}", enforced.to_string(), detail(&violations))));
    }
    warn(&labels, &pod.metadata, spec, effects);
    Ok(())
}

/// The spec with its ephemeral containers among the others: what is forbidden to one is to all.
fn with_ephemeral(spec: &PodSpec) -> PodSpec {
    let mut spec = spec.clone();
    let ephemeral = spec.ephemeral_containers.take().unwrap_or_default();
    spec.containers.extend(ephemeral.iter().map(api::pods::from_ephemeral));
    spec
}

/// Whether a change of a pod is one that security is about: another image, or annotations.
fn matters(new: &Pod, old: &Pod) -> bool {
    let images = |pod: &Pod| -> Vec<Option<String>> {
        let spec = pod.spec.as_ref().map(with_ephemeral);
        spec.iter().flat_map(api::pods::all_containers).map(|c: &Container| c.image.clone()).collect()
    };
    images(new) != images(old) || new.metadata.annotations != old.metadata.annotations
}

fn warn(labels: &Labels, metadata: &ObjectMeta, spec: &PodSpec, effects: &mut Effects) {
    effects.warnings.extend(would_violate(labels, &WARN, metadata, spec).map(Into::into));
}

fn audit(a: &Attributes<'_>, labels: &Labels, metadata: &ObjectMeta, spec: &PodSpec) {
    if let Some(text) = would_violate(labels, &AUDIT, metadata, spec) {
        a.note(AUDITED, text);
    }
}

/// What is said of a pod that a mode would not let in.
fn would_violate(labels: &Labels, mode: &Mode, metadata: &ObjectMeta, spec: &PodSpec) -> Option<String> {
    let level = levels::of(labels, mode);
    let violations = violations(&level, metadata, spec);
    let text = || format!("would violate PodSecurity {:?}: {}", level.to_string(), detail(&violations));
    (!violations.is_empty()).then(text)
}

/// What of a pod is forbidden, and how it came to be there.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    reason: String,
    detail: String,
}

fn violations(level: &LevelVersion, metadata: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
    let strict = level.level == Level::Restricted;
    if level.level == Level::Privileged {
        return Vec::new();
    }
    let mut found = baseline::violations(level.version, strict, metadata, spec);
    if strict {
        found.extend(restricted::violations(level.version, spec));
    }
    found
}

fn detail(violations: &[Violation]) -> String {
    let one =
        |v: &Violation| if v.detail.is_empty() { v.reason.clone() } else { format!("{} ({})", v.reason, v.detail) };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The labels must be of the form; if more is enforced than before, the pods that are there are looked at.
fn judge_namespace(a: &Attributes<'_>, namespace: &Namespace, effects: &mut Effects) -> Result<(), ApiError> {
    let security = |n: &Namespace| n.metadata.labels.as_ref().map(levels::security_labels).unwrap_or_default();
    let new = security(namespace);
    let old = a.old.and_then(|o| o.as_any().downcast_ref::<Namespace>()).map(security);
    if old.as_ref() == Some(&new) {
        return Ok(());
    }
    let errors = label_errors(&new);
    if !errors.is_empty() {
        return Err(ApiError::Invalid(a.subject(), errors));
    }
    let Some(old) = old.filter(|_| a.operation == Operation::Update) else { return Ok(()) };
    let (enforced, before) = (levels::of(&new, &ENFORCE), levels::of(&old, &ENFORCE));
    let weaker = enforced.version == before.version && enforced.level <= before.level;
    if enforced == before || enforced.level == Level::Privileged || weaker {
        return Ok(());
    }
    warn_of_existing(a, &enforced, effects);
    Ok(())
}

fn label_errors(labels: &Labels) -> ErrorList {
    let path = Path::new("metadata").child("labels");
    let bad = labels.iter().filter_map(|(label, value)| Some((label, value, levels::problem(label, value)?)));
    bad.map(|(label, value, problem)| field::invalid(&path.key(label), value.as_str(), problem)).collect()
}

fn warn_of_existing(a: &Attributes<'_>, enforced: &LevelVersion, effects: &mut Effects) {
    let prefix = format!("{}{}/", Pod::INFO.registry_prefix(), a.name);
    let kind = super::kind_of::<Pod>();
    let entries = a.cache.of(kind).with_prefix(&prefix);
    // By what is wrong with them: the first pod's name, and how many there are.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for entry in entries.iter().take(MAX_PODS_TO_CHECK) {
        let Some(pod) = kind.typed::<Pod>(entry.json()) else { continue };
        let Some(spec) = pod.spec.as_ref() else { continue };
        let violations = violations(enforced, &pod.metadata, spec);
        if !violations.is_empty() {
            let reasons = violations.iter().map(|v| v.reason.as_str()).collect::<Vec<_>>().join(", ");
            found.entry(reasons).or_insert_with(|| (entry.name().to_owned(), 0)).1 += 1;
        }
    }
    if entries.len() > MAX_PODS_TO_CHECK {
        let (checked, all) = (MAX_PODS_TO_CHECK, entries.len());
        let warning =
            format!("new PodSecurity enforce level only checked against the first {checked} of {all} existing pods");
        effects.warnings.push(warning.into());
    }
    if found.is_empty() {
        return;
    }
    let (name, level) = (a.name, enforced.to_string());
    let warning = format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level {level:?}");
    effects.warnings.push(warning.into());
    let mut named: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            many => format!("{name} (and {} other pods): {reasons}", many - 1),
        })
        .collect();
    named.sort_unstable();
    effects.warnings.extend(named.into_iter().map(Into::into));
}
