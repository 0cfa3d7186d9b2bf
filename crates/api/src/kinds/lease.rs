//! Lease: who holds something until when; nodes' heartbeats and leader election.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{AGE, KindInfo, NAME, Scope, column};
use crate::names::NameRule;

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
        subresources: &[],
        columns: &[NAME, column("Holder", "string", "Identity of the present holder"), AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let holder = self.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or("");
        vec![json!(self.metadata.name), json!(holder), crate::printing::age(&self.metadata, now)]
    }
}
