//! The real path: a master and a minion on this machine's Docker Engine and nftables. One at a time, as the machine has
//! one of each; skipped with a word where there is no Docker, failed in CI.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use harness::boxes::{Boxes, IMAGE};
use harness::docker::{self, output};
use harness::wait::until;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, LogParams, PostParams};
use serde_json::json;

async fn create<K>(client: &kube::Client, object: serde_json::Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object).unwrap();
    Api::<K>::default_namespaced(client.clone()).create(&PostParams::default(), &object).await.unwrap();
}

fn container_id(pod: &Pod) -> String {
    let statuses = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap();
    statuses[0].container_id.as_deref().unwrap().trim_start_matches("docker://").to_owned()
}

fn ready(pods: &[Arc<Pod>], count: usize) -> bool {
    pods.len() == count && pods.iter().all(|p| api::pods::is_ready(p) && !api::pods::is_terminating(p))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_heals_on_docker_behind_a_service() {
    if !docker::available() {
        eprintln!("skipped: no Docker Engine answers, or not root");
        return;
    }
    let boxes = Boxes::start().await.unwrap();
    let client = boxes.client();
    let script = "hostname > /www/index.html; exec httpd -f -p 80 -h /www";
    create::<k8s_openapi::api::core::v1::ReplicationController>(&client, json!({
        "metadata": { "name": "web" },
        "spec": { "replicas": 2, "selector": { "app": "web" }, "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "terminationGracePeriodSeconds": 1, "containers": [
                { "name": "web", "image": IMAGE, "command": ["sh", "-c", script], "ports": [{ "containerPort": 80 }] }] } } }
    })).await;
    create::<Service>(
        &client,
        json!({
            "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] }
        }),
    )
    .await;
    let pods = until::<Pod>(&client, "two web pods", "app=web", |p| ready(p, 2)).await.unwrap();

    let service = Api::<Service>::default_namespaced(client.clone()).get("web").await.unwrap();
    let url = format!("http://{}/", service.spec.unwrap().cluster_ip.unwrap());
    let mut answers = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let retry = ["-s", "--retry", "20", "--retry-delay", "0", "--retry-all-errors", "--max-time", "5", &url];
        answers.insert(output("curl", &retry).unwrap());
    }
    let names: std::collections::BTreeSet<String> = pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect();
    assert_eq!(answers, names, "both pods answer behind the service's address");

    output("docker", &["kill", &container_id(&pods[0])]).unwrap();
    let uid = pods[0].metadata.uid.clone();
    let again = |pods: &[Arc<Pod>]| {
        let same = pods.iter().find(|p| p.metadata.uid == uid);
        let statuses = same.and_then(|p| p.status.as_ref()).and_then(|s| s.container_statuses.as_ref());
        statuses.is_some_and(|s| s[0].restart_count == 1 && s[0].ready)
    };
    let pods = until::<Pod>(&client, "the killed container runs again", "app=web", again).await.unwrap();

    let before: Vec<String> = pods.iter().map(|p| container_id(p)).collect();
    let boxes = boxes.restart_minion().await.unwrap();
    let client = boxes.client();
    let victim = pods[0].metadata.name.clone().unwrap();
    Api::<Pod>::default_namespaced(client.clone()).delete(&victim, &DeleteParams::default()).await.unwrap();
    let replaced = |pods: &[Arc<Pod>]| ready(pods, 2) && pods.iter().all(|p| p.metadata.name.as_ref() != Some(&victim));
    let after = until::<Pod>(&client, "the deleted pod is replaced", "app=web", replaced).await.unwrap();
    let kept = after.iter().filter(|p| before.contains(&container_id(p))).count();
    assert_eq!(kept, 1, "the minion that started again adopted the other pod's container");
    boxes.stop().await.unwrap();
}

/// Asks the API who a client is that has no more than what a container finds below `/var/run/secrets`.
async fn who_the_api_sees(boxes: &Boxes, container: &str) -> String {
    let file = |name: &str| format!("/var/run/secrets/kubernetes.io/serviceaccount/{name}");
    let read = |name: &str| output("docker", &["exec", container, "cat", &file(name)]).unwrap();
    let (token, namespace) = (read("token"), read("namespace"));
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.crt");
    std::fs::write(&authority, read("ca.crt")).unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "pod",
        "clusters": [{ "name": "pod", "cluster": {
            "server": boxes.url(), "certificate-authority": authority } }],
        "users": [{ "name": "pod", "user": { "token": token } }],
        "contexts": [{ "name": "pod", "context": { "cluster": "pod", "user": "pod", "namespace": namespace } }],
    });
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let client = client::connect::from_kubeconfig(Some(&path), None, "test").await.unwrap();
    let reviews = Api::<SelfSubjectReview>::all(client);
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    review.status.unwrap().user_info.unwrap().username.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_its_volumes_its_environment_and_its_limits() {
    if !docker::available() {
        eprintln!("skipped: no Docker Engine answers, or not root");
        return;
    }
    let boxes = Boxes::start().await.unwrap();
    let client = boxes.client();
    create::<k8s_openapi::api::core::v1::Secret>(
        &client,
        json!({
            "metadata": { "name": "pass" }, "stringData": { "word": "open sesame" }
        }),
    )
    .await;
    create::<k8s_openapi::api::core::v1::ConfigMap>(
        &client,
        json!({
            "metadata": { "name": "conf" }, "data": { "colour": "blue" }
        }),
    )
    .await;
    let script = "cat /secret/word; echo; cat /conf/colour; echo; cat /scratch/note; \
                  echo $POD_NAME $KUBERNETES_SERVICE_HOST; cat /proc/mounts; exec sleep 1000";
    create::<Pod>(&client, json!({
        "metadata": { "name": "reader", "labels": { "app": "reader" } },
        "spec": {
            "terminationGracePeriodSeconds": 1, "restartPolicy": "Never",
            "volumes": [
                { "name": "secret", "secret": { "secretName": "pass", "defaultMode": 256 } },
                { "name": "conf", "configMap": { "name": "conf" } },
                { "name": "scratch", "emptyDir": { "medium": "Memory" } }],
            "initContainers": [{ "name": "first", "image": IMAGE, "command": ["sh", "-c", "echo left by init > /scratch/note"],
                "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }] }],
            "containers": [{ "name": "reader", "image": IMAGE, "command": ["sh", "-c", script],
                "env": [{ "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                "resources": { "limits": { "cpu": "250m", "memory": "64Mi" } },
                "volumeMounts": [
                    { "name": "secret", "mountPath": "/secret", "readOnly": true }, { "name": "conf", "mountPath": "/conf" },
                    { "name": "scratch", "mountPath": "/scratch" }] }]
        }
    })).await;
    let pods = until::<Pod>(&client, "the reader runs", "app=reader", |p| ready(p, 1)).await.unwrap();
    let log = Api::<Pod>::default_namespaced(client.clone()).logs("reader", &LogParams::default()).await.unwrap();
    for expected in ["open sesame", "blue", "left by init", "reader 10.96.0.1", "tmpfs /secret tmpfs ro"] {
        assert!(log.contains(expected), "{expected:?} is not in the log: {log}");
    }
    let id = container_id(&pods[0]);
    let limits = output("docker", &["inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.CpuQuota}}", &id]).unwrap();
    assert_eq!(limits, "67108864 25000");
    let environment = output("docker", &["inspect", "-f", "{{.Config.Env}}", &id]).unwrap();
    assert!(!environment.contains("sesame"));
    assert_eq!(who_the_api_sees(&boxes, &id).await, "system:serviceaccount:default:default");
    let begun = std::time::Instant::now();
    Api::<Pod>::default_namespaced(client.clone()).delete("reader", &DeleteParams::default()).await.unwrap();
    until::<Pod>(&client, "the pod is gone", "app=reader", <[_]>::is_empty).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30));
    boxes.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_resolve_in_pods_on_either_network() {
    if !docker::available() {
        eprintln!("skipped: no Docker Engine answers, or not root");
        return;
    }
    let boxes = Boxes::start().await.unwrap();
    let client = boxes.client();
    create::<Service>(
        &client,
        json!({
            "metadata": { "name": "db" },
            "spec": { "clusterIP": "None", "selector": { "app": "db" }, "ports": [{ "name": "sql", "port": 5432 }] }
        }),
    )
    .await;
    create::<Pod>(
        &client,
        json!({
            "metadata": { "name": "db", "labels": { "app": "db" } },
            "spec": { "hostname": "db-0", "subdomain": "db", "terminationGracePeriodSeconds": 1,
                      "containers": [{ "name": "db", "image": IMAGE, "command": ["sleep", "1000"] }] }
        }),
    )
    .await;
    let pods = until::<Pod>(&client, "the database runs", "app=db", |p| ready(p, 1)).await.unwrap();
    let ip = pods[0].status.as_ref().unwrap().pod_ip.clone().unwrap();
    let record = |slices: &[Arc<k8s_openapi::api::discovery::v1::EndpointSlice>]| {
        slices.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| endpoint.addresses.contains(&ip))
    };
    until(&client, "it is an endpoint", "kubernetes.io/service-name=db", record).await.unwrap();
    let script = "cat /etc/resolv.conf; for name in kubernetes.default.svc db-0.db.default.svc; do \
                  for i in 1 2 3; do nslookup -type=a $name.cluster.local && break; done; done";
    for (name, host_network, policy) in [("inside", false, "ClusterFirst"), ("host", true, "ClusterFirstWithHostNet")] {
        create::<Pod>(
            &client,
            json!({
                "metadata": { "name": name, "labels": { "app": name } },
                "spec": { "restartPolicy": "Never", "hostNetwork": host_network, "dnsPolicy": policy,
                          "containers": [{ "name": "ask", "image": IMAGE, "command": ["sh", "-c", script] }] }
            }),
        )
        .await;
        let ended = |pods: &[Arc<Pod>]| {
            let phase = pods.first().and_then(|pod| pod.status.as_ref()).and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        until::<Pod>(&client, "the pod has asked", &format!("app={name}"), ended).await.unwrap();
        let log = Api::<Pod>::default_namespaced(client.clone()).logs(name, &LogParams::default()).await.unwrap();
        let search = "search default.svc.cluster.local svc.cluster.local cluster.local";
        for expected in [search, "nameserver 10.96.0.10", "Address: 10.96.0.1", &format!("Address: {ip}")] {
            assert!(log.contains(expected), "{name}: {expected:?} is not in the log: {log}");
        }
    }
    boxes.stop().await.unwrap();
}
