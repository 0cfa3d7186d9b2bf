//! Defaults, what may change, and what `kubectl get pods` says.

use super::*;
use crate::Object;
use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec, Toleration};
use serde_json::json;

fn pod(spec: serde_json::Value) -> Pod {
    let value = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    let mut pod: Pod = serde_json::from_value(value).unwrap();
    Object::set_defaults(&mut pod);
    pod
}

fn good() -> Pod {
    pod(json!({"containers": [{"name": "c", "image": "busybox"}]}))
}

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn smallest_pod_gets_what_upstream_gives_it() {
    let spec = json!({
        "containers": [{
            "name": "c", "image": "busybox", "imagePullPolicy": "Always", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }],
        "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
        "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
    });
    assert_eq!(json!(good().spec), spec);
}

#[test]
fn details_get_what_upstream_gives_them() {
    let pod = pod(json!({
        "hostNetwork": true,
        "serviceAccount": "me",
        "volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}}, {"name": "c", "hostPath": {"path": "/"}}],
        "containers": [{
            "name": "c", "image": "busybox:1.36",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": "100m"}},
            "livenessProbe": {"httpGet": {"port": 80}},
        }],
    }));
    let spec = json!(pod.spec);
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    let resources = json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}});
    assert_eq!(container["resources"], resources);
    let probe = json!({
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    });
    assert_eq!(container["livenessProbe"], probe);
    assert_eq!(spec["serviceAccountName"], "me");
    let volumes = json!([
        {"name": "a", "emptyDir": {}},
        {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
        {"name": "c", "hostPath": {"path": "/", "type": ""}},
    ]);
    assert_eq!(spec["volumes"], volumes);
    assert_eq!(texts(&Object::validate(&pod)), [""; 0]);
}

#[test]
fn images_that_may_change_are_always_pulled() {
    let table = [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("registry:5000/busybox", "Always"),
        ("registry:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:0123", "IfNotPresent"),
    ];
    for (image, expected) in table {
        assert_eq!(defaults::pull_policy(image), expected, "{image}");
    }
}

#[test]
fn new_pod_is_pending_with_its_class() {
    let mut pod = good();
    pod.status = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
    Object::prepare_create(&mut pod);
    assert_eq!(json!(pod.status), json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(pod.metadata.generation, Some(1));
}

#[test]
fn status_write_keeps_the_spec_and_completes_addresses() {
    let old = good();
    let mut new = Pod { spec: None, ..old.clone() };
    new.status = Some(PodStatus { pod_ip: Some("10.244.0.2".into()), ..PodStatus::default() });
    // Before anybody asks who wrote what: upstream's conversion does it.
    Object::set_defaults(&mut new);
    assert_eq!(new.status.as_ref().unwrap().pod_ips.as_ref().unwrap()[0].ip, "10.244.0.2");
    Object::prepare_status_update(&mut new, &old);
    assert_eq!(new.spec, old.spec);
    assert_eq!(new.status.unwrap().pod_ips.unwrap()[0].ip, "10.244.0.2");
}

#[test]
fn little_may_change_in_a_pod_that_exists() {
    type Change = fn(&mut PodSpec);
    let none: &[&str] = &[];
    let table: [(&str, Change, &[&str]); 7] = [
        ("an image", |s| s.containers[0].image = Some("busybox:2".into()), none),
        ("a deadline set", |s| s.active_deadline_seconds = Some(5), none),
        (
            "a toleration added",
            |s| s.tolerations = Some(vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]),
            none,
        ),
        ("no image", |s| s.containers[0].image = None, &["spec.containers[0].image: Required value"]),
        (
            "a container more",
            |s| s.containers.push(s.containers[0].clone()),
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (
            "a deadline too far",
            |s| s.active_deadline_seconds = Some(1 << 40),
            &["spec.activeDeadlineSeconds: Invalid value: 1099511627776: must be between 0 and 2147483647, inclusive"],
        ),
        (
            "a node",
            |s| s.node_name = Some("box1".into()),
            &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
               `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
               existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
               previously negative)\n  spec.nodeName: was null, would be \"box1\""],
        ),
    ];
    for (sentence, change, expected) in table {
        let mut new = good();
        change(new.spec.as_mut().unwrap());
        let mut errors = ErrorList::new();
        // The form of an image is checked with the rest of the form.
        if sentence == "no image" {
            errors.extend(Object::validate(&new));
        }
        errors.extend(Object::validate_update(&new, &good()));
        assert_eq!(texts(&errors), expected, "{sentence}");
    }
}

#[test]
fn ended_container_of_a_pod_that_never_restarts_stays_ended() {
    let with_state = |state: serde_json::Value| {
        let mut pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}));
        let status =
            json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let status: ContainerStatus = serde_json::from_value(status).unwrap();
        pod.status.get_or_insert_default().container_statuses = Some(vec![status]);
        pod
    };
    let (ended, running) = (with_state(json!({"terminated": {"exitCode": 1}})), with_state(json!({"running": {}})));
    assert!(Object::validate_status_update(&ended, &running).is_empty());
    let expected = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
    assert_eq!(texts(&Object::validate_status_update(&running, &ended)), [expected]);
}

#[test]
fn what_containers_were_given_are_quantities() {
    let mut pod = pod(json!({"containers": [{"name": "c", "image": "busybox"}]}));
    let given = json!({"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": "",
        "allocatedResources": {"cpu": "abc"}, "resources": {"limits": {"memory": "-1"}}});
    pod.status = serde_json::from_value(json!({"containerStatuses": [given]})).unwrap();
    let errors = texts(&Object::validate_status_update(&pod, &pod));
    assert!(
        errors[0].starts_with(r#"status.containerStatuses[0].allocatedResources[cpu]: Invalid value: "abc""#),
        "{errors:?}"
    );
    assert!(
        errors[1].starts_with(r#"status.containerStatuses[0].resources.limits[memory]: Invalid value: "-1""#),
        "{errors:?}"
    );
}

/// The Ready, Status and Restarts cells of a pod of one container and one init container.
fn cells(status: serde_json::Value, terminating: bool) -> [String; 3] {
    let spec = json!({
        "initContainers": [{"name": "i", "image": "busybox"}],
        "containers": [{"name": "c", "image": "busybox"}],
    });
    let mut pod = pod(spec);
    pod.status = Some(serde_json::from_value(status).unwrap());
    if terminating {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
        pod.metadata.deletion_timestamp = Some(now);
    }
    let cells = Object::cells(&pod, Timestamp::from_second(600).unwrap());
    [1, 2, 3].map(|i| cells[i].as_str().unwrap().to_owned())
}

#[test]
fn pods_state_in_one_word() {
    let one = |state: serde_json::Value, ready: bool, restarts: i32| {
        json!({"name": "c", "image": "", "imageID": "", "ready": ready, "restartCount": restarts, "state": state,
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "1970-01-01T00:05:00Z"}}})
    };
    let init = |state: serde_json::Value| {
        let init =
            json!([{"name": "i", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        json!({"phase": "Pending", "initContainerStatuses": init})
    };
    let with = |phase: &str, container: serde_json::Value| json!({"phase": phase, "containerStatuses": [container]});
    let running = with("Running", one(json!({"running": {}}), true, 0));
    let lost = json!({"phase": "Running", "reason": "NodeLost"});
    let table = [
        ("just created", json!({"phase": "Pending"}), false, ["0/1", "Pending", "0"]),
        ("running", running.clone(), false, ["1/1", "Running", "0"]),
        ("being deleted", running, true, ["1/1", "Terminating", "0"]),
        ("on a lost node", lost, true, ["0/1", "Unknown", "0"]),
        (
            "crashing",
            with("Running", one(json!({"waiting": {"reason": "CrashLoopBackOff"}}), false, 2)),
            false,
            ["0/1", "CrashLoopBackOff", "2 (5m ago)"],
        ),
        (
            "done",
            with("Succeeded", one(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}), false, 0)),
            false,
            ["0/1", "Completed", "0"],
        ),
        (
            "killed",
            with("Failed", one(json!({"terminated": {"exitCode": 137, "signal": 9}}), false, 0)),
            false,
            ["0/1", "Signal:9", "0"],
        ),
        (
            "failed",
            with("Failed", one(json!({"terminated": {"exitCode": 3}}), false, 0)),
            false,
            ["0/1", "ExitCode:3", "0"],
        ),
        ("initializing", init(json!({"running": {}})), false, ["0/1", "Init:0/1", "0"]),
        (
            "failing to initialize",
            init(json!({"terminated": {"exitCode": 1, "reason": "Error"}})),
            false,
            ["0/1", "Init:Error", "0"],
        ),
    ];
    for (sentence, status, terminating, expected) in table {
        assert_eq!(cells(status, terminating), expected, "{sentence}");
    }
}

#[test]
fn ephemeral_containers_are_added_through_their_subresource_only() {
    let with = |containers: serde_json::Value| {
        let mut pod = good();
        pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(containers).unwrap();
        pod
    };
    let debug = json!([{"name": "debug", "image": "busybox", "targetContainerName": "c", "stdin": true}]);
    let errors = Object::validate_create(&with(debug.clone()));
    assert_eq!(texts(&errors), ["spec.ephemeralContainers: Forbidden: cannot be set on create"]);

    let step = |new: Pod, old: &Pod| {
        let mut new = new;
        new.metadata.labels = Some([("changed".to_owned(), "by the way".to_owned())].into());
        Object::prepare_subresource_update(&mut new, Subresource::EphemeralContainers, old);
        Object::set_defaults(&mut new);
        let mut errors = Object::validate(&new);
        errors.extend(Object::validate_subresource_update(&new, Subresource::EphemeralContainers, old));
        (new, texts(&errors))
    };
    let (added, errors) = step(with(debug.clone()), &good());
    assert_eq!((errors, added.metadata.labels.clone()), (Vec::new(), None), "nothing else is taken over");
    let policy = added.spec.as_ref().unwrap().ephemeral_containers.as_ref().unwrap()[0].image_pull_policy.clone();
    assert_eq!(policy.as_deref(), Some("Always"));

    let path = "spec.ephemeralContainers";
    let table = [
        (json!([]), format!("{path}: Forbidden: existing ephemeral containers \"debug\" may not be removed\n")),
        (
            json!([{"name": "debug", "image": "other"}]),
            format!("{path}: Forbidden: existing ephemeral containers \"debug\" may not be changed\n"),
        ),
        (json!([debug[0], {"name": "c", "image": "i"}]), format!("{path}[1].name: Duplicate value: \"c\"")),
        (
            json!([debug[0], {"name": "d", "image": "i", "targetContainerName": "no"}]),
            format!("{path}[1].targetContainerName: Not found: \"no\""),
        ),
        (
            json!([debug[0], {"name": "d", "image": "i", "ports": [{"containerPort": 1}]}]),
            format!("{path}[1].ports: Forbidden: cannot be set for an Ephemeral Container"),
        ),
        (
            json!([debug[0], {"name": "d", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}]),
            format!("{path}[1].livenessProbe: Forbidden: cannot be set for an Ephemeral Container"),
        ),
    ];
    for (containers, expected) in table {
        let (_, errors) = step(with(containers.clone()), &added);
        assert!(errors.len() == 1 && errors[0].starts_with(&expected), "{containers}: {errors:?}");
    }
    let mut mirror = added.clone();
    let annotation = crate::well_known::ANNOTATION_CONFIG_MIRROR.to_owned();
    mirror.metadata.annotations = Some([(annotation, "x".to_owned())].into());
    let (_, errors) = step(with(json!([debug[0], {"name": "d", "image": "i"}])), &mirror);
    assert!(errors.iter().any(|e| e.contains("static pods do not support ephemeral containers")), "{errors:?}");
}
