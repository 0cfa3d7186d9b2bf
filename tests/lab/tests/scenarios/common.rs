//! What scenarios have in common: objects, pods that tell who they are and who asked, and waiting for both.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use harness::wait::until;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ComponentStatus, Endpoints, Pod, ReplicationController, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use lab::engine::IMAGE;
use lab::{Cluster, Machine};
use serde_json::{Value, json};

/// Tells who answers and who asked: `pod-name address`.
const WHO: &str = "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho; echo $(hostname) $REMOTE_ADDR\\n' >/www/cgi-bin/who; \
                   chmod +x /www/cgi-bin/who; exec httpd -f -p 0.0.0.0:80 -h /www";

/// The path under which pods tell it.
pub(crate) const PATH: &str = "/cgi-bin/who";

/// A spec with one container that answers at port 80; `more` is merged into the spec.
pub(crate) fn web(more: Value) -> Value {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "web", "image": IMAGE, "command": ["sh", "-c", WHO], "ports": [{ "containerPort": 80 }],
            "readinessProbe": { "httpGet": { "path": PATH, "port": 80 }, "periodSeconds": 1 } }],
    });
    merge(&mut spec, more);
    spec
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// Makes an object in the namespace `default`.
pub(crate) async fn create<K>(cluster: &Cluster, object: Value) -> Result<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object)?;
    let api = Api::<K>::default_namespaced(cluster.client().await?);
    Ok(api.create(&PostParams::default(), &object).await?)
}

/// Makes a pod that is labelled with its name.
pub(crate) async fn pod(cluster: &Cluster, name: &str, spec: Value) -> Result<()> {
    let object = json!({ "metadata": { "name": name, "labels": { "app": name } }, "spec": spec });
    create::<Pod>(cluster, object).await.map(drop)
}

/// Makes a replication controller whose pods are labelled with its name.
pub(crate) async fn controller(cluster: &Cluster, name: &str, replicas: u32, spec: Value) -> Result<()> {
    let object = json!({ "metadata": { "name": name }, "spec": { "replicas": replicas, "selector": { "app": name },
        "template": { "metadata": { "labels": { "app": name } }, "spec": spec } } });
    create::<ReplicationController>(cluster, object).await.map(drop)
}

/// Makes a service for the pods labelled with its name; its address.
pub(crate) async fn service(cluster: &Cluster, name: &str, more: Value) -> Result<Service> {
    let mut spec = json!({ "selector": { "app": name }, "ports": [{ "port": 80 }] });
    merge(&mut spec, more);
    create::<Service>(cluster, json!({ "metadata": { "name": name }, "spec": spec })).await
}

/// Its cluster IP.
pub(crate) fn cluster_ip(service: &Service) -> String {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default()
}

/// Waits until the pods labelled so are as many as expected and all ready.
pub(crate) async fn ready(cluster: &Cluster, app: &str, count: usize) -> Result<Vec<Arc<Pod>>> {
    let client = cluster.client().await?;
    let all = |pods: &[Arc<Pod>]| pods.len() == count && pods.iter().all(|pod| serves(pod));
    until::<Pod>(&client, &format!("{count} pods of {app} are ready"), &format!("app={app}"), all).await
}

/// Whether a pod is ready and stays.
pub(crate) fn serves(pod: &Pod) -> bool {
    api::pods::is_ready(pod) && !api::pods::is_terminating(pod)
}

/// Waits until a service has this many addresses.
pub(crate) async fn endpoints(cluster: &Cluster, name: &str, count: usize) -> Result<()> {
    let client = cluster.client().await?;
    let so = |all: &[Arc<Endpoints>]| {
        let ours = all.iter().find(|e| e.metadata.name.as_deref() == Some(name));
        let subsets = ours.into_iter().flat_map(|e| e.subsets.iter().flatten());
        subsets.map(|s| s.addresses.iter().flatten().count()).sum::<usize>() == count
    };
    until::<Endpoints>(&client, &format!("{name} has {count} endpoints"), "", so).await.map(drop)
}

/// Deletes everything labelled or called so, and waits until no pod is left.
pub(crate) async fn remove(cluster: &Cluster, names: &[&str]) -> Result<()> {
    let client = cluster.client().await?;
    for name in names {
        let now = DeleteParams::default();
        let _ = Api::<ReplicationController>::default_namespaced(client.clone())
            .delete(name, &DeleteParams::background())
            .await;
        let _ = Api::<Service>::default_namespaced(client.clone()).delete(name, &now).await;
        let _ = Api::<Pod>::default_namespaced(client.clone()).delete(name, &now).await;
    }
    for name in names {
        let gone = <[Arc<Pod>]>::is_empty;
        until::<Pod>(&client, &format!("the pods of {name} are gone"), &format!("app={name}"), gone).await?;
    }
    Ok(())
}

/// A pod's node, name and address.
pub(crate) fn place(pod: &Pod) -> (String, String, String) {
    let status = pod.status.as_ref();
    let ip = status.and_then(|status| status.pod_ip.clone()).unwrap_or_default();
    let node = api::pods::node_name(pod).unwrap_or_default().to_owned();
    (node, pod.metadata.name.clone().unwrap_or_default(), ip)
}

/// How many pods are on each node.
pub(crate) fn spread(pods: &[Arc<Pod>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in pods {
        *counts.entry(place(pod).0).or_default() += 1;
    }
    counts
}

/// The id of a pod's first container.
pub(crate) fn container(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    Some(statuses.first()?.container_id.as_deref()?.trim_start_matches("docker://").to_owned())
}

/// The box a pod is on.
pub(crate) fn machine<'a>(cluster: &'a Cluster, pod: &Pod) -> Result<&'a Machine> {
    let node = place(pod).0;
    cluster.lab.boxes.iter().find(|machine| machine.name() == node).with_context(|| format!("no box {node}"))
}

/// Runs a command in a pod.
pub(crate) async fn inside(cluster: &Cluster, pod: &Pod, command: &[&str]) -> Result<String> {
    let id = container(pod).context("the pod has a container")?;
    let line: Vec<&str> = ["docker", "exec", &id].into_iter().chain(command.iter().copied()).collect();
    machine(cluster, pod)?.run(&line).await
}

/// What a pod gets from a URL.
pub(crate) async fn fetch(cluster: &Cluster, pod: &Pod, url: &str) -> Result<String> {
    inside(cluster, pod, &["wget", "-q", "-O", "-", url]).await
}

/// `curl` that tries again until someone answers.
pub(crate) fn curl(url: &str) -> Vec<&str> {
    vec!["curl", "-sS", "--retry", "8", "--retry-all-errors", "--retry-max-time", "30", "--max-time", "5", url]
}

/// What the test's own host, outside the cluster, gets from a URL.
pub(crate) async fn outside(url: &str) -> Result<String> {
    let line: Vec<String> = curl(url).into_iter().map(str::to_owned).collect();
    lab::process::output(&line, b"").await
}

/// Runs `kctl` as admin on the test's own host.
pub(crate) async fn kctl(cluster: &Cluster, arguments: &[&str], input: &[u8]) -> Result<String> {
    let program = cluster.lab.boxes[0].file("/usr/local/bin/kctl");
    let mut line = vec![program.display().to_string(), "--kubeconfig".to_owned()];
    line.push(cluster.kubeconfig().display().to_string());
    line.extend(arguments.iter().map(|word| (*word).to_owned()));
    lab::process::output(&line, input).await
}

/// A2: the control plane finds all its own parts healthy.
pub(crate) async fn all_parts_are_healthy(cluster: &Cluster) -> Result<()> {
    let parts = Api::<ComponentStatus>::all(cluster.client().await?).list(&ListParams::default()).await?;
    ensure!(parts.items.len() >= 3, "{parts:?}");
    for part in parts {
        let conditions = part.conditions.unwrap_or_default();
        let healthy = conditions.iter().any(|condition| condition.type_ == "Healthy" && condition.status == "True");
        ensure!(healthy, "{:?}: {conditions:?}", part.metadata.name);
    }
    Ok(())
}

/// Gives a box whose engine does not run yet a disk in memory, so that nothing shows of how full this machine's is.
pub(crate) async fn roomy(machine: &Machine) -> Result<()> {
    let script = "mkdir -p /run/disk/upper /run/disk/work && \
                  mount -t overlay -o lowerdir=/var/lib,upperdir=/run/disk/upper,workdir=/run/disk/work disk /var/lib && \
                  mkdir -p /var/lib/docker && mount -t tmpfs -o size=2g disk /var/lib/docker";
    machine.run(&["sh", "-c", script]).await.map(drop)
}

/// Fails unless the error says so.
pub(crate) fn refused(result: Result<String>, words: &str) -> Result<()> {
    match result {
        Ok(text) => anyhow::bail!("it was not refused: {text}"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains(words), "{words:?} is not in: {text}");
            Ok(())
        }
    }
}
