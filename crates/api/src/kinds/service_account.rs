//! ServiceAccount: the identity of pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, Verb, column};
use crate::names::NameRule;

/// Once bound pods to the Secrets their account lists.
const ENFORCE_MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

impl Resource for ServiceAccount {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[Subresource::Token],
        columns: &[NAME, column("Secrets", "string", "Number of secrets its pods may use"), AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn prepare_create(&mut self) {
        keep_names(self);
    }

    fn prepare_update(&mut self, _old: &Self) {
        keep_names(self);
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let annotations = self.metadata.annotations.iter().flatten();
        let enforced = annotations.filter(|(key, value)| *key == ENFORCE_MOUNTABLE_SECRETS && *value == "true");
        let deprecated = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        enforced.map(|(key, _)| format!("metadata.annotations[{key}]: {deprecated}")).collect()
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let secrets = self.secrets.as_ref().map_or(0, |s| s.len());
        vec![json!(self.metadata.name), json!(secrets), crate::printing::age(&self.metadata, now)]
    }
}

/// Of the secrets nothing but the names counts (`cleanSecretReferences`).
fn keep_names(account: &mut ServiceAccount) {
    for secret in account.secrets.iter_mut().flatten() {
        *secret = ObjectReference { name: secret.name.take(), ..ObjectReference::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    #[test]
    fn of_its_secrets_an_account_keeps_the_names() {
        let secret = json!({"kind": "Secret", "name": "s", "namespace": "other"});
        let mut account: ServiceAccount = serde_json::from_value(json!({"metadata": {}, "secrets": [secret]})).unwrap();
        let old = account.clone();
        Object::prepare_create(&mut account);
        assert_eq!(account.to_value()["secrets"], json!([{"name": "s"}]));
        let mut again = old;
        Object::prepare_update(&mut again, &account);
        assert_eq!(again.secrets, account.secrets);
    }
}
