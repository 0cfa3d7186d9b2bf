//! `kctl describe`: everything about an object that a person wants to read, with its Events.
//!
//! One function for each kind that has more to say than its fields; [`generic`] for the others.

mod config_map;
mod generic;
mod node;
mod pod;
mod replication_controller;
mod service;
mod text;

use serde_json::Value;

use super::{Selectors, Subject, list, subjects};
use crate::manifest::Files;
use crate::session::Session;
use crate::{Console, Error, error, object};
use text::Text;

/// Show details of resources.
#[derive(Debug, clap::Args)]
pub struct Describe {
    /// TYPE [NAME …] or TYPE/NAME …
    arguments: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selectors: Selectors,
    /// If true, display events related to the described object
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    show_events: bool,
}

impl Describe {
    /// Describes each object, two empty lines between them.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        let everything = self.arguments.len() == 1 && !self.arguments[0].contains('/') && self.selectors.is_empty();
        let found = subjects(session, console, &self.files, &self.arguments, &self.selectors, everything).await?;
        if found.is_empty() {
            let place = if self.selectors.all_namespaces {
                String::new()
            } else {
                format!(" in {} namespace.", session.namespace())
            };
            console.note(&format!("No resources found{place}"));
            return Ok(());
        }
        let (mut errors, mut first) = (Vec::new(), true);
        for subject in &found {
            match self.describe(session, subject).await {
                Ok(text) => {
                    console.print(if first { "" } else { "\n\n" })?;
                    console.print(&text)?;
                    first = false;
                }
                Err(error) => errors.push(error),
            }
        }
        error::all(errors)
    }

    async fn describe(&self, session: &Session, subject: &Subject) -> Result<String, Error> {
        let object = session.get(&subject.path()).await?;
        let related = related(session, &subject.resource.kind, &object).await?;
        let mut text = render(&subject.resource.kind, &object, &related);
        if self.show_events {
            let events = events_of(session, &subject.resource.kind, &object).await?;
            render_events(&mut text, &events, jiff::Timestamp::now());
        }
        Ok(text.finish())
    }
}

/// The description without events. `related` are the objects that [`related`] found.
fn render(kind: &str, object: &Value, related: &[Value]) -> Text {
    let mut text = Text::default();
    match kind {
        "Pod" => pod::describe(&mut text, object),
        "Node" => node::describe(&mut text, object, related),
        "ReplicationController" => replication_controller::describe(&mut text, object, related),
        "Service" => service::describe(&mut text, object, related),
        "ConfigMap" => config_map::describe(&mut text, object),
        _ => generic::describe(&mut text, object),
    }
    text
}

/// Other objects that a description needs: pods of a node or controller, endpoint slices of a service.
async fn related(session: &Session, kind: &str, object: &Value) -> Result<Vec<Value>, Error> {
    let name = object::name(object);
    let in_namespace = |plural: &str| {
        let namespace = object::namespace(object).unwrap_or("default");
        if plural == "pods" {
            format!("/api/v1/namespaces/{namespace}/pods")
        } else {
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/{plural}")
        }
    };
    let (path, parameter) = match kind {
        "Node" => (
            "/api/v1/pods".to_owned(),
            ("fieldSelector", format!("spec.nodeName={name},status.phase!=Failed,status.phase!=Succeeded")),
        ),
        "ReplicationController" if object["spec"]["selector"].is_object() => {
            (in_namespace("pods"), ("labelSelector", object::joined_pairs(&object["spec"]["selector"])))
        }
        "Service" => (in_namespace("endpointslices"), ("labelSelector", format!("kubernetes.io/service-name={name}"))),
        _ => return Ok(Vec::new()),
    };
    let found = list(session, &path, &[parameter], "application/json").await?;
    Ok(object::items(&found, &["items"]).to_vec())
}

/// The Events about an object, oldest first.
async fn events_of(session: &Session, kind: &str, object: &Value) -> Result<Vec<Value>, Error> {
    let mut fields =
        vec![format!("involvedObject.kind={kind}"), format!("involvedObject.name={}", object::name(object))];
    let path = match object::namespace(object) {
        Some(namespace) => {
            fields.push(format!("involvedObject.namespace={namespace}"));
            format!("/api/v1/namespaces/{namespace}/events")
        }
        None => "/api/v1/events".to_owned(),
    };
    // Kubelets name their node by its name where upstream expects its UID, so nodes are found without.
    let uid = object::text(object, &["metadata", "uid"]);
    if kind != "Node" && !uid.is_empty() {
        fields.push(format!("involvedObject.uid={uid}"));
    }
    let found = list(session, &path, &[("fieldSelector", fields.join(","))], "application/json").await?;
    let mut events = object::items(&found, &["items"]).to_vec();
    events.sort_by_key(last_seen);
    Ok(events)
}

fn last_seen(event: &Value) -> Option<jiff::Timestamp> {
    let stamps = ["lastTimestamp", "eventTime", "firstTimestamp"].map(|key| object::text(event, &[key]).parse().ok());
    stamps.into_iter().flatten().next()
}

fn render_events(text: &mut Text, events: &[Value], now: jiff::Timestamp) {
    if events.is_empty() {
        return text.field(0, "Events", "<none>");
    }
    text.line(0, "Events:");
    text.line(1, "Type\tReason\tAge\tFrom\tMessage");
    text.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let age = |stamp: Option<jiff::Timestamp>| match stamp {
            Some(stamp) => api::printing::human_duration(now.duration_since(stamp)),
            None => "<unknown>".to_owned(),
        };
        let count = event["count"].as_i64().unwrap_or(1);
        let mut when = age(last_seen(event));
        if count > 1 {
            let first = object::text(event, &["firstTimestamp"]).parse().ok();
            when = format!("{when} (x{count} over {})", age(first));
        }
        let from = [object::text(event, &["source", "component"]), object::text(event, &["reportingComponent"])];
        let from = from.into_iter().find(|f| !f.is_empty()).unwrap_or("");
        let message = object::text(event, &["message"]).trim();
        let (kind, reason) = (object::text(event, &["type"]), object::text(event, &["reason"]));
        text.line(1, &format!("{kind}\t{reason}\t{when}\t{from}\t{}", message.replace('\n', " ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_a_table() {
        let event = json!({"type": "Normal", "reason": "Started", "count": 3, "message": "Started container\n",
                           "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:04:00Z",
                           "source": {"component": "kubelet"}});
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let expected = [
            "Events:",
            "  Type    Reason   Age               From     Message",
            "  ----    ------   ----              ----     -------",
            "  Normal  Started  60s (x3 over 5m)  kubelet  Started container",
        ];
        let shown = |events: &[Value]| {
            let mut text = Text::default();
            render_events(&mut text, events, now);
            text.finish()
        };
        assert_eq!(shown(&[event]).lines().collect::<Vec<_>>(), expected);
        assert_eq!(shown(&[]), "Events:  <none>\n");
    }

    #[test]
    fn a_pod_reads_as_in_kubectl() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"b": "2", "a": "1"},
                         "ownerReferences": [{"kind": "ReplicationController", "name": "rc", "controller": true}]},
            "spec": {"nodeName": "box1", "serviceAccountName": "default",
                     "containers": [{"name": "c", "image": "img", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIP": "10.244.0.2", "hostIP": "192.0.2.1", "qosClass": "BestEffort",
                       "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True"}],
                       "containerStatuses": [{"name": "c", "ready": true, "restartCount": 1, "containerID": "docker://x",
                           "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}]},
        });
        let text = render("Pod", &pod, &[]).finish();
        for line in [
            "Name:             web",
            "Service Account:  default",
            "Node:             box1/192.0.2.1",
            "Start Time:       Thu, 01 Jan 2026 00:00:00 +0000",
            "Labels:           a=1",
            "                  b=2",
            "Status:           Running",
            "Controlled By:  ReplicationController/rc",
            "    Port:           80/TCP",
            "    State:          Running",
            "      Started:      Thu, 01 Jan 2026 00:00:01 +0000",
            "    Restart Count:  1",
            "    Environment:    <none>",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn nothing_in_an_object_makes_a_description_panic() {
        for kind in ["Pod", "Node", "ReplicationController", "Service", "ConfigMap"] {
            for object in [
                json!({}),
                json!(null),
                json!({"spec": [], "status": "x", "metadata": 3, "data": {"a": [1, {"b": null}]}}),
            ] {
                let _ = render(kind, &object, std::slice::from_ref(&object)).finish();
            }
        }
    }
}
