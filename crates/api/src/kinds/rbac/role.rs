//! Role and ClusterRole: lists of rules.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde_json::{Value, json};

use super::row;
use crate::Resource;
use crate::field::{ErrorList, Path, invalid, required};
use crate::kinds::{CREATED_AT, KindInfo, NAME, Scope, rules};
use crate::printing::created_at;

impl Resource for Role {
    const INFO: KindInfo = row("Role", "roles", "role", Scope::Namespaced, &[NAME, CREATED_AT]);

    fn validate(&self, errors: &mut ErrorList) {
        validate_rules(self.rules.as_deref(), Scope::Namespaced, errors);
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), created_at(&self.metadata)]
    }
}

impl Resource for ClusterRole {
    const INFO: KindInfo = row("ClusterRole", "clusterroles", "clusterrole", Scope::Cluster, &[NAME, CREATED_AT]);

    fn validate(&self, errors: &mut ErrorList) {
        validate_rules(self.rules.as_deref(), Scope::Cluster, errors);
        let Some(aggregation) = &self.aggregation_rule else { return };
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
        if selectors.is_empty() {
            errors.push(required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil"));
        }
        for (index, selector) in selectors.iter().enumerate() {
            let (path, before) = (path.index(index), errors.len());
            rules::label_selector(Some(selector), &path, errors);
            if errors.len() > before {
                errors.push(invalid(&path, Value::Null, "invalid label selector."));
            }
        }
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), created_at(&self.metadata)]
    }
}

fn validate_rules(rules: Option<&[PolicyRule]>, scope: Scope, errors: &mut ErrorList) {
    for (index, rule) in rules.unwrap_or_default().iter().enumerate() {
        validate_rule(rule, scope, &Path::new("rules").index(index), errors);
    }
}

fn validate_rule(rule: &PolicyRule, scope: Scope, path: &Path, errors: &mut ErrorList) {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (groups, resources, names) = (list(&rule.api_groups), list(&rule.resources), list(&rule.resource_names));
    if rule.verbs.is_empty() {
        errors.push(required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    let urls = list(&rule.non_resource_urls);
    if !urls.is_empty() {
        let field = path.child("nonResourceURLs");
        if scope == Scope::Namespaced {
            errors.push(invalid(&field, json!(urls), "namespaced rules cannot apply to non-resource URLs"));
        }
        if !(groups.is_empty() && resources.is_empty() && names.is_empty()) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(invalid(&field, json!(urls), detail));
        }
        return;
    }
    if groups.is_empty() {
        errors.push(required(&path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if resources.is_empty() {
        errors.push(required(&path.child("resources"), "resource rules must supply at least one resource"));
    }
}
