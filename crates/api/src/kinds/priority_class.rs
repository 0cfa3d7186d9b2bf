//! PriorityClass: a name for how important pods are. The `Priority` admission plugin and the scheduler act on it.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

use super::rules;
use crate::Resource;
use crate::field::{ErrorList, Path, forbidden};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Verb, column};
use crate::names::NameRule;
use crate::well_known::{HIGHEST_USER_DEFINABLE_PRIORITY, SYSTEM_PRIORITY_CLASSES};

/// What pods may do to others of less priority.
const PREEMPTION_POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];
/// The prefix of names that only the system's own classes have.
const SYSTEM_PREFIX: &str = "system-";

impl Resource for PriorityClass {
    const INFO: KindInfo = KindInfo {
        group: "scheduling.k8s.io",
        version: "v1",
        kind: "PriorityClass",
        plural: "priorityclasses",
        singular: "priorityclass",
        short_names: &["pc"],
        categories: &[],
        scope: Scope::Cluster,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[
            NAME,
            column("Value", "integer", "The priority of pods of this class"),
            column("Global-Default", "boolean", "Whether pods without a class are of this one"),
            AGE,
            column("PreemptionPolicy", "string", "Whether pods of this class may displace others"),
        ],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    const HAS_GENERATION: bool = true;

    /// Those that the system's own pods name (`Delete` of `pkg/registry/scheduling/priorityclass/storage`).
    fn stays(name: &str) -> Option<&'static str> {
        let is_of_system = SYSTEM_PRIORITY_CLASSES.iter().any(|(known, ..)| *known == name);
        is_of_system.then_some("this is a system priority class and cannot be deleted")
    }

    fn set_defaults(&mut self) {
        self.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    }

    /// `ValidatePriorityClass`: of what is there only what may change is looked at.
    fn validate_create(&self, errors: &mut ErrorList) {
        let name = self.metadata.name.as_deref().unwrap_or("");
        if name.starts_with(SYSTEM_PREFIX) {
            if let Err(problem) = system_class(self, name) {
                let reserved = "priority class names with 'system-' prefix are reserved for system use only. error: ";
                errors.push(forbidden(&Path::new("metadata").child("name"), &format!("{reserved}{problem}")));
            }
        } else if self.value > HIGHEST_USER_DEFINABLE_PRIORITY {
            let detail =
                format!("maximum allowed value of a user defined priority is {HIGHEST_USER_DEFINABLE_PRIORITY}");
            errors.push(forbidden(&Path::new("value"), &detail));
        }
        rules::one_of(self.preemption_policy.as_deref(), PREEMPTION_POLICIES, &Path::new("preemptionPolicy"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        if self.value != old.value {
            errors.push(forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let path = Path::new("preemptionPolicy");
        crate::metadata::immutable(&path, &self.preemption_policy, &old.preemption_policy, errors);
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            json!(self.metadata.name),
            json!(self.value),
            json!(self.global_default.unwrap_or(false)),
            crate::printing::age(&self.metadata, now),
            json!(self.preemption_policy),
        ]
    }
}

/// `IsKnownSystemPriorityClass`.
fn system_class(class: &PriorityClass, name: &str) -> Result<(), String> {
    let Some((_, value, _)) = SYSTEM_PRIORITY_CLASSES.iter().find(|(known, ..)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if class.value != *value {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if class.global_default == Some(true) {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn class(name: &str, value: i32) -> PriorityClass {
        let mut class = PriorityClass { value, ..PriorityClass::default() };
        class.metadata.name = Some(name.into());
        Object::set_defaults(&mut class);
        class
    }

    #[test]
    fn the_highest_priorities_are_the_systems_own() {
        let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
        for (name, value, expected) in [
            ("high", 1_000_000_000, String::new()),
            (
                "high",
                1_000_000_001,
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000".into(),
            ),
            ("system-node-critical", 2_000_001_000, String::new()),
            (
                "system-node-critical",
                7,
                format!("{reserved}value of system-node-critical PriorityClass must be 2000001000"),
            ),
            ("system-mine", 7, format!("{reserved}system-mine is not a known system priority class")),
        ] {
            let errors = Object::validate_create(&class(name, value));
            assert_eq!(errors.first().map(ToString::to_string).unwrap_or_default(), expected, "{name} {value}");
        }
    }

    #[test]
    fn a_class_keeps_its_value() {
        let errors = Object::validate_update(&class("a", 2), &class("a", 1));
        assert_eq!(errors[0].to_string(), "value: Forbidden: may not be changed in an update.");
    }
}
