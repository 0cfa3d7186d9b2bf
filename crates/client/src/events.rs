//! Writes Events (core/v1), never in the caller's way: a bounded queue, and one task that writes what [`correlate`] makes
//! of it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

use self::correlate::{Correlated, Correlator, Happening};
use crate::Tasks;

mod correlate;

/// How many events may wait to be written; more are dropped.
const QUEUE_LENGTH: usize = 1024;
/// How often an event is tried that the API server could not be told of, and how long lies between (`maxTriesPerEvent`,
/// `defaultSleepDuration` in `tools/record/event.go`).
const MAX_TRIES: u32 = 12;
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The namespace of events about cluster-scoped objects.
const DEFAULT_NAMESPACE: &str = "default";

/// Whether an Event tells of the ordinary or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

impl EventType {
    /// The text of an Event's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Records Events from one component. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: Option<mpsc::Sender<Happening>>,
}

impl Recorder {
    /// A recorder for `component` (e.g. `replication-controller`), on `host` where it is a node's.
    pub fn new(client: kube::Client, component: &str, host: Option<&str>, tasks: &Tasks) -> Recorder {
        let (queue, recorded) = mpsc::channel(QUEUE_LENGTH);
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        tasks.spawn(Writer { client, source, correlator: Correlator::new() }.run(recorded));
        Recorder { queue: Some(queue) }
    }

    /// A recorder that drops everything, for tests of executors.
    pub fn discard() -> Recorder {
        Recorder { queue: None }
    }

    /// Records that `reason` happened to `object`. Returns at once; where the (bounded) queue is full the event is
    /// dropped. Same object, type, reason and message again: the count of the first grows.
    pub fn event(&self, object: &ObjectReference, event_type: EventType, reason: &str, message: String) {
        tracing::debug!(
            kind = object.kind,
            object = format_args!(
                "{}/{}",
                object.namespace.as_deref().unwrap_or_default(),
                object.name.as_deref().unwrap_or_default()
            ),
            reason,
            message,
            "event"
        );
        if let Some(queue) = &self.queue {
            let (object, reason, at) = (object.clone(), reason.to_owned(), Timestamp::now());
            // A full queue drops the event: telling must never hold up doing.
            let _ = queue.try_send(Happening { object, event_type, reason, message, at });
        }
    }
}

/// A reference to `object`, as Events carry it.
pub fn object_reference<K>(object: &K) -> ObjectReference
where
    K: kube::Resource<DynamicType = ()>,
{
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The one task that writes a component's events.
struct Writer {
    client: kube::Client,
    source: EventSource,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut recorded: mpsc::Receiver<Happening>) {
        while let Some(happening) = recorded.recv().await {
            if let Some(event) = self.correlator.correlate(&happening) {
                self.write(&happening, &event).await;
            }
        }
    }

    /// Until the API server has the event, refuses it, or could not be reached too often.
    async fn write(&self, happening: &Happening, event: &Correlated) {
        for tried in 1..=MAX_TRIES {
            match self.try_write(happening, event).await {
                Ok(()) => return,
                Err(error @ kube::Error::Api(_)) => {
                    return tracing::debug!(error = &error as &dyn std::error::Error, "event not written");
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, tried, "event not written yet");
                }
            }
            // At first not all at once, when a server returns.
            let share = if tried == 1 { rand::random() } else { 1.0 };
            if tried < MAX_TRIES {
                tokio::time::sleep(RETRY_AFTER.mul_f64(share)).await;
            }
        }
    }

    async fn try_write(&self, happening: &Happening, event: &Correlated) -> Result<(), kube::Error> {
        let namespace = happening.object.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if event.count > 1 {
            match api.patch(&event.name, &PatchParams::default(), &repeat(happening, event)).await {
                // It has expired meanwhile, or the first was not told: write it anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                told => return told.map(drop),
            }
        }
        api.create(&PostParams::default(), &self.first(happening, event, namespace)).await.map(drop)
    }

    fn first(&self, happening: &Happening, event: &Correlated, namespace: &str) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(event.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: happening.object.clone(),
            reason: Some(happening.reason.clone()),
            message: Some(event.message.clone()),
            type_: Some(happening.event_type.as_str().to_owned()),
            first_timestamp: Some(Time(event.first_at)),
            last_timestamp: Some(Time(happening.at)),
            event_time: None::<MicroTime>,
            count: Some(event.count),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Event::default()
        }
    }
}

fn repeat(happening: &Happening, event: &Correlated) -> Patch<serde_json::Value> {
    let (count, message) = (event.count, &event.message);
    Patch::Merge(serde_json::json!({ "count": count, "message": message, "lastTimestamp": Time(happening.at) }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_full_queue_drops_events_instead_of_waiting() {
        let (queue, mut recorded) = mpsc::channel(1);
        let recorder = Recorder { queue: Some(queue) };
        let pod = object_reference(&k8s_openapi::api::core::v1::Pod::default());
        for number in 0..5 {
            recorder.event(&pod, EventType::Normal, "Started", format!("number {number}"));
        }
        assert_eq!(recorded.recv().await.unwrap().message, "number 0");
        assert!(recorded.try_recv().is_err());
        assert_eq!(pod.kind.as_deref(), Some("Pod"));
    }

    /// How often an API server is asked that answers so; `None`: it is not there.
    async fn asked(answer: Option<u16>) -> u32 {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            let status = answer.ok_or_else(|| std::io::Error::other("not there"));
            let body = format!(r#"{{"kind": "Status", "status": "Failure", "code": {}}}"#, answer.unwrap_or(0));
            std::future::ready(status.map(|status| {
                http::Response::builder().status(status).body(kube::client::Body::from(body.into_bytes())).unwrap()
            }))
        });
        let (queue, recorded) = mpsc::channel(1);
        let object = object_reference(&k8s_openapi::api::core::v1::Pod::default());
        Recorder { queue: Some(queue) }.event(&object, EventType::Normal, "R", "m".to_owned());
        let client = kube::Client::new(service, "default");
        Writer { client, source: EventSource::default(), correlator: Correlator::new() }.run(recorded).await;
        asked.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_not_there_is_told_later_and_one_that_refuses_is_not() {
        assert_eq!(asked(None).await, MAX_TRIES);
        assert_eq!(asked(Some(403)).await, 1);
    }
}
