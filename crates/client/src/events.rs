//! Writes Events (core/v1), merging repeats, never in the caller's way.
//!
//! Repeats of one event raise the `count` of the first; an object that causes too many different events loses the
//! surplus (the limits are those of `k8s.io/client-go/tools/record`, `events_cache.go`).

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Tasks;

/// How many events may wait to be written; more are dropped.
const QUEUE_LENGTH: usize = 1024;
/// How many different events are remembered for counting repeats.
const REMEMBERED_EVENTS: usize = 4096;
/// How many events one object may cause at once.
const BURST_PER_OBJECT: u32 = 25;
/// The time in which an object may cause one event more.
const REFILL: Duration = Duration::from_secs(300);
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

/// What makes two events the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Happening {
    object: (String, String, String, String),
    field_path: Option<String>,
    event_type: EventType,
    reason: String,
    message: String,
}

struct Recorded {
    reference: ObjectReference,
    happening: Happening,
    at: Timestamp,
}

/// Records Events from one component. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: Option<mpsc::Sender<Recorded>>,
}

impl Recorder {
    /// A recorder for `component` (e.g. `replication-controller`), on `host` where it is a node's.
    pub fn new(client: kube::Client, component: &str, host: Option<&str>, tasks: &Tasks) -> Recorder {
        let (queue, recorded) = mpsc::channel(QUEUE_LENGTH);
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        tasks.spawn(Writer { client, source, remembered: HashMap::new(), budgets: HashMap::new() }.run(recorded));
        Recorder { queue: Some(queue) }
    }

    /// A recorder that drops everything, for tests of executors.
    pub fn discard() -> Recorder {
        Recorder { queue: None }
    }

    /// Records that `reason` happened to `object`. Returns at once; where the (bounded) queue is full the event is
    /// dropped. Same object, type, reason and message again: the count of the first grows.
    pub fn event(&self, object: &ObjectReference, event_type: EventType, reason: &str, message: String) {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let happening = Happening {
            object: (text(&object.kind), text(&object.namespace), text(&object.name), text(&object.uid)),
            field_path: object.field_path.clone(),
            event_type,
            reason: reason.to_owned(),
            message,
        };
        tracing::debug!(
            kind = happening.object.0,
            object = format_args!("{}/{}", happening.object.1, happening.object.2),
            reason,
            message = happening.message,
            "event"
        );
        if let Some(queue) = &self.queue {
            // A full queue drops the event: telling must never hold up doing.
            let _ = queue.try_send(Recorded { reference: object.clone(), happening, at: Timestamp::now() });
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

/// An event that is in the API already.
struct Remembered {
    name: String,
    count: i32,
}

/// How many more events an object may cause.
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn spend(&mut self, now: Instant) -> bool {
        let refills = (now - self.since).as_secs() / REFILL.as_secs();
        if refills > 0 {
            self.left = BURST_PER_OBJECT.min(self.left.saturating_add(u32::try_from(refills).unwrap_or(u32::MAX)));
            self.since = now;
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

/// The one task that writes a component's events.
struct Writer {
    client: kube::Client,
    source: EventSource,
    remembered: HashMap<Happening, Remembered>,
    budgets: HashMap<(String, String, String, String), Budget>,
}

impl Writer {
    async fn run(mut self, mut recorded: mpsc::Receiver<Recorded>) {
        while let Some(event) = recorded.recv().await {
            if !self.within_budget(&event.happening, Instant::now()) {
                continue;
            }
            if let Err(error) = self.write(event).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "event not written");
            }
        }
    }

    fn within_budget(&mut self, happening: &Happening, now: Instant) -> bool {
        if self.budgets.len() >= REMEMBERED_EVENTS {
            self.budgets.retain(|_, budget| now - budget.since < REFILL);
        }
        let fresh = || Budget { left: BURST_PER_OBJECT, since: now };
        self.budgets.entry(happening.object.clone()).or_insert_with(fresh).spend(now)
    }

    async fn write(&mut self, event: Recorded) -> Result<(), kube::Error> {
        let namespace = event.reference.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some(known) = self.remembered.get_mut(&event.happening) {
            let count = known.count + 1;
            match api.patch(&known.name, &PatchParams::default(), &repeat(count, &event)).await {
                Ok(_) => {
                    known.count = count;
                    return Ok(());
                }
                // It has expired meanwhile: write it anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let created = self.first(&event, namespace);
        let name = created.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &created).await?;
        if self.remembered.len() >= REMEMBERED_EVENTS {
            self.remembered.clear();
        }
        self.remembered.insert(event.happening, Remembered { name, count: 1 });
        Ok(())
    }

    fn first(&self, event: &Recorded, namespace: &str) -> Event {
        let involved = event.reference.name.as_deref().unwrap_or("unknown");
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{involved}.{:x}", event.at.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: event.reference.clone(),
            reason: Some(event.happening.reason.clone()),
            message: Some(event.happening.message.clone()),
            type_: Some(event.happening.event_type.as_str().to_owned()),
            first_timestamp: Some(Time(event.at)),
            last_timestamp: Some(Time(event.at)),
            event_time: None::<MicroTime>,
            count: Some(1),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Event::default()
        }
    }
}

fn repeat(count: i32, event: &Recorded) -> Patch<serde_json::Value> {
    Patch::Merge(serde_json::json!({ "count": count, "lastTimestamp": Time(event.at) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_object_cannot_flood_and_recovers_slowly() {
        let mut budget = Budget { left: BURST_PER_OBJECT, since: Instant::now() };
        let granted = (0..100).filter(|_| budget.spend(Instant::now())).count();
        assert_eq!(granted, 25);
        tokio::time::advance(REFILL * 2).await;
        let granted = (0..100).filter(|_| budget.spend(Instant::now())).count();
        assert_eq!(granted, 2);
    }

    #[tokio::test]
    async fn a_full_queue_drops_events_instead_of_waiting() {
        let (queue, mut recorded) = mpsc::channel(1);
        let recorder = Recorder { queue: Some(queue) };
        let pod = object_reference(&k8s_openapi::api::core::v1::Pod::default());
        for number in 0..5 {
            recorder.event(&pod, EventType::Normal, "Started", format!("number {number}"));
        }
        assert_eq!(recorded.recv().await.unwrap().happening.message, "number 0");
        assert!(recorded.try_recv().is_err());
        assert_eq!(pod.kind.as_deref(), Some("Pod"));
    }
}
