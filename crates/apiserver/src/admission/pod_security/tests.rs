use serde_json::{Value, json};

use super::levels::*;
use super::*;

fn judged(level: Level, version: Version, pod: Value) -> String {
    let pod: Pod = serde_json::from_value(json!({"metadata": pod["metadata"], "spec": pod["spec"]})).unwrap();
    let level = LevelVersion { level, version };
    detail(&violations(&level, &pod.metadata, pod.spec.as_ref().unwrap()))
}

fn with(context: Value) -> Value {
    json!({"metadata": {}, "spec": {"containers": [{"name": "a", "securityContext": context}]}})
}

#[test]
fn the_baseline_names_every_known_way_out() {
    let spec = |spec: Value| json!({"metadata": {}, "spec": spec});
    let cases = [
        (with(json!({})), ""),
        (
            spec(json!({"containers": [{"name": "a"}], "hostNetwork": true, "hostPID": true})),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            with(json!({"privileged": true})),
            r#"privileged (container "a" must not set securityContext.privileged=true)"#,
        ),
        (
            with(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}})),
            r#"non-default capabilities (container "a" must not include "NET_RAW", "SYS_ADMIN" in securityContext.capabilities.add)"#,
        ),
        (
            spec(
                json!({"containers": [], "volumes": [{"name": "x", "hostPath": {"path": "/"}}, {"name": "y", "emptyDir": {}}]}),
            ),
            r#"hostPath volumes (volume "x")"#,
        ),
        (
            spec(
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}, {"name": "b", "ports": [{"containerPort": 1, "hostPort": 81}]}]}),
            ),
            r#"hostPort (containers "a", "b" use hostPorts 80, 81)"#,
        ),
        (
            spec(
                json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "1.2.3.4", "port": 1}}}]}),
            ),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle host "1.2.3.4")"#,
        ),
        (
            with(json!({"seccompProfile": {"type": "Unconfined"}})),
            r#"seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            spec(json!({"containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}})),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            with(json!({"appArmorProfile": {"type": "Unconfined"}})),
            r#"forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            with(json!({"procMount": "Unmasked"})),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
    ];
    for (pod, expected) in cases {
        assert_eq!(judged(Level::Baseline, None, pod.clone()), expected, "{pod}");
        assert_eq!(judged(Level::Privileged, None, pod), "");
    }
}

#[test]
fn the_restricted_level_wants_to_be_told() {
    let expected = concat!(
        r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), "#,
        r#"unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]), "#,
        r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true), "#,
        r#"seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
    );
    assert_eq!(judged(Level::Restricted, None, with(json!({}))), expected);
    let fine = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!(judged(Level::Restricted, None, with(fine.clone())), "");
    let mut root = with(fine);
    root["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0);
    assert_eq!(
        judged(Level::Restricted, None, root.clone()),
        r#"runAsUser=0 (container "a" must not set runAsUser=0)"#
    );
    assert_eq!(judged(Level::Restricted, Some(22), root.clone()), "", "before 1.23 nobody asked");
    root["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(1);
    root["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}]);
    let volume = r#"restricted volume types (volume "v" uses restricted volume type "hostPath")"#;
    assert_eq!(judged(Level::Restricted, None, root), volume);
}

#[test]
fn labels_are_read_as_upstream_reads_them() {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        pairs.iter().map(|(k, v)| (format!("pod-security.kubernetes.io/{k}"), (*v).to_owned())).collect()
    };
    for (pairs, expected) in [
        (&[][..], "privileged:latest"),
        (&[("enforce", "baseline")][..], "baseline:latest"),
        (&[("enforce", "restricted"), ("enforce-version", "v1.22")][..], "restricted:v1.22"),
        (&[("enforce", "nonsense")][..], "restricted:latest"),
    ] {
        assert_eq!(levels::of(&labels(pairs), &ENFORCE).to_string(), expected);
    }
    let errors = label_errors(&labels(&[("enforce", "nonsense"), ("warn-version", "1.22"), ("audit", "baseline")]));
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "nonsense": must be one of privileged, baseline, restricted"#,
            r#"metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "1.22": must be "latest" or "v1.x""#,
        ]
    );
}
