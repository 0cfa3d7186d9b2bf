//! `Priority`: gives a pod the priority of its class, and sees to it that there is one default class at most.
//!
//! Compare `plugin/pkg/admission/priority`.

use api::Object;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

/// The priority of pods without a class where there is no default one.
const DEFAULT_PRIORITY: i32 = 0;
const DEFAULT_POLICY: &str = "PreemptLowerPriority";
/// What the JSON of a default class contains; others need not be decoded.
const MARK: &str = r#""globalDefault":true"#;

pub(super) struct Priority;

impl Plugin for Priority {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() else { return Ok(()) };
        let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
        match a.operation {
            Operation::Create if a.subresource.is_none() => prioritise(a, spec),
            Operation::Update if a.subresource.is_none() => {
                keep_priority(a, spec);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        let class = object.and_then(|o| o.as_any().downcast_ref::<PriorityClass>());
        if class.is_none_or(|c| c.global_default != Some(true)) {
            return Ok(());
        }
        match default_class(a).filter(|d| d.metadata.name.as_deref() != Some(a.name)) {
            Some(other) => {
                let other = other.metadata.name.unwrap_or_default();
                let rule = "Only one default can exist";
                Err(a.forbidden(format!("PriorityClass {other} is already marked as default. {rule}")))
            }
            None => Ok(()),
        }
    }
}

fn default_class(a: &Attributes<'_>) -> Option<PriorityClass> {
    let classes = a.all::<PriorityClass>(|json| std::str::from_utf8(json).is_ok_and(|text| text.contains(MARK)));
    let marked = classes.into_iter().map(|c| c.object).filter(|c| c.global_default == Some(true));
    // Should there be two after all, the lower one counts.
    marked.min_by_key(|c| c.value)
}

fn prioritise(a: &Attributes<'_>, spec: &mut PodSpec) -> Result<(), ApiError> {
    let named = spec.priority_class_name.clone().filter(|n| !n.is_empty());
    let class = match &named {
        Some(name) => {
            let class = a.named::<PriorityClass>(None, name);
            Some(class.ok_or_else(|| a.forbidden(format!("no PriorityClass with name {name} was found")))?)
        }
        None => default_class(a),
    };
    let priority = class.as_ref().map_or(DEFAULT_PRIORITY, |c| c.value);
    let policy = class.as_ref().and_then(|c| c.preemption_policy.clone()).unwrap_or_else(|| DEFAULT_POLICY.to_owned());
    let computed = "priority admission controller computed";
    if let Some(given) = spec.priority.filter(|given| *given != priority) {
        return Err(a.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; {computed} {priority} from the \
             given PriorityClass name"
        )));
    }
    if let Some(given) = spec.preemption_policy.as_ref().filter(|given| **given != policy) {
        return Err(a.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; {computed} {policy} from \
             the given PriorityClass name"
        )));
    }
    if named.is_none() {
        spec.priority_class_name = class.and_then(|c| c.metadata.name);
    }
    spec.priority = Some(priority);
    spec.preemption_policy = Some(policy);
    Ok(())
}

/// A client that updates a pod without repeating its priority keeps it.
fn keep_priority(a: &Attributes<'_>, spec: &mut PodSpec) {
    let old = a.old.and_then(|o| o.as_any().downcast_ref::<Pod>()).and_then(|p| p.spec.as_ref());
    if let Some(old) = old {
        spec.priority = spec.priority.or(old.priority);
        spec.preemption_policy = spec.preemption_policy.take().or_else(|| old.preemption_policy.clone());
    }
}
