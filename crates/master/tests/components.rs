//! The parts of a master apart: the API in one, what acts on it in another, over a kubeconfig.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::await_condition;
use master::{Master, Options};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

async fn start(data_dir: &Path, flags: &[&str]) -> anyhow::Result<Master> {
    let own = ["master", "--data-dir", data_dir.to_str().unwrap(), "--bind-address", "127.0.0.1", "--secure-port", "0"];
    Master::start(Options::try_parse_from(own.iter().chain(flags))?).await
}

async fn create(client: &Client, path: &str, object: Value) {
    let request = http::Request::post(path).header("Content-Type", "application/json");
    client.request_text(request.body(object.to_string().into_bytes()).unwrap()).await.unwrap();
}

/// Waits until what `look` finds in an object is `expected`.
async fn until(client: &Client, (kind, name): (&str, &str), look: &str, expected: &str) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    let condition = |found: Option<&DynamicObject>| {
        found.and_then(|object| object.data.pointer(look)).is_some_and(|value| value == expected)
    };
    tokio::time::timeout(PATIENCE, await_condition(api, name, condition)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_acts_runs_apart_from_the_api_and_again_when_that_was_away() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let api = start(dir.path(), &["--components", "apiserver"]).await.unwrap();
    let (address, kubeconfig) = (api.address(), dir.path().join("admin.kubeconfig"));
    let flags = ["--components", "scheduler,controller-manager", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let lacking = start(other.path(), &flags).await.err().unwrap().to_string();
    assert!(lacking.starts_with("the controller-manager needs the cluster's CA in"), "{lacking}");
    std::fs::create_dir(other.path().join("pki")).unwrap();
    for file in ["pki/ca.crt", "pki/ca.key"] {
        std::fs::copy(dir.path().join(file), other.path().join(file)).unwrap();
    }
    let actors = start(other.path(), &flags).await.unwrap();
    assert!(actors.api_server().is_none());

    let client = client::connect::from_kubeconfig(Some(&kubeconfig), None, "test").await.unwrap();
    let ready = json!([{"type": "Ready", "status": "True", "reason": "r", "message": "m"}]);
    let room = json!({"cpu": "4", "memory": "4Gi", "pods": "10"});
    let node = json!({"metadata": {"name": "n"}, "status": {"capacity": room, "conditions": ready}});
    create(&client, "/api/v1/nodes", node).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str| {
        let containers = json!([{"name": "c", "image": "x"}]);
        json!({"metadata": {"name": name}, "spec": {"containers": containers, "tolerations": [{"operator": "Exists"}]}})
    };
    create(&client, pods, pod("first")).await;
    until(&client, ("Pod", "first"), "/spec/nodeName", "n").await;

    api.stop().await;
    let port = address.port().to_string();
    let own =
        ["master", "--data-dir", dir.path().to_str().unwrap(), "--bind-address", "127.0.0.1", "--secure-port", &port];
    let again = Options::try_parse_from(own.iter().chain(&["--components", "apiserver"])).unwrap();
    let api = Master::start(again).await.unwrap();
    create(&client, pods, pod("second")).await;
    until(&client, ("Pod", "second"), "/spec/nodeName", "n").await;
    actors.stop().await;
    api.stop().await;
}
