//! Lease: who holds something until when; nodes' heartbeats and leader election.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use super::rules;
use crate::Resource;
use crate::field::{ErrorList, Path, forbidden, invalid};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Verb, column};
use crate::names::{self, NameRule};

impl Resource for Lease {
    const INFO: KindInfo = KindInfo {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[NAME, column("Holder", "string", "Identity of the present holder"), AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn validate(&self, errors: &mut ErrorList) {
        let (Some(spec), path) = (self.spec.as_ref(), Path::new("spec")) else { return };
        if let Some(seconds) = spec.lease_duration_seconds
            && seconds <= 0
        {
            errors.push(invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
        }
        if let Some(transitions) = spec.lease_transitions
            && transitions < 0
        {
            let detail = "must be greater than or equal to 0";
            errors.push(invalid(&path.child("leaseTransitions"), transitions, detail));
        }
        if let Some(strategy) = spec.strategy.as_deref() {
            rules::all(names::is_qualified_name(strategy), strategy, &path.child("strategy"), errors);
        }
        if spec.preferred_holder.as_deref().is_some_and(|h| !h.is_empty()) && spec.strategy.is_none() {
            let detail = "may not be set when strategy is empty";
            errors.push(forbidden(&path.child("preferredHolder"), detail));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let holder = self.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or("");
        vec![json!(self.metadata.name), json!(holder), crate::printing::age(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    #[test]
    fn duration_is_positive_and_transitions_are_counted() {
        let spec = LeaseSpec { lease_duration_seconds: Some(0), lease_transitions: Some(-1), ..LeaseSpec::default() };
        let lease = Lease { spec: Some(spec), ..Lease::default() };
        let errors: Vec<String> = Object::validate(&lease).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
