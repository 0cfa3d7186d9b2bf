//! kube-rs and its runtime over TLS, with the admin's kubeconfig.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use harness::boxes::Boxes;
use harness::wait::{PATIENCE, until};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    Api, AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams,
};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::Discovery;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::reflector::{self, Store};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

async fn client(boxes: &Boxes) -> Client {
    let kubeconfig = Kubeconfig::read_from(boxes.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some(BTreeMap::from([("key".to_owned(), value.to_owned())])), ..ConfigMap::default() }
}

async fn create_config_map(api: &Api<ConfigMap>, name: &str) {
    api.create(&PostParams::default(), &config_map(name, "0")).await.unwrap();
}

/// Drives a reflector until its store holds exactly these, in their newest versions; what it meets on the way.
async fn until_reflected(
    stream: &mut (impl Stream<Item = Result<watcher::Event<ConfigMap>, watcher::Error>> + Unpin),
    store: &Store<ConfigMap>,
    wanted: &[ConfigMap],
) -> usize {
    let versions = |objects: &mut dyn Iterator<Item = &ConfigMap>| {
        objects.map(|o| (o.name_any(), o.resource_version())).collect::<BTreeMap<_, _>>()
    };
    let wanted = versions(&mut wanted.iter());
    let mut errors = 0;
    let reflected = async {
        while versions(&mut store.state().iter().map(AsRef::as_ref)) != wanted {
            errors += usize::from(stream.next().await.unwrap().is_err());
        }
    };
    soon("the store is as the API", reflected).await;
    errors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reflector_follows_the_api_through_a_restart_of_the_master() {
    let mut boxes = Boxes::hollow(0).await.unwrap();
    for config in [watcher::Config::default().page_size(3), watcher::Config::default().streaming_lists()] {
        let api = Api::<ConfigMap>::default_namespaced(client(&boxes).await);
        for number in 0..10 {
            create_config_map(&api, &format!("before-{number}")).await;
        }
        let (store, writer) = reflector::store();
        let stream = reflector::reflector(writer, watcher(api.clone(), config)).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let listed = || async { api.list(&ListParams::default()).await.unwrap().items };
        assert_eq!(until_reflected(&mut stream, &store, &listed().await).await, 0);
        api.delete("before-3", &DeleteParams::default()).await.unwrap();
        create_config_map(&api, "between").await;
        assert_eq!(until_reflected(&mut stream, &store, &listed().await).await, 0);
        boxes = boxes.restart_master().await.unwrap();
        api.delete("before-4", &DeleteParams::default()).await.unwrap();
        let change = Patch::Merge(json!({"data": {"key": "1"}}));
        api.patch("before-5", &PatchParams::default(), &change).await.unwrap();
        create_config_map(&api, "after").await;
        until_reflected(&mut stream, &store, &listed().await).await;
        let everything = ListParams::default().fields("metadata.name!=kube-root-ca.crt");
        api.delete_collection(&DeleteParams::default(), &everything).await.unwrap();
        until_reflected(&mut stream, &store, &listed().await).await;
    }
    boxes.stop().await.unwrap();
}

const FINALIZER: &str = "example.com/parents";
const ROLE: &str = "example.com/role";

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Finalizer(#[from] Box<kube::runtime::finalizer::Error<kube::Error>>),
}

/// A parent has a child that says the same; it leaves a tombstone.
async fn reconcile(parent: Arc<ConfigMap>, api: Arc<Api<ConfigMap>>) -> Result<Action, Failed> {
    let step = finalizer(&api, FINALIZER, parent, |event| async {
        match event {
            Event::Apply(parent) => {
                let owner = parent.controller_owner_ref(&()).unwrap();
                let child = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "data": parent.data,
                    "metadata": {"name": format!("{}-child", parent.name_any()), "ownerReferences": [owner]},
                });
                let name = format!("{}-child", parent.name_any());
                api.patch(&name, &PatchParams::apply("parents").force(), &Patch::Apply(&child)).await?;
                Ok(Action::await_change())
            }
            Event::Cleanup(parent) => {
                create_config_map(&api, &format!("{}-tombstone", parent.name_any())).await;
                Ok::<_, kube::Error>(Action::await_change())
            }
        }
    });
    step.await.map_err(|error| Failed::Finalizer(Box::new(error)))
}

fn retry(_: Arc<ConfigMap>, error: &Failed, _: Arc<Api<ConfigMap>>) -> Action {
    eprintln!("tried again: {error}");
    Action::requeue(Duration::from_millis(100))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_reconciles_owns_and_finalizes() {
    let boxes = Boxes::hollow(0).await.unwrap();
    let client = client(&boxes).await;
    let api = Api::<ConfigMap>::default_namespaced(client.clone());
    let parents = watcher::Config::default().labels(&format!("{ROLE}=parent")).streaming_lists();
    let controller = Controller::new(api.clone(), parents).owns(api.clone(), watcher::Config::default());
    let running = tokio::spawn(controller.run(reconcile, retry, Arc::new(api.clone())).for_each(async |_| ()));
    let mut parent = config_map("family", "one");
    parent.labels_mut().insert(ROLE.to_owned(), "parent".to_owned());
    let parent = api.create(&PostParams::default(), &parent).await.unwrap();
    let says = |value: &'static str| {
        move |child: Option<&ConfigMap>| child.is_some_and(|c| c.data.as_ref().is_some_and(|d| d["key"] == value))
    };
    soon("there is a child", await_condition(api.clone(), "family-child", says("one"))).await.unwrap();
    let change = Patch::Merge(json!({"data": {"key": "two"}}));
    api.patch("family", &PatchParams::default(), &change).await.unwrap();
    soon("the child says the same", await_condition(api.clone(), "family-child", says("two"))).await.unwrap();
    let child = api.delete("family-child", &DeleteParams::default()).await.unwrap();
    assert!(child.right().is_some_and(|status| status.is_success()));
    soon("there is another child", await_condition(api.clone(), "family-child", says("two"))).await.unwrap();
    let child = api.get("family-child").await.unwrap();
    assert_eq!(child.owner_references()[0].uid, parent.uid().unwrap());
    let managers: Vec<_> = child.managed_fields().iter().filter_map(|m| m.manager.as_deref()).collect();
    assert_eq!(managers, ["parents"]);
    let marked = api.delete("family", &DeleteParams::background()).await.unwrap();
    assert!(marked.left().is_some_and(|parent| parent.meta().deletion_timestamp.is_some()), "held by its finalizer");
    let (uid, child_uid) = (parent.uid().unwrap(), child.uid().unwrap());
    let gone = await_condition(api.clone(), "family", conditions::is_deleted(&uid));
    soon("the parent is gone", gone).await.unwrap();
    api.get("family-tombstone").await.unwrap();
    let gone = await_condition(api.clone(), "family-child", conditions::is_deleted(&child_uid));
    soon("its child was collected", gone).await.unwrap();
    running.abort();
    boxes.stop().await.unwrap();
}

/// What `leaderelection` of client-go does with a Lease: whoever writes to the version he has read is the leader.
async fn lead(api: &Api<Lease>, me: &str, seen: Option<&Lease>) -> Result<Lease, u16> {
    let spec = LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(15),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let metadata = ObjectMeta { name: Some("leader".to_owned()), ..ObjectMeta::default() };
    let done = match seen {
        None => api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await,
        Some(seen) => {
            let metadata = seen.metadata.clone();
            api.replace("leader", &PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
        }
    };
    done.map_err(|error| match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_candidates_one_leads() {
    const CANDIDATES: usize = 8;
    let boxes = Boxes::hollow(0).await.unwrap();
    let api = Api::<Lease>::default_namespaced(client(&boxes).await);
    let mut seen = None;
    for _ in 0..5 {
        let names = (0..CANDIDATES).map(|n| format!("candidate-{n}")).collect::<Vec<_>>();
        let race = futures::future::join_all(names.iter().map(|me| lead(&api, me, seen.as_ref()))).await;
        let won: Vec<_> = race.iter().filter_map(|r| r.as_ref().ok()).collect();
        assert_eq!(won.len(), 1);
        assert!(race.iter().filter_map(|r| r.as_ref().err()).all(|code| *code == 409));
        let now = api.get("leader").await.unwrap();
        assert_eq!(now.spec, won[0].spec);
        seen = Some(now);
    }
    boxes.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_leads_to_every_kind() {
    let boxes = Boxes::hollow(0).await.unwrap();
    let client = client(&boxes).await;
    let plain = Discovery::new(client.clone()).run().await.unwrap();
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    for discovery in [plain, aggregated] {
        for row in api::kinds() {
            let gvk = GroupVersionKind::gvk(row.info.group, row.info.version, row.info.kind);
            let (resource, capabilities) = discovery.resolve_gvk(&gvk).unwrap_or_else(|| panic!("{gvk:?}"));
            assert_eq!(resource.plural, row.info.plural);
            if capabilities.supports_operation("list") {
                let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
                api.list(&ListParams::default()).await.unwrap();
                api.list_metadata(&ListParams::default()).await.unwrap();
            }
        }
    }
    boxes.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_run_over_websockets() {
    let boxes = Boxes::hollow(1).await.unwrap();
    let api = Api::<Pod>::default_namespaced(client(&boxes).await);
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "example/web:1", "command": ["serve", "everything"], "stdin": true}]},
    });
    api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let runs = |pods: &[Arc<Pod>]| pods.len() == 1 && api::pods::is_ready(&pods[0]);
    until::<Pod>(&boxes.client(), "the pod runs", "", runs).await.unwrap();
    executed(&api).await;
    let mut attached = api.attach("web", &AttachParams::default().stdin(true)).await.unwrap();
    attached.stdin().unwrap().write_all(b"hello\n").await.unwrap();
    let mut lines = BufReader::new(attached.stdout().unwrap()).lines();
    assert_eq!(soon("it echoes", lines.next_line()).await.unwrap().unwrap(), "hello");
    attached.abort();
    let mut forwarder = api.portforward("web", &[7, 8]).await.unwrap();
    for port in [7, 8] {
        let mut stream = forwarder.take_stream(port).unwrap();
        stream.write_all(b"through").await.unwrap();
        let mut back = [0; 7];
        soon("it comes back", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"through");
    }
    forwarder.abort();
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut log = futures::AsyncBufReadExt::lines(api.log_stream("web", &follow).await.unwrap());
    assert_eq!(soon("it has printed", log.try_next()).await.unwrap().unwrap(), "serve everything");
    api.delete("web", &DeleteParams::default().grace_period(1)).await.unwrap();
    assert_eq!(soon("it ends with the pod", log.try_next()).await.unwrap(), None);
    boxes.stop().await.unwrap();
}

async fn executed(api: &Api<Pod>) {
    let mut process = api.exec("web", ["sh"], &AttachParams::default().stdin(true)).await.unwrap();
    let status = process.take_status().unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"echo hello\nnonsense\nexit 3\n").await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (process.stdout().unwrap(), process.stderr().unwrap());
    let read = async { tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
    soon("it ends", read).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("hello\n", "sh: nonsense: not found\n"));
    let status = soon("it says how it ended", status).await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    let causes = status.details.unwrap().causes.unwrap();
    assert_eq!((causes[0].reason.as_deref(), causes[0].message.as_deref()), (Some("ExitCode"), Some("3")));
}
