//! A master, and a minion on an engine of its own: what tests ask of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::boxes::{Boxes, IMAGE};
use harness::engine::{Engine, Wanted};
use harness::wait::until;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

/// A master, and a minion on an engine of its own.
pub(crate) struct Lab {
    pub(crate) engine: Engine,
    pub(crate) boxes: Boxes,
}

impl Lab {
    pub(crate) async fn start(wanted: &Wanted, flags: &[&str]) -> Lab {
        let engine = Engine::start(wanted).await.unwrap();
        let boxes = Boxes::on(&engine, flags).await.unwrap();
        Lab { engine, boxes }
    }

    /// What a minion's process is told, the program first.
    pub(crate) fn flags(&self, more: &[&str]) -> Vec<String> {
        let endpoint = self.engine.endpoint();
        self.boxes.flags("box", &[&["--docker-endpoint", endpoint.as_str()], more].concat()).unwrap()
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.boxes.client())
    }

    pub(crate) async fn create(&self, name: &str, spec: Value) {
        let mut pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    pub(crate) async fn until(&self, name: &str, what: &str, expected: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        let expected = |pods: &[Arc<Pod>]| pods.len() == 1 && expected(&pods[0]);
        until::<Pod>(&self.boxes.client(), what, &format!("app={name}"), expected).await.unwrap().remove(0)
    }

    pub(crate) async fn until_node(&self, what: &str, status: &str, reason: &str) {
        let is = |nodes: &[Arc<Node>]| {
            let conditions = nodes.first().and_then(|node| node.status.as_ref()?.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| {
                let words = condition.message.as_deref().unwrap_or_default();
                condition.type_ == "Ready" && condition.status == status && words.contains(reason)
            })
        };
        until::<Node>(&self.boxes.client(), what, "", is).await.unwrap();
    }

    /// The containers of a pod, ended ones too: their names, and whether each runs.
    pub(crate) fn containers(&self, pod: &str) -> Vec<String> {
        let label = format!("label=io.kubernetes.pod.name={pod}");
        let format = "{{.Label \"io.kubernetes.container.name\"}} {{.State}}";
        let listed = self.engine.docker(&["ps", "-a", "--filter", &label, "--format", format]).unwrap();
        let mut containers: Vec<String> = listed.lines().map(str::to_owned).collect();
        containers.sort();
        containers
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        until::<Pod>(&self.boxes.client(), "the pod goes", &format!("app={name}"), <[_]>::is_empty).await.unwrap();
    }

    pub(crate) async fn stop(self) {
        self.boxes.stop_on(Some(&self.engine)).await.unwrap();
    }
}

pub(crate) fn sleeps() -> Value {
    json!({"containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "1000"]}]})
}

/// The id and the number of restarts of each of a pod's containers.
pub(crate) type Statuses = BTreeMap<String, (String, i32)>;

pub(crate) fn statuses(pod: &Pod) -> Statuses {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.map(|s| (s.name.clone(), (s.container_id.clone().unwrap_or_default(), s.restart_count))).collect()
}

pub(crate) fn restarted(pod: &Pod, times: i32) -> bool {
    api::pods::is_ready(pod) && statuses(pod).values().all(|(_, count)| *count == times)
}
