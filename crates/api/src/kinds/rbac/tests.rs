use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::{Value, json};

use crate::{Object, Resource};

fn read<T: Resource>(value: Value) -> T {
    let mut object: T = serde_json::from_value(value).unwrap();
    Resource::set_defaults(&mut object);
    object
}

fn wrong(object: &dyn Object) -> Vec<String> {
    object.validate().iter().map(ToString::to_string).collect()
}

#[test]
fn rules_are_checked_as_upstream_does() {
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let urls = json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]});
    let both = json!({"nonResourceURLs": ["/metrics"], "resources": ["pods"], "verbs": ["get"]});
    let namespaced =
        r#"rules[0].nonResourceURLs: Invalid value: ["/metrics"]: namespaced rules cannot apply to non-resource URLs"#;
    let mixed = r#"rules[0].nonResourceURLs: Invalid value: ["/metrics"]: rules cannot apply to both regular resources and non-resource URLs"#;
    let nothing = [
        "rules[0].verbs: Required value: verbs must contain at least one value",
        "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        "rules[0].resources: Required value: resource rules must supply at least one resource",
    ];
    let cases: Vec<(&str, Value, Vec<&str>, Vec<&str>)> = vec![
        ("resources", pods, vec![], vec![]),
        ("paths are cluster-wide", urls, vec![namespaced], vec![]),
        ("either, not both", both, vec![namespaced, mixed], vec![mixed]),
        ("an empty rule", json!({"verbs": []}), nothing.to_vec(), nothing.to_vec()),
    ];
    for (sentence, rule, in_role, in_cluster_role) in cases {
        let object = json!({"metadata": {"name": "r"}, "rules": [rule]});
        assert_eq!(wrong(&read::<Role>(object.clone())), in_role, "{sentence}");
        assert_eq!(wrong(&read::<ClusterRole>(object)), in_cluster_role, "{sentence}");
    }
    let aggregated = read::<ClusterRole>(json!({"aggregationRule": {}}));
    let needs = "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if \
                 aggregationRule is non-nil";
    assert_eq!(wrong(&aggregated), [needs]);
    let selectors = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}, {"matchLabels": {"a": "-"}}]});
    let wrong = wrong(&read::<ClusterRole>(json!({"aggregationRule": selectors})));
    let both = "aggregationRule.clusterRoleSelectors[1]: Invalid value: null: invalid label selector.";
    assert!(wrong.len() == 2 && wrong[1] == both, "{wrong:?}");
}

#[test]
fn subjects_and_role_references_are_checked_as_upstream_does() {
    let cases: Vec<(&str, Value, Vec<&str>)> = vec![
        ("a user", json!({"kind": "User", "name": "a"}), vec![]),
        ("an account of the binding's own namespace", json!({"kind": "ServiceAccount", "name": "a"}), vec![]),
        ("a name is needed", json!({"kind": "Group", "name": ""}), vec!["subjects[0].name: Required value"]),
        (
            "accounts are of the core group",
            json!({"kind": "ServiceAccount", "name": "a", "apiGroup": "rbac.authorization.k8s.io"}),
            vec!["subjects[0].apiGroup: Unsupported value: \"rbac.authorization.k8s.io\": supported values: \"\""],
        ),
        (
            "nothing else is a subject",
            json!({"kind": "Pod", "name": "a"}),
            vec![
                "subjects[0].kind: Unsupported value: \"Pod\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        ),
    ];
    for (sentence, subject, expected) in cases {
        let binding = json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [subject]});
        assert_eq!(wrong(&read::<RoleBinding>(binding)), expected, "{sentence}");
    }
    let cluster_wide = json!({
        "roleRef": {"kind": "Role", "name": "a/b", "apiGroup": "x"},
        "subjects": [{"kind": "ServiceAccount", "name": "a"}],
    });
    assert_eq!(
        wrong(&read::<ClusterRoleBinding>(cluster_wide)),
        [
            "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
            "subjects[0].namespace: Required value",
        ]
    );
}

#[test]
fn a_binding_keeps_its_role() {
    let with_role =
        |name: &str| read::<RoleBinding>(json!({"roleRef": {"kind": "Role", "name": name}, "subjects": []}));
    let errors = Object::validate_update(&with_role("b"), &with_role("a"));
    let expected = r#"roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"b"}: cannot change roleRef"#;
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[test]
fn bindings_show_who_gets_what() {
    let binding = read::<RoleBinding>(json!({
        "metadata": {"name": "b", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [
            {"kind": "User", "name": "a"}, {"kind": "User", "name": "b"}, {"kind": "Group", "name": "g"},
            {"kind": "ServiceAccount", "namespace": "n", "name": "s"},
        ],
    }));
    let cells = Object::cells(&binding, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(cells, [json!("b"), json!("ClusterRole/view"), json!("0s"), json!("a, b"), json!("g"), json!("n/s")]);
}
