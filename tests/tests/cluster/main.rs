//! Whole clusters in one process, hollow nodes: scenarios that read like the sentence they prove.
#![allow(clippy::unwrap_used, missing_docs)]

mod certificates;
mod told;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use harness::Cluster;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

fn web(replicas: u32) -> String {
    format!(
        r#"
apiVersion: v1
kind: ReplicationController
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{app: web}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: web, image: "example/web:1", ports: [{{name: http, containerPort: 80}}]}}]
"#
    )
}

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"#;

fn active(pods: &[Arc<Pod>]) -> usize {
    pods.iter().filter(|p| !api::pods::is_terminating(p) && !api::pods::is_terminal(p)).count()
}

fn ready(pods: &[Arc<Pod>]) -> usize {
    pods.iter().filter(|p| !api::pods::is_terminating(p) && api::pods::is_ready(p)).count()
}

fn all_ready(pods: &[Arc<Pod>], count: usize) -> bool {
    pods.len() == count && ready(pods) == count
}

fn names(pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect()
}

async fn web_pods(cluster: &Cluster, count: usize) -> Vec<Arc<Pod>> {
    let what = format!("{count} ready web pods");
    cluster.until::<Pod>(&what, "app=web", |pods| all_ready(pods, count)).await.unwrap()
}

async fn scale(cluster: &Cluster, replicas: u32) {
    let controllers: Api<ReplicationController> = Api::default_namespaced(cluster.client());
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    controllers.patch_scale("web", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_becomes_ten_and_eleven_becomes_ten() {
    let cluster = Cluster::new().nodes(2).start().await.unwrap();
    cluster.create(&web(10)).await.unwrap();
    let before = names(&web_pods(&cluster, 10).await);
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());

    let victim = before.first().unwrap();
    pods.delete(victim, &DeleteParams::default().grace_period(0)).await.unwrap();
    let after = names(&web_pods(&cluster, 10).await);
    assert_eq!(after.difference(&before).count(), 1, "one pod was replaced, the others were left alone");

    let stray = r#"{apiVersion: v1, kind: Pod, metadata: {name: stray, labels: {app: web}}, spec: {containers: [{name: c, image: "i:1"}]}}"#;
    cluster.create(stray).await.unwrap();
    let adopted_or_gone = |pods: &[Arc<Pod>]| {
        let owned = |p: &Arc<Pod>| api::owners::controller_of(&p.metadata).is_some_and(|o| o.name == "web");
        all_ready(pods, 10) && pods.iter().all(owned)
    };
    cluster.until::<Pod>("ten pods, all the controller's own", "app=web", adopted_or_gone).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_is_exact_up_down_and_to_nothing() {
    let cluster = Cluster::new().nodes(2).start().await.unwrap();
    cluster.create(&web(10)).await.unwrap();
    web_pods(&cluster, 10).await;
    for replicas in [3u8, 20, 0] {
        scale(&cluster, replicas.into()).await;
        web_pods(&cluster, replicas.into()).await;
    }
    let expected = |rcs: &[Arc<ReplicationController>]| rcs[0].status.as_ref().is_some_and(|s| s.replicas == 0);
    cluster.until("the status follows", "", expected).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_ends_runs_again_in_the_same_pod() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    cluster.create(&web(1)).await.unwrap();
    let pod = web_pods(&cluster, 1).await[0].clone();
    let name = pod.metadata.name.as_deref().unwrap();
    assert!(cluster.runtime("node-0").exit("default", name, "web", 137));
    let restarted = |pods: &[Arc<Pod>]| {
        let statuses = pods[0].status.as_ref().and_then(|s| s.container_statuses.as_ref());
        statuses.is_some_and(|s| s[0].restart_count == 1 && s[0].ready)
    };
    let pods = cluster.until::<Pod>("the container runs again", "app=web", restarted).await.unwrap();
    assert_eq!(pods[0].metadata.uid, pod.metadata.uid);
    let status = pods[0].status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 137);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarting_the_controllers_changes_nothing() {
    let mut cluster = Cluster::new().nodes(2).start().await.unwrap();
    cluster.create(&web(8)).await.unwrap();
    let before = names(&web_pods(&cluster, 8).await);
    cluster.restart_controllers().await;
    // The next order is carried out by controllers that have seen everything: what was there is still there.
    scale(&cluster, 9).await;
    let after = names(&web_pods(&cluster, 9).await);
    assert!(before.is_subset(&after), "{before:?} {after:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_kubelet_adopts_what_runs() {
    let mut cluster = Cluster::new().nodes(1).start().await.unwrap();
    cluster.create(&web(5)).await.unwrap();
    let before = web_pods(&cluster, 5).await;
    let runtime = cluster.kill_kubelet("node-0").await;
    let created = runtime.created();
    cluster.start_kubelet("node-0", runtime.clone()).await.unwrap();
    // A sixth pod shows that the new kubelet is at work; nothing was made for the five.
    scale(&cluster, 6).await;
    let after = web_pods(&cluster, 6).await;
    assert!(names(&before).is_subset(&names(&after)));
    let per_pod = created / 5;
    assert_eq!(runtime.created(), created + per_pod, "only the sixth pod's containers are new");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_leads_to_ready_pods_only() {
    let cluster = Cluster::new().nodes(2).start().await.unwrap();
    cluster.create(SERVICE).await.unwrap();
    cluster.create(&web(3)).await.unwrap();
    let pods = web_pods(&cluster, 3).await;
    let ips: BTreeSet<String> = pods.iter().map(|p| p.status.as_ref().unwrap().pod_ip.clone().unwrap()).collect();
    let in_slices = |slices: &[Arc<EndpointSlice>]| {
        let ready = slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        ready.flat_map(|e| e.addresses.clone()).collect::<BTreeSet<_>>() == ips
    };
    cluster.until("slices hold the pods", "kubernetes.io/service-name=web", in_slices).await.unwrap();
    let in_endpoints = |endpoints: &[Arc<Endpoints>]| {
        let web = endpoints.iter().filter(|e| e.metadata.name.as_deref() == Some("web"));
        web.flat_map(|e| e.subsets.iter().flatten())
            .flat_map(|s| s.addresses.iter().flatten())
            .map(|a| a.ip.clone())
            .collect::<BTreeSet<_>>()
            == ips
    };
    cluster.until("endpoints hold the pods", "", in_endpoints).await.unwrap();
    scale(&cluster, 0).await;
    let empty = |slices: &[Arc<EndpointSlice>]| slices.iter().all(|s| s.endpoints.is_empty());
    cluster.until("slices are empty", "kubernetes.io/service-name=web", empty).await.unwrap();

    let services: Api<Service> = Api::default_namespaced(cluster.client());
    services.delete("web", &DeleteParams::default()).await.unwrap();
    let gone = |slices: &[Arc<EndpointSlice>]| slices.is_empty();
    cluster.until("slices go with the service", "kubernetes.io/service-name=web", gone).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_spread_over_nodes_and_wait_where_there_is_no_room() {
    let mut cluster = Cluster::new().nodes(2).start().await.unwrap();
    cluster.create(&web(10)).await.unwrap();
    let pods = web_pods(&cluster, 10).await;
    let on_first = pods.iter().filter(|p| api::pods::node_name(p) == Some("node-0")).count();
    assert_eq!(on_first, 5, "ten pods of one controller are five on each of two nodes");

    let picky = r#"{apiVersion: v1, kind: Pod, metadata: {name: picky, labels: {app: picky}}, spec: {nodeSelector: {kubernetes.io/hostname: node-2}, containers: [{name: c, image: "i:1"}]}}"#;
    cluster.create(picky).await.unwrap();
    let told = |events: &[Arc<Event>]| {
        events.iter().any(|e| {
            e.reason.as_deref() == Some("FailedScheduling")
                && e.message.as_deref().is_some_and(|m| {
                    m.starts_with("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector")
                })
        })
    };
    cluster.until("an event says why", "", told).await.unwrap();
    cluster.start_node("node-2").await.unwrap();
    let runs = |pods: &[Arc<Pod>]| all_ready(pods, 1);
    cluster.until("it runs when the node is there", "app=picky", runs).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_unknown_and_comes_back_without_duplicates() {
    let mut cluster = Cluster::new().nodes(2).node_monitor_grace(Duration::from_secs(3)).start().await.unwrap();
    cluster.create(SERVICE).await.unwrap();
    cluster.create(&web(4)).await.unwrap();
    web_pods(&cluster, 4).await;
    let runtime = cluster.kill_kubelet("node-1").await;
    let ready_condition = |nodes: &[Arc<Node>], status: &str| {
        let lost = nodes.iter().find(|n| n.metadata.name.as_deref() == Some("node-1"));
        lost.and_then(|n| api::nodes::condition(n, "Ready")).is_some_and(|c| c.status == status)
    };
    cluster.until("the node is Unknown", "", |nodes| ready_condition(nodes, "Unknown")).await.unwrap();
    let half = |slices: &[Arc<EndpointSlice>]| {
        let ready = slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        ready.count() == 2
    };
    cluster.until("its pods are out of the service", "kubernetes.io/service-name=web", half).await.unwrap();
    cluster.start_kubelet("node-1", runtime).await.unwrap();
    cluster.until("the node is back", "", |nodes| ready_condition(nodes, "True")).await.unwrap();
    let pods = web_pods(&cluster, 4).await;
    assert_eq!(active(&pods), 4);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_everything_in_it() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    cluster.create("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").await.unwrap();
    let inside = web(2).replace("metadata: {name: web}", "metadata: {name: web, namespace: shop}");
    cluster.create(&inside).await.unwrap();
    web_pods(&cluster, 2).await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client());
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let gone = |all: &[Arc<k8s_openapi::api::core::v1::Namespace>]| {
        all.iter().all(|n| n.metadata.name.as_deref() != Some("shop"))
    };
    cluster.until("the namespace is gone", "", gone).await.unwrap();
    let left = Api::<Pod>::namespaced(cluster.client(), "shop").list(&Default::default()).await.unwrap();
    assert!(left.items.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_controller_deletes_its_pods() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    cluster.create(&web(3)).await.unwrap();
    web_pods(&cluster, 3).await;
    let controllers: Api<ReplicationController> = Api::default_namespaced(cluster.client());
    controllers.delete("web", &DeleteParams::background()).await.unwrap();
    web_pods(&cluster, 0).await;
    cluster.stop().await;
}

/// A config map that belongs to others, each `(name, uid)`.
fn owned(name: &str, namespace: &str, owners: &[(&str, &str)]) -> ConfigMap {
    let reference = |(name, uid): &(&str, &str)| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true});
    let owners: Vec<_> = owners.iter().map(reference).collect();
    let metadata = json!({"name": name, "namespace": namespace, "labels": {"owned": "yes"}, "ownerReferences": owners});
    serde_json::from_value(json!({"metadata": metadata})).unwrap()
}

/// Waits until exactly these are left of what has the label `owned`.
async fn left(cluster: &Cluster, expected: &[&str]) {
    let names = |all: &[Arc<ConfigMap>]| all.iter().map(|c| c.metadata.name.clone().unwrap()).collect::<BTreeSet<_>>();
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let what = format!("what is left is {expected:?}");
    cluster.until::<ConfigMap>(&what, "owned=yes", |all| names(all) == expected).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owned_goes_with_its_owner_or_stays_as_asked() {
    let cluster = Cluster::new().start().await.unwrap();
    let maps = |namespace: &str| Api::<ConfigMap>::namespaced(cluster.client(), namespace);
    let here = maps("default");
    let make = async |name: &str, namespace: &str, owners: &[(&str, &str)]| {
        let made = maps(namespace).create(&Default::default(), &owned(name, namespace, owners)).await.unwrap();
        made.metadata.uid.unwrap()
    };
    // An owner that is not there never was one.
    make("lost", "default", &[("nobody", "00000000-0000-0000-0000-000000000000")]).await;
    left(&cluster, &[]).await;
    let owner = make("owner", "default", &[]).await;
    make("child", "default", &[("owner", &owner)]).await;
    // Neither is one in another namespace, and whoever wrote so is told.
    make("stray", "kube-system", &[("owner", &owner)]).await;
    left(&cluster, &["owner", "child"]).await;
    let told = |events: &[Arc<Event>]| events.iter().any(|e| e.reason.as_deref() == Some("OwnerRefInvalidNamespace"));
    cluster.until::<Event>("an Event about the reference", "", told).await.unwrap();
    here.delete("owner", &DeleteParams::orphan()).await.unwrap();
    left(&cluster, &["child"]).await;
    let orphan = here.get("child").await.unwrap();
    assert_eq!(orphan.metadata.owner_references.unwrap_or_default(), []);
    // A chain goes from its end.
    let first = make("first", "default", &[]).await;
    let second = make("second", "default", &[("first", &first)]).await;
    make("third", "default", &[("second", &second)]).await;
    here.delete("first", &DeleteParams::foreground()).await.unwrap();
    left(&cluster, &["child"]).await;
    // Two that own each other go together.
    let one = make("one", "default", &[]).await;
    let two = make("two", "default", &[("one", &one)]).await;
    let owners = owned("one", "default", &[("two", &two)]).metadata.owner_references;
    let patch = Patch::Merge(json!({"metadata": {"ownerReferences": owners}}));
    here.patch("one", &PatchParams::default(), &patch).await.unwrap();
    here.delete("one", &DeleteParams::foreground()).await.unwrap();
    left(&cluster, &["child"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reads_only_the_secrets_of_its_own_pods() {
    let cluster = Cluster::new().nodes(2).start().await.unwrap();
    cluster.create("{apiVersion: v1, kind: Secret, metadata: {name: mine}, stringData: {key: value}}").await.unwrap();
    cluster.create("{apiVersion: v1, kind: Secret, metadata: {name: other}, stringData: {key: value}}").await.unwrap();
    let pod = r#"{apiVersion: v1, kind: Pod, metadata: {name: reader, labels: {app: reader}}, spec: {nodeName: node-0, containers: [{name: c, image: "i:1", env: [{name: KEY, valueFrom: {secretKeyRef: {name: mine, key: key}}}]}]}}"#;
    cluster.create(pod).await.unwrap();
    cluster.until::<Pod>("the pod runs", "app=reader", |pods| all_ready(pods, 1)).await.unwrap();
    let read = async |node: &str, secret: &str| {
        let secrets: Api<Secret> = Api::default_namespaced(cluster.client_as_node(node));
        secrets.get(secret).await.map(|_| ()).map_err(|e| match e {
            kube::Error::Api(status) => status.code,
            other => panic!("{other}"),
        })
    };
    assert_eq!(read("node-0", "mine").await, Ok(()));
    assert_eq!(read("node-0", "other").await, Err(403));
    assert_eq!(read("node-1", "mine").await, Err(403));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_bounds_a_controller_and_a_deletion_gives_its_place_back() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    let quota = "{apiVersion: v1, kind: ResourceQuota, metadata: {name: few}, spec: {hard: {pods: \"2\"}}}";
    cluster.create(quota).await.unwrap();
    let counted = |q: &Arc<ResourceQuota>| q.status.as_ref().is_some_and(|s| s.used.is_some());
    cluster.until::<ResourceQuota>("the quota is counted", "", |all| all.iter().any(counted)).await.unwrap();
    cluster.create(&web(3)).await.unwrap();
    let before = web_pods(&cluster, 2).await;
    let refused = |rc: &Arc<ReplicationController>| {
        let conditions = rc.status.as_ref().and_then(|s| s.conditions.as_ref());
        let message = conditions.and_then(|c| c.iter().find(|c| c.type_ == "ReplicaFailure")?.message.clone());
        message.is_some_and(|m| m.contains("exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2"))
    };
    cluster.until::<ReplicationController>("the controller says why", "", |all| all.iter().any(refused)).await.unwrap();
    let gone = before[0].metadata.name.clone().unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.delete(&gone, &DeleteParams::default().grace_period(0)).await.unwrap();
    let replaced = |all: &[Arc<Pod>]| all_ready(all, 2) && !names(all).contains(&gone);
    cluster.until::<Pod>("another takes its place", "app=web", replaced).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_made_at_once_with_its_namespace_runs_as_its_account() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    let pod = r#"{apiVersion: v1, kind: Pod, metadata: {name: eager, namespace: fresh, labels: {app: eager}}, spec: {containers: [{name: c, image: "i:1"}]}}"#;
    let both = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: fresh}}}}\n---\n{pod}");
    cluster.create(&both).await.unwrap();
    let pods = cluster.until::<Pod>("the pod runs", "app=eager", |pods| all_ready(pods, 1)).await.unwrap();
    let spec = pods[0].spec.as_ref().unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    let volume = &spec.volumes.as_ref().unwrap()[0].name;
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_secrets_are_filled_and_go_with_their_account() {
    let cluster = Cluster::new().start().await.unwrap();
    let secret = "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: old, labels: {app: t}, annotations: {kubernetes.io/service-account.name: robot}}}";
    let account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot}}";
    cluster.create(&format!("{account}\n---\n{secret}")).await.unwrap();
    let is_filled = |s: &Secret| s.data.as_ref().is_some_and(|d| d.contains_key("token"));
    let filled = cluster.until::<Secret>("a token", "app=t", |s| s.len() == 1 && is_filled(&s[0])).await.unwrap();
    let data = filled[0].data.as_ref().unwrap();
    assert_eq!((data["namespace"].0.as_slice(), data["ca.crt"].0.starts_with(b"-----BEGIN")), (&b"default"[..], true));
    let token = String::from_utf8(data["token"].0.clone()).unwrap();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let review = async || {
        let reviews: Api<TokenReview> = Api::all(cluster.client());
        let review = serde_json::from_value(review.clone()).unwrap();
        reviews.create(&Default::default(), &review).await.unwrap().status.unwrap()
    };
    let user = review().await.user.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:robot"));
    let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client());
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    cluster.until::<Secret>("no token", "app=t", <[_]>::is_empty).await.unwrap();
    assert_ne!(review().await.authenticated, Some(true));
    // One that names nobody goes, too.
    cluster.create(secret).await.unwrap();
    cluster.until::<Secret>("no token", "app=t", <[_]>::is_empty).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_gets_a_volume_that_is_large_enough() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
                 resources: {requests: {storage: 2Gi}}}}";
    cluster.create(claim).await.unwrap();
    for (name, size) in [("small", "1Gi"), ("fits", "3Gi"), ("large", "9Gi")] {
        let volume = format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{accessModes: [ReadWriteOnce], \
             capacity: {{storage: {size}}}, hostPath: {{path: /srv}}}}}}"
        );
        cluster.create(&volume).await.unwrap();
    }
    let bound = |c: &Arc<PersistentVolumeClaim>| c.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Bound"));
    let is_bound = |all: &[Arc<PersistentVolumeClaim>]| all.iter().any(bound);
    let claims = cluster.until::<PersistentVolumeClaim>("the claim is bound", "", is_bound).await.unwrap();
    let volume = claims[0].spec.as_ref().unwrap().volume_name.clone().unwrap();
    assert_ne!(volume, "small");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_in_use_and_its_volume_stay_until_the_pod_is_gone() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    for yaml in [
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: disk}, spec: {accessModes: [ReadWriteOnce], \
         capacity: {storage: 1Gi}, hostPath: {path: /tmp}}}",
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
         resources: {requests: {storage: 1Gi}}}}",
        "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: c, image: i}], \
         volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}}",
    ] {
        cluster.create(yaml).await.unwrap();
    }
    let is_running = |p: &Arc<Pod>| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
    cluster.until::<Pod>("the pod runs", "app=web", |all| all.iter().any(is_running)).await.unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client());
    let volumes: Api<PersistentVolume> = Api::all(cluster.client());
    for _ in 0..2 {
        let held = claims.delete("data", &DeleteParams::default()).await.unwrap().left().expect("the claim is held");
        assert_eq!(held.metadata.finalizers.unwrap(), ["kubernetes.io/pvc-protection"]);
    }
    let held = volumes.delete("disk", &DeleteParams::default()).await.unwrap().left().expect("the volume is held");
    assert_eq!(held.metadata.finalizers.unwrap(), ["kubernetes.io/pv-protection"]);
    // The pod is the only thing that holds them, one by the other.
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.until::<PersistentVolumeClaim>("no claim", "", <[_]>::is_empty).await.unwrap();
    cluster.until::<PersistentVolume>("no volume", "", <[_]>::is_empty).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_tokens_go_when_they_expire() {
    let cluster = Cluster::new().start().await.unwrap();
    let end = k8s_openapi::jiff::Timestamp::now() + Duration::from_secs(2);
    let secret = format!(
        r#"{{apiVersion: v1, kind: Secret, type: bootstrap.kubernetes.io/token,
        metadata: {{name: bootstrap-token-aaaaaa, namespace: kube-system, labels: {{app: b}}}},
        stringData: {{token-id: aaaaaa, token-secret: "0123456789abcdef", expiration: "{end}"}}}}"#
    );
    cluster.create(&secret).await.unwrap();
    cluster.until::<Secret>("the token", "app=b", |s| s.len() == 1).await.unwrap();
    cluster.until::<Secret>("no token", "app=b", <[_]>::is_empty).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_resized_in_place_or_waits_and_its_quota_follows() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    let pod = |name: &str, cpu: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{containers: [
            {{name: c, image: i, resources: {{requests: {{cpu: {cpu:?}}}}}}}]}}}}"
        )
    };
    let quota = "{apiVersion: v1, kind: ResourceQuota, metadata: {name: q, labels: {app: q}}, spec: {hard: {cpu: 20}}}";
    cluster.create(quota).await.unwrap();
    let used = async |cpu: &str| {
        let is = |q: &[Arc<ResourceQuota>]| {
            let used = q.first().and_then(|q| q.status.as_ref()?.used.as_ref()?.get("cpu"));
            used.is_some_and(|used| used.0 == cpu)
        };
        cluster.until::<ResourceQuota>(&format!("{cpu} used"), "app=q", is).await.unwrap();
    };
    used("0").await;
    // A hollow node has eight cores.
    cluster.create(&pod("a", "1")).await.unwrap();
    cluster.create(&pod("b", "5")).await.unwrap();
    cluster.until::<Pod>("both run", "", |pods| pods.len() == 2 && ready(pods) == 2).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let resize = async |name: &str, cpu: &str| {
        let resources = json!({"requests": {"cpu": cpu}});
        let patch = Patch::Strategic(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}));
        pods.patch_subresource("resize", name, &PatchParams::default(), &patch).await.unwrap();
    };
    let condition = |pod: &Pod, type_: &str| api::pods::condition(pod, type_).and_then(|c| c.reason.clone());
    let in_force =
        |pod: &Pod| api::pods::container_status(pod, "c").unwrap().resources.clone().unwrap().requests.unwrap();
    resize("a", "4").await;
    let deferred = |p: &[Arc<Pod>]| condition(&p[0], "PodResizePending").as_deref() == Some("Deferred");
    let waits = cluster.until::<Pod>("a waits", "app=a", deferred).await.unwrap();
    assert_eq!(in_force(&waits[0])["cpu"].0, "1");
    used("9").await;
    resize("b", "1").await;
    let done = |p: &[Arc<Pod>]| in_force(&p[0])["cpu"].0 == "4" && condition(&p[0], "PodResizePending").is_none();
    let resized = cluster.until::<Pod>("a has what it wants", "app=a", done).await.unwrap();
    assert!(api::pods::condition(&resized[0], "PodResizeInProgress").is_none());
    assert_eq!(api::pods::container_status(&resized[0], "c").unwrap().restart_count, 0);
    used("5").await;
    resize("b", "16").await;
    let never = |p: &[Arc<Pod>]| condition(&p[0], "PodResizePending").as_deref() == Some("Infeasible");
    cluster.until::<Pod>("b never fits", "app=b", never).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_pulled_with_the_secrets_of_a_pods_account() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    cluster.runtime("node-0").lock_image("r.example.com/team/app:1", "robot", "secret");
    let pod = |name: &str, account: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{
            serviceAccountName: {account}, containers: [{{name: c, image: 'r.example.com/team/app:1'}}]}}}}"
        )
    };
    let auths = json!({"auths": {"r.example.com/team": {"username": "robot", "password": "secret"}}}).to_string();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "pull"}, "stringData": {".dockerconfigjson": auths}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"},
        "imagePullSecrets": [{"name": "pull"}]});
    cluster.create(&account.to_string()).await.unwrap();
    let waits = |pods: &[Arc<Pod>]| {
        let state = api::pods::container_status(pods.first()?, "c")?.state.clone()?.waiting?;
        state.reason.filter(|reason| reason.contains("ImagePull"))
    };
    cluster.create(&pod("stranger", "default")).await.unwrap();
    cluster.until::<Pod>("no image for everyone", "app=stranger", |p| waits(p).is_some()).await.unwrap();
    // The secret may come later than the pod that needs it.
    cluster.create(&pod("worker", "builder")).await.unwrap();
    let early = cluster.until::<Pod>("no image yet", "app=worker", |p| waits(p).is_some()).await.unwrap();
    let names = early[0].spec.as_ref().unwrap().image_pull_secrets.as_ref().unwrap();
    assert_eq!(names[0].name, "pull", "the account's");
    cluster.create(&secret.to_string()).await.unwrap();
    cluster.until::<Pod>("the image", "app=worker", |pods| ready(pods) == 1).await.unwrap();
    // It is here now, but for those who have the secret.
    cluster.create(&pod("late", "default")).await.unwrap();
    cluster.until::<Pod>("still not for everyone", "app=late", |p| waits(p).is_some()).await.unwrap();
    let pulls = cluster.runtime("node-0").pulls();
    cluster.create(&pod("colleague", "builder")).await.unwrap();
    cluster.until::<Pod>("the image without a pull", "app=colleague", |pods| ready(pods) == 1).await.unwrap();
    let event = |e: &&Arc<Event>| {
        e.involved_object.name.as_deref() == Some("colleague") && e.reason.as_deref() == Some("Pulled")
    };
    let told = |events: &[Arc<Event>]| events.iter().find(event).is_some();
    let events = cluster.until::<Event>("it is told", "", told).await.unwrap();
    let message = events.iter().find(event).and_then(|event| event.message.clone()).unwrap();
    assert!(
        message.ends_with("already present on machine and can be accessed by the pod"),
        "{message} after {pulls} pulls"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_are_the_balancer_of_a_service_and_its_port_is_its_own() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    let balanced = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, labels: {{app: {name}}}}}, \
             spec: {{type: LoadBalancer, ports: [{{port: 8088}}]}}}}"
        )
    };
    let addresses = |service: &Service| {
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        balancer.and_then(|balancer| balancer.ingress.as_ref()).map_or(0, Vec::len)
    };
    cluster.create(&balanced("first")).await.unwrap();
    cluster.until::<Service>("addresses", "app=first", |s| s.len() == 1 && addresses(&s[0]) == 1).await.unwrap();
    cluster.create(&balanced("second")).await.unwrap();
    let told = |events: &[Arc<Event>]| {
        let message = |e: &Arc<Event>| e.message.clone().unwrap_or_default();
        events.iter().any(|e| message(e) == "port 8088/TCP of the nodes belongs to service default/first")
    };
    cluster.until::<Event>("why the second has none", "", told).await.unwrap();
    let services = Api::<Service>::default_namespaced(cluster.client());
    services.delete("first", &DeleteParams::default()).await.unwrap();
    cluster.until::<Service>("its turn", "app=second", |s| s.len() == 1 && addresses(&s[0]) == 1).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_is_accepted_and_its_pods_run() {
    let cluster = Cluster::new().nodes(1).start().await.unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "yaml")) {
        let text = std::fs::read_to_string(file).unwrap();
        cluster.create(&text).await.unwrap_or_else(|e| panic!("{}: {e:#}", file.display()));
    }
    cluster.until::<Pod>("all pods run", "", |pods| pods.len() >= 6 && ready(pods) == pods.len()).await.unwrap();
    cluster.stop().await;
}

/// A pod bound to `node-0` by hand, with so much of a core and whatever else of `spec`.
fn bound(name: &str, cpu: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{nodeName: node-0, {more}
            terminationGracePeriodSeconds: 1,
            containers: [{{name: c, image: 'example/web:1', resources: {{requests: {{cpu: '{cpu}'}}}}}}]}}}}"
    )
}

/// Waits until the pod is ready, or has failed: why then.
async fn outcome(cluster: &Cluster, name: &str) -> String {
    let settled =
        |pods: &[Arc<Pod>]| pods.len() == 1 && (api::pods::is_ready(&pods[0]) || api::pods::is_terminal(&pods[0]));
    let pods = cluster.until::<Pod>("the pod runs or fails", &format!("app={name}"), settled).await.unwrap();
    let status = pods[0].status.clone().unwrap();
    if api::pods::is_ready(&pods[0]) {
        return "runs".to_owned();
    }
    assert!(status.container_statuses.is_none() || status.reason.as_deref() == Some("Preempting"), "{status:?}");
    format!("{}: {}", status.reason.unwrap_or_default(), status.message.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_does_not_fit_its_node_fails_and_takes_nothing() {
    let mut cluster = Cluster::new().nodes(1).start().await.unwrap();
    cluster.create(&bound("first", "6", "")).await.unwrap();
    assert_eq!(outcome(&cluster, "first").await, "runs");
    cluster.create(&bound("second", "6", "")).await.unwrap();
    let message = "Node didn't have enough resource: cpu, requested: 6000, used: 6000, capacity: 8000";
    assert_eq!(outcome(&cluster, "second").await, format!("OutOfcpu: Pod was rejected: {message}"));
    let told = |events: &[Arc<Event>]| {
        events.iter().any(|e| e.reason.as_deref() == Some("OutOfcpu") && e.message.as_deref() == Some(message))
    };
    cluster.until("an Event says so", "", told).await.unwrap();
    let on_ssd = "nodeSelector: {disk: ssd},";
    cluster.create(&bound("elsewhere", "0", on_ssd)).await.unwrap();
    let why = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    assert_eq!(outcome(&cluster, "elsewhere").await, format!("NodeAffinity: Pod was rejected: {why}"));

    let nodes: Api<Node> = Api::all(cluster.client());
    let labels = json!({"metadata": {"labels": {"disk": "ssd"}}});
    nodes.patch("node-0", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    cluster.create(&bound("here", "0", on_ssd)).await.unwrap();
    assert_eq!(outcome(&cluster, "here").await, "runs", "the label is as new as the pod");

    let runtime = cluster.kill_kubelet("node-0").await;
    let created = runtime.created();
    cluster.start_kubelet("node-0", runtime.clone()).await.unwrap();
    cluster.create(&bound("third", "2", "")).await.unwrap();
    assert_eq!(outcome(&cluster, "third").await, "runs", "who was refused takes nothing, and stays so");
    assert_eq!(outcome(&cluster, "second").await, format!("OutOfcpu: Pod was rejected: {message}"));
    assert_eq!(runtime.created(), created + 2, "nothing was made but the third pod");

    let critical = "priorityClassName: system-node-critical,";
    cluster.create(&bound("critical", "3", critical)).await.unwrap();
    assert_eq!(outcome(&cluster, "critical").await, "runs");
    let gone = |pods: &[Arc<Pod>]| pods.iter().all(|pod| api::pods::is_terminal(pod));
    cluster.until::<Pod>("another has made room", "app=first", gone).await.unwrap();
    let preempted = "Preempting: Preempted in order to admit critical pod";
    assert_eq!(outcome(&cluster, "first").await, preempted, "it holds the most of what is missing");
    assert_eq!(outcome(&cluster, "third").await, "runs");
    cluster.stop().await;
}
