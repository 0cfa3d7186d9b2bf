use std::collections::BTreeSet;

use api::Object;
use api::rbac::{ResourceRequest, allows, allows_path};

use super::*;

fn the_role(name: &str) -> ClusterRole {
    cluster_roles().into_iter().find(|r| r.metadata.name.as_deref() == Some(name)).unwrap()
}

/// The rules of a role, those of its parts included.
fn rules(name: &str) -> Vec<PolicyRule> {
    let role = the_role(name);
    if role.aggregation_rule.is_none() {
        return role.rules.unwrap_or_default();
    }
    let label = format!("{AGGREGATE_TO}{name}");
    let parts = cluster_roles().into_iter().filter(|r| r.metadata.labels.as_ref().unwrap().contains_key(&label));
    parts.flat_map(|part| rules(part.metadata.name.as_deref().unwrap())).collect()
}

/// `verb group resource/subresource [name]`, or `verb /path`.
fn can(role: &str, asked: &str) -> bool {
    let words: Vec<&str> = asked.split(' ').collect();
    if words[1].starts_with('/') {
        return rules(role).iter().any(|rule| allows_path(rule, words[0], words[1]));
    }
    let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
    let group = if words[1] == "-" { "" } else { words[1] };
    let name = words.get(3).copied().unwrap_or("");
    let request = ResourceRequest { verb: words[0], group, resource, subresource, name };
    rules(role).iter().any(|rule| allows(rule, &request))
}

#[test]
fn default_roles_give_what_their_names_promise() {
    let cases = [
        ("view", "get - pods", true),
        ("view", "get - pods/log", true),
        ("view", "list discovery.k8s.io endpointslices", true),
        ("view", "get - secrets", false),
        ("view", "create - pods", false),
        ("view", "get - pods/exec", false),
        ("view", "list rbac.authorization.k8s.io roles", false),
        ("edit", "get - secrets", true),
        ("edit", "create - pods/exec", true),
        ("edit", "create - pods/eviction", true),
        ("edit", "patch - pods/resize", true),
        ("view", "patch - pods/resize", false),
        ("system:node", "patch - pods/resize", false),
        ("edit", "create - serviceaccounts/token", true),
        ("edit", "impersonate - serviceaccounts", true),
        ("edit", "update - pods/status", false),
        ("edit", "create - resourcequotas", false),
        ("edit", "create rbac.authorization.k8s.io rolebindings", false),
        ("edit", "update - endpoints", false),
        ("admin", "create rbac.authorization.k8s.io rolebindings", true),
        ("admin", "create authorization.k8s.io localsubjectaccessreviews", true),
        ("admin", "escalate rbac.authorization.k8s.io roles", false),
        ("admin", "bind rbac.authorization.k8s.io clusterroles", false),
        ("admin", "get - nodes", false),
        ("admin", "update - namespaces", false),
        ("cluster-admin", "impersonate - users", true),
        ("cluster-admin", "get /metrics", true),
        ("system:node", "update - nodes/status", true),
        ("system:node", "create authentication.k8s.io tokenreviews", true),
        ("system:node", "delete - nodes", false),
        ("system:node", "create - services", false),
        ("system:kube-scheduler", "create - pods/binding", true),
        ("system:kube-scheduler", "update coordination.k8s.io leases kube-scheduler", true),
        ("system:kube-scheduler", "update coordination.k8s.io leases other", false),
        ("system:kube-scheduler", "get - secrets", false),
        ("system:basic-user", "create authorization.k8s.io selfsubjectaccessreviews", true),
        ("system:basic-user", "create authorization.k8s.io subjectaccessreviews", false),
        ("system:discovery", "get /apis/apps/v1", true),
        ("system:discovery", "get /metrics", false),
        ("system:public-info-viewer", "get /version", true),
        ("system:public-info-viewer", "get /apis", false),
        ("system:monitoring", "get /metrics", true),
        (
            "system:controller:clusterrole-aggregation-controller",
            "escalate rbac.authorization.k8s.io clusterroles",
            true,
        ),
    ];
    for (role, asked, expected) in cases {
        assert_eq!(can(role, asked), expected, "{role}: {asked}");
    }
}

#[test]
fn defaults_are_valid_and_bindings_lead_to_roles() {
    let names: BTreeSet<String> = cluster_roles().iter().filter_map(|r| r.metadata.name.clone()).collect();
    assert_eq!(names.len(), cluster_roles().len(), "no name is given twice");
    for role in cluster_roles() {
        assert_eq!(Object::validate(&role), [], "{:?}", role.metadata.name);
    }
    for binding in cluster_role_bindings() {
        assert_eq!(Object::validate(&binding), [], "{:?}", binding.metadata.name);
        assert!(names.contains(&binding.role_ref.name), "{}", binding.role_ref.name);
    }
}

#[test]
fn roles_of_namespaces_are_valid_and_mended_as_the_others() {
    for role in roles() {
        assert_eq!(Object::validate(&role), [], "{:?}", role.metadata.name);
        assert_eq!(reconcile_namespaced_role(&role, &role), None);
        let emptied = Role { rules: None, ..role.clone() };
        let mended = reconcile_namespaced_role(&emptied, &role).unwrap();
        assert_eq!(reconcile_namespaced_role(&mended, &role), None, "again there is nothing to do");
    }
    for binding in role_bindings() {
        assert_eq!(Object::validate(&binding), [], "{:?}", binding.metadata.name);
        let role = (binding.metadata.namespace.clone(), Some(binding.role_ref.name.clone()));
        assert!(roles().into_iter().any(|r| (r.metadata.namespace, r.metadata.name) == role), "{role:?}");
        let emptied = RoleBinding { subjects: None, ..binding.clone() };
        assert_eq!(reconcile_namespaced_binding(&emptied, &binding), Some(binding.clone()));
        assert_eq!(reconcile_namespaced_binding(&binding, &binding), None);
    }
}

#[test]
fn what_was_taken_from_a_default_role_is_given_back_and_what_was_added_stays() {
    let wanted = the_role("system:discovery");
    assert_eq!(reconcile_role(&wanted, &wanted), None);
    let own = rule(&may(&["get"], "example.com", &["wishes"]));
    let mut changed = wanted.clone();
    changed.rules = Some(vec![own.clone()]);
    changed.metadata.labels = Some([("mine".to_owned(), "yes".to_owned())].into());
    let mended = reconcile_role(&changed, &wanted).unwrap();
    assert_eq!(mended.rules.as_ref().unwrap()[0], own);
    assert_eq!(mended.metadata.labels.as_ref().unwrap().len(), 2);
    let held: Vec<_> = mended.rules.iter().flatten().collect();
    assert_eq!(api::rbac::uncovered(&held, wanted.rules.as_deref().unwrap()).unwrap(), []);
    assert_eq!(reconcile_role(&mended, &wanted), None, "again there is nothing to do");
    changed.metadata.annotations = Some([(AUTOUPDATE.to_owned(), "false".to_owned())].into());
    assert_eq!(reconcile_role(&changed, &wanted), None, "who does not want it is left alone");
}

#[test]
fn a_default_binding_gets_its_subjects_and_its_role_back() {
    let wanted = cluster_role_bindings().remove(0);
    assert_eq!(reconcile_binding(&wanted, &wanted), None);
    let mut changed = wanted.clone();
    changed.subjects = None;
    changed.role_ref.name = "view".to_owned();
    let mended = reconcile_binding(&changed, &wanted).unwrap();
    assert_eq!((&mended.subjects, &mended.role_ref), (&wanted.subjects, &wanted.role_ref));
}
