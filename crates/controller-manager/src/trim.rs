//! What the shared caches keep of an object: what some controller looks at. A container is two thousand bytes before it
//! says anything, so ten thousand whole pods would be most of the process.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use crate::replication::DELETION_COST;

/// Keeps of a pod who it is, who owns it, where it is and how it fares; of its containers ports and resources.
pub(crate) fn pod(pod: &mut Pod) {
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| name == DELETION_COST);
    }
    if let Some(spec) = &mut pod.spec {
        spec.volumes = None;
        spec.ephemeral_containers = None;
        containers(&mut spec.containers);
        spec.init_containers.as_mut().map(containers);
    }
    if let Some(status) = &mut pod.status {
        status.ephemeral_container_statuses = None;
        status.init_container_statuses.as_mut().map(statuses);
        status.container_statuses.as_mut().map(statuses);
    }
}

/// What containers say about ports, resources and their place among the others.
fn containers(containers: &mut Vec<Container>) {
    for container in containers.iter_mut() {
        *container = Container {
            name: std::mem::take(&mut container.name),
            ports: container.ports.take(),
            resources: container.resources.take(),
            restart_policy: container.restart_policy.take(),
            ..Container::default()
        };
    }
    containers.shrink_to_fit();
}

/// How containers fare.
fn statuses(statuses: &mut Vec<ContainerStatus>) {
    for status in statuses.iter_mut() {
        *status = ContainerStatus {
            name: std::mem::take(&mut status.name),
            ready: status.ready,
            restart_count: status.restart_count,
            state: status.state.take(),
            ..ContainerStatus::default()
        };
    }
    statuses.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_controllers_look_at_stays() {
        let mut given: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {DELETION_COST: "5", "note": "long"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "n", "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "c", "image": "x", "env": [{"name": "A", "value": "b"}],
                    "ports": [{"name": "http", "containerPort": 80}], "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "c", "ready": true, "restartCount": 3, "image": "x", "imageID": "y"}]},
        }))
        .unwrap();
        pod(&mut given);
        assert_eq!(
            serde_json::to_value(&given).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {DELETION_COST: "5"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": "u", "controller": true}]},
                "spec": {"nodeName": "n", "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}],
                        "resources": {"requests": {"cpu": "1"}}}]},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "c", "ready": true, "restartCount": 3, "image": "", "imageID": ""}]},
            })
        );
    }
}
