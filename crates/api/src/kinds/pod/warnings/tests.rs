//! Each entry: a sentence, a change to a good pod, what is said then.

use serde_json::{Value, json};

use super::*;
use crate::Object;

fn said(patch: &Value) -> Vec<String> {
    let mut value = json!({
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    });
    json_patch::merge(&mut value, patch);
    let mut pod: Pod = serde_json::from_value(value).unwrap();
    Object::set_defaults(&mut pod);
    assert!(Object::warnings(&pod, Some(&pod)).is_empty(), "what is there already is not talked about");
    Object::warnings(&pod, None)
}

/// Of one container with more fields.
fn of_container(fields: Value) -> Vec<String> {
    let mut container = json!({"name": "c", "image": "busybox"});
    json_patch::merge(&mut container, &fields);
    said(&json!({"spec": {"containers": [container]}}))
}

fn check(table: &[(&str, Vec<String>, &[&str])]) {
    for (sentence, said, expected) in table {
        assert_eq!(said, expected, "{sentence}");
    }
}

#[test]
fn what_a_pod_hardly_means_is_said() {
    let dotted = "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
                  recommended: [must not contain dots]";
    let annotated = json!({"metadata": {"annotations": {
        "scheduler.alpha.kubernetes.io/critical-pod": "", "seccomp.security.alpha.kubernetes.io/pod": "x",
        "container.seccomp.security.alpha.kubernetes.io/c": "x"}}});
    check(&[
        ("a good pod", said(&json!({})), &[]),
        ("a name with dots", said(&json!({"metadata": {"name": "a.b"}})), &[dotted]),
        (
            "annotations that became fields",
            said(&annotated),
            &[
                r#"metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead"#,
                r#"metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead"#,
                r#"metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: non-functional in v1.27+; use the "seccompProfile" field instead"#,
            ],
        ),
        (
            "one host twice",
            said(&json!({"spec": {"hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.5"}, {"ip": "1.2.3.4"}]}})),
            &[r#"spec.hostAliases[2].ip: duplicate ip "1.2.3.4""#],
        ),
        (
            "pull secrets twice and without a name",
            said(&json!({"spec": {"imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}]}})),
            &[
                r#"spec.imagePullSecrets[1].name: duplicate name "a""#,
                r#"spec.imagePullSecrets[2].name: invalid empty name """#,
            ],
        ),
        (
            "an old kind of volume",
            said(&json!({"spec": {"volumes": [{"name": "v", "gitRepo": {"repository": "r"}}]}})),
            &["spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"],
        ),
        (
            "a file in the place of a token",
            said(&json!({"spec": {"volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"configMap": {"name": "m", "items": [{"key": "a", "path": "a"}, {"key": "b", "path": "token"}]}},
                {"clusterTrustBundle": {"name": "b", "path": "token"}}]}}]}})),
            &[
                r#"spec.volumes[0].projected.sources.configMap[1]: has duplicated path with ServiceAccountToken "token""#,
                r#"spec.volumes[0].projected.sources.ClusterTrustBundle: has duplicated path with ServiceAccountToken "token""#,
            ],
        ),
        (
            "a negative grace",
            said(&json!({"spec": {"terminationGracePeriodSeconds": -1}})),
            &["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"],
        ),
    ]);
}

#[test]
fn what_containers_hardly_mean_is_said() {
    let twice = |second: Value| of_container(json!({"env": [{"name": "A", "value": "1"}, second]}));
    let hides = r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#;
    check(&[
        ("a variable twice", twice(json!({"name": "A", "value": "2"})), &[hides]),
        ("by itself", twice(json!({"name": "A", "value": "$(A)"})), &[hides]),
        (
            "from elsewhere",
            twice(json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})),
            &[hides],
        ),
        ("that builds on the first", twice(json!({"name": "A", "value": "$(A)2"})), &[]),
        (
            "half a byte",
            of_container(json!({"resources": {"requests": {"memory": "100m", "cpu": "100m"}}})),
            &[
                r#"spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer"#,
            ],
        ),
        (
            "a port twice",
            of_container(json!({"ports": [{"containerPort": 80}, {"containerPort": 80}]})),
            &["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
        ),
        (
            "the same on the host, too",
            of_container(json!({"ports": [{"containerPort": 80}, {"containerPort": 80, "hostPort": 8080}]})),
            &["spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]"],
        ),
        (
            "on all and on one address",
            of_container(json!({"ports": [{"containerPort": 80, "hostPort": 8080},
                {"containerPort": 80, "hostPort": 8080, "hostIP": "1.2.3.4"}]})),
            &["spec.containers[0].ports[1]: dangerously ambiguous port definition with spec.containers[0].ports[0]"],
        ),
        (
            "of another protocol",
            of_container(json!({"ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]})),
            &[],
        ),
        (
            "an address without a port",
            of_container(json!({"ports": [{"name": "http", "containerPort": 80, "hostIP": "1.2.3.4"}]})),
            &[
                "spec.containers[0].ports[0]: hostIP set without hostPort: {Name:http HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.2.3.4}",
            ],
        ),
    ]);
}

#[test]
fn of_many_ports_no_more_is_said_than_is_shown() {
    let ports = |fields: &dyn Fn(usize) -> Value| -> Vec<Value> {
        let port = |n| {
            let mut port = json!({"containerPort": 80});
            json_patch::merge(&mut port, &fields(n));
            port
        };
        (0..50_000).map(port).collect()
    };
    // Pairs that meet, and pairs that do not: neither takes the square of their number.
    let alike = of_container(json!({"ports": ports(&|_| json!({}))}));
    assert_eq!(alike.len(), 64);
    let last = "spec.containers[0].ports[11]: duplicate port definition with spec.containers[0].ports[8]";
    assert_eq!(alike[63], last, "each with all before it, in their order");
    let apart = ports(&|n| json!({"hostPort": 1, "hostIP": format!("10.0.{}.{}", n / 256, n % 256)}));
    assert_eq!(of_container(json!({"ports": apart})), [""; 0]);
    let mixed = json!([{"containerPort": 80, "hostPort": 1}, {"containerPort": 80, "hostPort": 2, "hostIP": "1.2.3.4"},
        {"containerPort": 80}, {"containerPort": 80, "hostPort": 1, "hostIP": "1.2.3.4"}]);
    let said = |port: usize, how: &str, with: usize| {
        format!("spec.containers[0].ports[{port}]: {how} port definition with spec.containers[0].ports[{with}]")
    };
    let expected = [
        said(2, "overlapping", 0),
        said(2, "overlapping", 1),
        said(3, "dangerously ambiguous", 0),
        said(3, "overlapping", 2),
    ];
    assert_eq!(of_container(json!({"ports": mixed})), expected);
}

#[test]
fn an_app_armor_profile_in_an_annotation_is_said() {
    let key = "container.apparmor.security.beta.kubernetes.io/c";
    let old =
        format!(r#"metadata.annotations[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead"#);
    let default = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
    let of_pod = json!({"securityContext": default});
    let of_container = json!({"containers": [{"name": "c", "image": "busybox", "securityContext": default}]});
    // With the annotation: what is said of a pod, and of a template.
    let cases = [
        ("no field", "runtime/default", json!({}), true, true),
        ("the container's field", "unconfined", of_container, false, false),
        ("the pod's field says the same", "runtime/default", of_pod.clone(), false, false),
        ("the pod's field says something else", "localhost/a", of_pod.clone(), true, false),
        ("it says nothing", "nonsense", of_pod, true, false),
        ("on Windows", "runtime/default", json!({"os": {"name": "windows"}}), false, true),
    ];
    for (sentence, annotation, spec, pod_is_told, template_is_told) in cases {
        let patch = json!({"metadata": {"annotations": {key: annotation}}, "spec": spec});
        let expected: Vec<_> = pod_is_told.then(|| old.clone()).into_iter().collect();
        assert_eq!(said(&patch), expected, "{sentence}");
        let mut value = json!({"spec": {"containers": [{"name": "c", "image": "busybox"}]}});
        json_patch::merge(&mut value, &patch);
        let of_template = template(&serde_json::from_value(value).unwrap(), &Path::new("template"));
        let expected: Vec<_> = template_is_told.then(|| format!("template.{old}")).into_iter().collect();
        assert_eq!(of_template, expected, "{sentence}, in a template");
    }
}

#[test]
fn where_a_pod_hardly_wants_to_go_is_said() {
    let of = |spec: Value| said(&json!({"spec": spec}));
    let expression = json!({"matchExpressions": [{"key": "node-role.kubernetes.io/master", "operator": "Exists"}]});
    let near = json!({"topologyKey": "kubernetes.io/hostname"});
    check(&[
        (
            "labels of yesterday",
            of(json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}})),
            &[r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#],
        ),
        (
            "in terms",
            of(json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [expression]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": expression}]}}})),
            &[
                r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: node-role.kubernetes.io/master is use "node-role.kubernetes.io/control-plane" instead"#,
                r#"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: node-role.kubernetes.io/master is use "node-role.kubernetes.io/control-plane" instead"#,
            ],
        ),
        (
            "a spread of nothing",
            of(json!({"topologySpreadConstraints": [
                {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "topologyKey": "failure-domain.beta.kubernetes.io/zone"}]})),
            &[
                r#"spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            ],
        ),
        (
            "near to nobody, and far from nobody",
            of(json!({"affinity": {
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": near}]}}})),
            &[
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
            ],
        ),
    ]);
}
