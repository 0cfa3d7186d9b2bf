//! A worker on a bench: a runtime, an API that has only what it is given, and no one else.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Recorder;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use super::{Desired, Handle, Kubelet, Worker};
use crate::clock::Clock;
use crate::env::NodeResources;
use crate::objects::ObjectCache;
use crate::runtime::{Machine, Runtime};
use crate::status_writer::Outgoing;
use crate::{Config, Services};

/// Time a wait may take; virtual where time is paused.
const LIMIT: Duration = Duration::from_secs(3600);

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// An API server with a few Secrets and ConfigMaps.
#[derive(Clone)]
pub(super) struct Api {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    changes: broadcast::Sender<(String, Value)>,
    token: Arc<Mutex<Option<(String, Timestamp)>>>,
    events: watch::Sender<Vec<(String, String)>>,
}

impl Api {
    pub(super) fn new() -> Api {
        Api {
            objects: Arc::default(),
            changes: broadcast::Sender::new(16),
            token: Arc::default(),
            events: watch::Sender::default(),
        }
    }

    /// Has `object` from now on; its kind is in it.
    pub(super) fn put(&self, mut object: Value) {
        let resource = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
        let key = format!("{resource}/{}", object["metadata"]["name"].as_str().unwrap());
        object["apiVersion"] = json!("v1");
        object["metadata"]["namespace"] = json!("ns");
        object["metadata"]["resourceVersion"] = json!("2");
        self.objects.lock().insert(key.clone(), object.clone());
        let _ = self.changes.send((key, object));
    }

    /// Gives this token from now on to whoever asks.
    pub(super) fn put_token(&self, text: &str, expires_at: Timestamp) {
        *self.token.lock() = Some((text.to_owned(), expires_at));
    }

    /// Gives no token any more.
    pub(super) fn take_token(&self) {
        *self.token.lock() = None;
    }

    /// Waits for an Event with this reason and message.
    pub(super) async fn until_event(&self, reason: &str, message: &str) {
        let mut events = self.events.subscribe();
        let found = events.wait_for(|all| all.iter().any(|(r, m)| r == reason && m == message));
        let found = tokio::time::timeout(LIMIT, found).await.is_ok();
        assert!(found, "{reason} {message:?} never comes: {:?}", self.events.borrow());
    }

    /// Waits for an Event with this reason whose message has this in it.
    pub(super) async fn until_told(&self, reason: &str, part: &str) {
        let mut events = self.events.subscribe();
        let found = events.wait_for(|all| all.iter().any(|(r, message)| r == reason && message.contains(part)));
        let found = tokio::time::timeout(LIMIT, found).await.is_ok();
        assert!(found, "{reason} … {part:?} never comes: {:?}", self.events.borrow());
    }

    /// The messages of all Events with this reason so far.
    pub(super) fn events(&self, reason: &str) -> Vec<String> {
        let all = self.events.borrow();
        all.iter().filter(|(r, _)| r == reason).map(|(_, message)| message.clone()).collect()
    }

    async fn put_event(&self, body: Body) -> Response<Answer> {
        let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        let event: Value = serde_json::from_slice(&bytes).unwrap();
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        self.events.send_modify(|events| events.push((text("reason"), text("message"))));
        let mut response = Response::new(Answer::new(Full::from(bytes)));
        *response.status_mut() = http::StatusCode::CREATED;
        response
    }

    fn client(&self) -> kube::Client {
        let api = self.clone();
        let answer = move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                match (parts.method.as_str(), parts.uri.path().ends_with("/events")) {
                    ("POST", true) => Ok::<_, Infallible>(api.put_event(body).await),
                    ("PATCH", _) => {
                        let event = json!({"metadata": {}, "involvedObject": {}}).to_string();
                        Ok(Response::new(Answer::new(Full::from(event))))
                    }
                    _ => Ok(api.answer(&parts.uri)),
                }
            }
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    fn answer_token(&self) -> Response<Answer> {
        let token = self.token.lock().clone();
        let (code, answer) = match token {
            Some((token, end)) => {
                let (spec, status) =
                    (json!({"audiences": ["api"]}), json!({"token": token, "expirationTimestamp": end}));
                (201, json!({"kind": "TokenRequest", "metadata": {}, "spec": spec, "status": status}))
            }
            None => (403, json!({"kind": "Status", "message": "no token for you", "reason": "Forbidden", "code": 403})),
        };
        let mut response = Response::new(Answer::new(Full::from(answer.to_string())));
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
        response
    }

    /// Tokens, and lists and watches of one object by name, are all that is asked for.
    fn answer(&self, uri: &http::Uri) -> Response<Answer> {
        if uri.path().ends_with("/serviceaccounts/robot/token") {
            return self.answer_token();
        }
        let query = uri.query().unwrap_or_default();
        let name = query.split('&').find_map(|p| p.strip_prefix("fieldSelector=metadata.name%3D")).unwrap_or_default();
        let key = format!("{}/{name}", uri.path().rsplit('/').next().unwrap_or_default());
        if !query.contains("watch=true") {
            let items: Vec<Value> = self.objects.lock().get(&key).cloned().into_iter().collect();
            let list =
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
            return Response::new(Answer::new(Full::from(list.to_string())));
        }
        let events = BroadcastStream::new(self.changes.subscribe()).filter_map(move |change| {
            let wanted = change.ok().filter(|(changed, _)| *changed == key);
            let line = wanted.map(|(_, object)| format!("{}\n", json!({"type": "MODIFIED", "object": object})));
            std::future::ready(line.map(|line| Ok::<_, Infallible>(hyper::body::Frame::data(Bytes::from(line)))))
        });
        Response::new(Answer::new(StreamBody::new(events)))
    }
}

pub(super) struct Bench<R> {
    pub(super) runtime: R,
    pub(super) api: Api,
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) handle: Arc<Handle>,
    pub(super) status: watch::Receiver<Outgoing>,
    pub(super) network: watch::Sender<bool>,
    pub(super) worker: tokio::task::JoinHandle<()>,
    tasks: client::Tasks,
}

pub(super) fn pod(uid: &str, spec: Value) -> Pod {
    let metadata = json!({"name": "web", "namespace": "ns", "uid": uid});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

impl<R: Runtime + Clone> Bench<R> {
    /// A worker for `pod` on `runtime`, whose pod network exists.
    pub(super) fn new(runtime: R, api: Api, config: Config, pod: Pod) -> Bench<R> {
        let (network, network_ready) = watch::channel(true);
        let resources = NodeResources {
            ip: config.node_ip,
            milli_cpu: 1000,
            memory: 1 << 30,
            ephemeral_storage: 0,
            machine_memory: 1 << 30,
        };
        let tasks = client::Tasks::new();
        let machine = Machine { milli_cpu: 4000, memory: 4 << 30, ..Machine::default() };
        let kubelet = Arc::new(Kubelet {
            abilities: crate::pod::admit::Abilities::default(),
            allocations: crate::testing::allocations(&config, &machine),
            started_at: config.clock.now(),
            config,
            client: api.client(),
            runtime: Arc::new(runtime.clone()),
            resources,
            node: Default::default(),
            recorder: Recorder::new(api.client(), "kubelet", None, &tasks),
            network: network_ready,
            services: Services::Fixed(Vec::new()),
            config_maps: ObjectCache::new(api.client()),
            secrets: ObjectCache::new(api.client()),
        });
        let pod = Arc::new(pod);
        let handle = Arc::new(Handle::new(Desired { pod: pod.clone(), gone: false }));
        kubelet.allocations.enter(&pod, &handle.wake, &kubelet.facts());
        let (sender, status) = watch::channel(Outgoing::default());
        let worker = tokio::spawn(Worker::new(kubelet.clone(), handle.clone(), sender).run());
        let bench = Bench { runtime, api, kubelet, handle, status, network, worker, tasks };
        bench.forward_events();
        bench
    }

    /// Stands in for the event loop of all pods.
    fn forward_events(&self) {
        let mut events = self.runtime.events();
        let handle = Arc::downgrade(&self.handle);
        tokio::spawn(async move {
            while events.next().await.is_some() {
                let Some(handle) = handle.upgrade() else { return };
                handle.wake.notify_one();
            }
        });
    }

    pub(super) async fn until(&mut self, what: &str, wanted: impl Fn(&PodStatus) -> bool) -> Arc<PodStatus> {
        let found = self.status.wait_for(|o| o.status.as_ref().is_some_and(|s| wanted(s)));
        let found = tokio::time::timeout(LIMIT, found).await;
        found.unwrap_or_else(|_| panic!("{what} never comes")).unwrap().status.clone().unwrap()
    }

    pub(super) async fn until_phase(&mut self, phase: &str) -> Arc<PodStatus> {
        self.until(phase, |status| status.phase.as_deref() == Some(phase)).await
    }

    pub(super) fn now(&self) -> Timestamp {
        self.kubelet.config.clock.now()
    }

    pub(super) fn delete(&self, grace: i64) {
        let mut pod = self.handle.desired().pod.as_ref().clone();
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now()));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.handle.set(Desired { pod: Arc::new(pod), gone: false });
    }

    pub(super) async fn until_deleted(&mut self) -> PodStatus {
        let found = tokio::time::timeout(LIMIT, self.status.wait_for(|o| o.delete)).await;
        found.expect("the pod's object is deleted").unwrap().status.as_deref().cloned().unwrap_or_default()
    }

    pub(super) async fn end(mut self) {
        let pod = self.handle.desired().pod;
        self.handle.set(Desired { pod, gone: true });
        tokio::time::timeout(LIMIT, &mut self.worker).await.expect("the worker ends").unwrap();
        assert!(self.runtime.pods().await.unwrap().is_empty(), "nothing is left");
    }
}

impl<R> Drop for Bench<R> {
    fn drop(&mut self) {
        self.worker.abort();
        self.tasks.token().cancel();
    }
}

/// A configuration for paused time.
pub(super) fn config() -> Config {
    Config { clock: Clock::tokio(), ..Config::new("box1", "10.0.0.1".parse().unwrap(), "/nonexistent") }
}

pub(super) fn first(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

pub(super) fn waits_for(status: &PodStatus, reason: &str) -> bool {
    let waiting = first(status).state.as_ref().and_then(|s| s.waiting.as_ref());
    waiting.and_then(|w| w.reason.as_deref()) == Some(reason)
}
