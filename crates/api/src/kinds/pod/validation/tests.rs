//! Each entry: a sentence, a change to a good pod, what is wrong then.

use serde_json::{Value, json};

use super::*;
use crate::Object;

/// A good pod with `patch` merged over it (RFC 7386), defaults applied.
fn errors(patch: Value) -> Vec<String> {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "image": "busybox", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        },
    });
    json_patch::merge(&mut value["spec"], &patch);
    let mut pod: Pod = serde_json::from_value(value).unwrap();
    Object::set_defaults(&mut pod);
    Object::validate(&pod).iter().map(ToString::to_string).collect()
}

/// The same with one container that has more fields.
fn container_errors(fields: Value) -> Vec<String> {
    let mut container = json!({"name": "c", "image": "busybox"});
    json_patch::merge(&mut container, &fields);
    let found = errors(json!({"containers": [container]}));
    found.iter().map(|e| e.strip_prefix("spec.containers[0].").unwrap_or(e).to_owned()).collect()
}

fn check(table: &[(&str, Vec<String>, &[&str])]) {
    for (sentence, errors, expected) in table {
        assert_eq!(errors, expected, "{sentence}");
    }
}

#[test]
fn containers_are_checked() {
    let dup = json!([{"name": "c", "image": "a"}, {"name": "c", "image": "b"}]);
    check(&[
        ("a good pod", errors(json!({})), &[]),
        ("no containers", errors(json!({"containers": []})), &["spec.containers: Required value"]),
        ("no name", container_errors(json!({"name": null})), &["name: Required value"]),
        ("no image", container_errors(json!({"image": null})), &["image: Required value"]),
        (
            "an image with a space",
            container_errors(json!({"image": " busybox"})),
            &[r#"image: Invalid value: " busybox": must not have leading or trailing whitespace"#],
        ),
        ("two of one name", errors(json!({"containers": dup})), &[r#"spec.containers[1].name: Duplicate value: "c""#]),
        (
            "an init container of the same name",
            errors(json!({"initContainers": [{"name": "c", "image": "a"}]})),
            &[r#"spec.initContainers[0].name: Duplicate value: "c""#],
        ),
        (
            "a probe of an init container",
            errors(
                json!({"initContainers": [{"name": "i", "image": "a", "livenessProbe": {"exec": {"command": ["x"]}}}]}),
            ),
            &[
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ],
        ),
        (
            "a pull policy nobody knows",
            container_errors(json!({"imagePullPolicy": "Sometimes"})),
            &[
                r#"imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#,
            ],
        ),
    ]);
}

#[test]
fn ports_are_checked() {
    let ports = |ports: Value| container_errors(json!({"ports": ports}));
    check(&[
        ("fine", ports(json!([{"containerPort": 80, "name": "http"}, {"containerPort": 80, "protocol": "UDP"}])), &[]),
        ("no number", ports(json!([{}])), &["ports[0].containerPort: Required value"]),
        (
            "one name twice",
            ports(json!([{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}])),
            &[r#"ports[1].name: Duplicate value: "a""#],
        ),
        (
            "a host port twice",
            ports(json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}])),
            &[r#"ports[1].hostPort: Duplicate value: "TCP//80""#],
        ),
        (
            "a protocol nobody knows",
            ports(json!([{"containerPort": 80, "protocol": "tcp"}])),
            &[r#"ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP""#],
        ),
        (
            "too great",
            ports(json!([{"containerPort": 65536}])),
            &["ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive"],
        ),
    ]);
}

#[test]
fn variables_are_checked() {
    let env = |variable: Value| container_errors(json!({"env": [variable]}));
    let from = |source: Value| env(json!({"name": "A", "valueFrom": source}));
    check(&[
        ("a field", from(json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})), &[]),
        ("a resource", from(json!({"resourceFieldRef": {"resource": "limits.cpu"}})), &[]),
        ("no name", env(json!({"name": ""})), &["env[0].name: Required value"]),
        (
            "nothing named",
            from(json!({})),
            &[
                r#"env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"#,
            ],
        ),
        (
            "a field there is not",
            from(json!({"fieldRef": {"fieldPath": "spec.foo"}})),
            &[
                r#"env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.foo": error converting fieldPath: field label not supported: spec.foo"#,
            ],
        ),
        (
            "a key without a key",
            from(json!({"secretKeyRef": {"name": "s", "key": ""}})),
            &["env[0].valueFrom.secretKeyRef.key: Required value"],
        ),
        (
            "a value and a source",
            env(json!({"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})),
            &[r#"env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#],
        ),
        (
            "envFrom nothing",
            container_errors(json!({"envFrom": [{}]})),
            &[r#"envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#],
        ),
    ]);
}

#[test]
fn volumes_and_mounts_are_checked() {
    let volume = |volume: Value| errors(json!({"containers": [{"name": "c", "image": "a"}], "volumes": [volume]}));
    check(&[
        (
            "a mount of nothing",
            container_errors(json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]})),
            &[r#"volumeMounts[0].name: Not found: "x""#],
        ),
        (
            "two mounts in one place",
            container_errors(
                json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}]}),
            ),
            &[r#"volumeMounts[1].mountPath: Invalid value: "/x": must be unique"#],
        ),
        (
            "a way out of the volume",
            container_errors(json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../etc"}]})),
            &[r#"volumeMounts.subPath: Invalid value: "../etc": must not contain '..'"#],
        ),
        (
            "two sources",
            volume(json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}})),
            &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            "a secret without a name",
            volume(json!({"name": "v", "secret": {}})),
            &["spec.volumes[0].secret.secretName: Required value"],
        ),
        (
            "a mode that is none",
            volume(json!({"name": "v", "configMap": {"name": "m", "defaultMode": 512}})),
            &[
                "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
            ],
        ),
        (
            "a claim, which nothing here serves yet",
            volume(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})),
            &[],
        ),
        (
            "the same file twice",
            volume(json!({"name": "v", "projected": {"sources": [
                {"secret": {"name": "s", "items": [{"key": "a", "path": "f"}]}},
                {"configMap": {"name": "m", "items": [{"key": "a", "path": "f"}]}},
            ]}})),
            &[r#"spec.volumes[0].projected: Invalid value: "m": conflicting duplicate paths"#],
        ),
    ]);
}

#[test]
fn resources_are_checked() {
    let resources = |resources: Value| container_errors(json!({"resources": resources}));
    check(&[
        ("less than the limit", resources(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}})), &[]),
        (
            "more than the limit",
            resources(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
            &[r#"resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#],
        ),
        (
            "a negative amount",
            resources(json!({"requests": {"memory": "-1Mi"}})),
            &[r#"resources.requests[memory]: Invalid value: "-1Mi": must be greater than or equal to 0"#],
        ),
        (
            "a resource nobody knows",
            resources(json!({"requests": {"luck": "1"}})),
            &[
                r#"resources.requests[luck]: Invalid value: "luck": must be a standard resource type or fully qualified"#,
                r#"resources.requests[luck]: Invalid value: "luck": must be a standard resource for containers"#,
            ],
        ),
        (
            "half a device",
            resources(json!({"limits": {"example.com/gpu": "500m"}})),
            &[
                r#"resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer"#,
                r#"resources.requests[example.com/gpu]: Invalid value: "500m": must be an integer"#,
            ],
        ),
        (
            "not an amount",
            resources(json!({"requests": {"cpu": "much"}})),
            &[
                r#"resources.requests[cpu]: Invalid value: "much": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"#,
            ],
        ),
    ]);
}

#[test]
fn probes_and_hooks_are_checked() {
    let probe = |probe: Value| container_errors(json!({"livenessProbe": probe}));
    check(&[
        ("fine", probe(json!({"tcpSocket": {"port": "http"}})), &[]),
        (
            "does nothing",
            probe(json!({"periodSeconds": 5})),
            &["livenessProbe: Required value: must specify a handler type"],
        ),
        (
            "does two things",
            probe(json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 80}})),
            &["livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
        ),
        (
            "needs two successes",
            probe(json!({"exec": {"command": ["a"]}, "successThreshold": 2})),
            &["livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        ),
        (
            "no port",
            probe(json!({"httpGet": {"port": 0}})),
            &["livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"],
        ),
        (
            "a hook without a command",
            container_errors(json!({"lifecycle": {"preStop": {"exec": {}}}})),
            &["lifecycle.preStop.exec.command: Required value"],
        ),
    ]);
}

#[test]
fn security_is_checked() {
    let context = |context: Value| container_errors(json!({"securityContext": context}));
    check(&[
        ("fine", context(json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}})), &[]),
        (
            "no such user",
            context(json!({"runAsUser": -1})),
            &["securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
        ),
        (
            "a profile without a name",
            context(json!({"seccompProfile": {"type": "Localhost"}})),
            &[
                "securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ],
        ),
    ]);
}

#[test]
fn pod_wide_fields_are_checked() {
    check(&[
        (
            "a restart policy nobody knows",
            errors(json!({"restartPolicy": "Maybe"})),
            &[r#"spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never""#],
        ),
        (
            "no names at all",
            errors(json!({"dnsPolicy": "None"})),
            &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            "a deadline in the past",
            errors(json!({"activeDeadlineSeconds": 0})),
            &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        ),
        (
            "a toleration of nothing in particular",
            errors(json!({"tolerations": [{"effect": "NoSchedule"}]})),
            &[
                "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ],
        ),
        (
            "an affinity to no term",
            errors(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
            ),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
            ],
        ),
        (
            "a topology without a key",
            errors(
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "", "whenUnsatisfiable": "DoNotSchedule"}]}),
            ),
            &["spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty"],
        ),
        (
            "an alias that is no address",
            errors(json!({"hostAliases": [{"ip": "x", "hostnames": ["a"]}]})),
            &[
                r#"spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
            ],
        ),
        (
            "gates and a node",
            errors(json!({"nodeName": "box1", "schedulingGates": [{"name": "a.b/c"}]})),
            &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
        ),
    ]);
}
