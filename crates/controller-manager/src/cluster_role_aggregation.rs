//! ClusterRoles made of others: their rules are those of every role their selectors select.
//!
//! Behaviour follows `pkg/controller/clusterroleaggregation`.

use std::sync::Arc;

use api::selector::Selector;
use client::{Lister, Outcome, WorkQueue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Error;
use serde_json::json;

use crate::context::{Context, new_queue, outcome};
use crate::rest::{self, Rest};

const CONTROLLER: &str = "clusterrole-aggregation-controller";
/// Any role may be part of any other, so they are all looked at together: there are few.
const WORKERS: usize = 1;

struct Controller {
    roles: Lister<ClusterRole>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller { roles: caches.cluster_roles.clone(), rest: context.rest.clone() });
    let queue: WorkQueue<&str> = new_queue();
    let q = queue.clone();
    context.informers.cluster_roles.on_change(move |_| q.add("clusterroles"));
    let synced = async move { caches.cluster_roles.synced().await };
    context.run_workers(synced, &queue, WORKERS, move |all: &str| {
        let controller = controller.clone();
        async move {
            let result = controller.sync().await;
            outcome(CONTROLLER, &all, result)
        }
    });
}

impl Controller {
    /// Writes what differs. A role that is part of another one comes round again with its own change.
    async fn sync(&self) -> Result<Outcome, Error> {
        let roles = self.roles.list();
        let path = rest::path::<ClusterRole>(None);
        for role in &roles {
            let Some(rules) = plan(role, &roles) else { continue };
            let name = role.metadata.name.as_deref().unwrap_or_default();
            let patch = json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
            match self.rest.merge_patch(&path, name, None, &patch).await {
                // The cache is behind, and will say so.
                Err(error) if rest::is_conflict(&error) || rest::is_not_found(&error) => (),
                other => drop(other?),
            }
        }
        Ok(Outcome::Done)
    }
}

/// The rules a role must have, if it is made of others and has not got them.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let aggregation = role.aggregation_rule.as_ref()?;
    let mut others: Vec<&ClusterRole> =
        all.iter().map(|other| &**other).filter(|other| other.metadata.name != role.metadata.name).collect();
    others.sort_by_key(|other| other.metadata.name.as_deref());
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        // One that cannot be read selects nothing; validation lets none through.
        let Ok(selector) = Selector::from_label_selector(selector) else { continue };
        let selected = others.iter().filter(|other| selector.matches(other.metadata.labels.as_ref()));
        for rule in selected.flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (rules != role.rules.clone().unwrap_or_default()).then_some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn role(name: &str, label: &str, resources: &[&str]) -> Arc<ClusterRole> {
        let rules: Vec<Value> =
            resources.iter().map(|r| json!({"apiGroups": [""], "resources": [r], "verbs": ["get"]})).collect();
        let labels = if label.is_empty() { json!({}) } else { json!({label: "true"}) };
        let role = json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
        Arc::new(serde_json::from_value(role).unwrap())
    }

    fn sum(name: &str, of: &str, label: &str) -> Arc<ClusterRole> {
        let mut sum = (*role(name, label, &[])).clone();
        let rule = json!({"clusterRoleSelectors": [{"matchLabels": {of: "true"}}]});
        sum.aggregation_rule = Some(serde_json::from_value(rule).unwrap());
        Arc::new(sum)
    }

    /// Plans for all roles until nothing is left to do, and says how often.
    fn settle(roles: &mut [Arc<ClusterRole>]) -> usize {
        for round in 0.. {
            let plans: Vec<_> = roles.iter().map(|role| plan(role, roles)).collect();
            if plans.iter().all(Option::is_none) {
                return round;
            }
            for (role, rules) in roles.iter_mut().zip(plans) {
                if let Some(rules) = rules {
                    Arc::make_mut(role).rules = Some(rules);
                }
            }
        }
        unreachable!()
    }

    fn resources(role: &ClusterRole) -> Vec<&str> {
        role.rules.iter().flatten().flat_map(|r| r.resources.iter().flatten()).map(String::as_str).collect()
    }

    #[test]
    fn a_role_has_the_rules_of_its_parts_and_of_theirs() {
        let mut roles = [
            sum("edit", "to-edit", ""),
            sum("view", "to-view", "to-edit"),
            role("c", "to-edit", &["secrets", "pods"]),
            role("b", "to-view", &["pods"]),
            role("a", "to-view", &["nodes"]),
            role("other", "", &["wishes"]),
        ];
        settle(&mut roles);
        assert_eq!(resources(&roles[1]), ["nodes", "pods"]);
        assert_eq!(resources(&roles[0]), ["secrets", "pods", "nodes"]);
        assert_eq!(settle(&mut roles), 0, "planning again on the result gives nothing");
        Arc::make_mut(&mut roles[3]).metadata.labels = None;
        settle(&mut roles);
        assert_eq!(resources(&roles[1]), ["nodes"], "what is no part any more is taken away");
        assert!(plan(&role("plain", "", &["x"]), &roles).is_none());
    }
}
