//! Event: something that happened to an object, for people to read.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{KindInfo, NAME, Scope, column, wide};
use crate::names::NameRule;
use crate::printing::since;

impl Resource for Event {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        categories: &[],
        scope: Scope::Namespaced,
        subresources: &[],
        columns: &[
            column("Last Seen", "string", "When it happened last"),
            column("Type", "string", "Normal or Warning"),
            column("Reason", "string", "One word for what happened"),
            column("Object", "string", "The object it happened to"),
            wide("Subobject", "string", "The part of the object it happened to"),
            wide("Source", "string", "Who saw it"),
            column("Message", "string", "A sentence on what happened"),
            wide("First Seen", "string", "When it happened first"),
            wide("Count", "string", "How often it happened"),
            crate::kinds::Column { priority: 1, ..NAME },
        ],
        selectable_fields: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        name_rule: NameRule::PathSegment,
    };

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        let text = |value: &'_ Option<String>| Cow::Owned(value.clone().unwrap_or_default());
        let object = &self.involved_object;
        vec![
            text(&object.kind),
            text(&object.namespace),
            text(&object.name),
            text(&object.uid),
            text(&object.api_version),
            text(&object.resource_version),
            text(&object.field_path),
            text(&self.reason),
            text(&self.reporting_component),
            component(self).into(),
            text(&self.type_),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let object = &self.involved_object;
        let named = match object.name.as_deref().unwrap_or("") {
            "" => object.kind.as_deref().unwrap_or("").to_lowercase(),
            name => format!("{}/{name}", object.kind.as_deref().unwrap_or("").to_lowercase()),
        };
        vec![
            json!(last_seen(self, now)),
            json!(self.type_),
            json!(self.reason),
            json!(named),
            json!(object.field_path.as_deref().unwrap_or("")),
            json!(source(self)),
            json!(self.message.as_deref().unwrap_or("").trim()),
            json!(first_seen(self, now)),
            json!(count(self)),
            json!(self.metadata.name),
        ]
    }
}

/// Who saw it, under either of the two names events have had for that.
fn component(event: &Event) -> &str {
    let legacy = event.source.as_ref().and_then(|s| s.component.as_deref()).filter(|c| !c.is_empty());
    legacy.or(event.reporting_component.as_deref()).unwrap_or("")
}

fn source(event: &Event) -> String {
    let host = event.source.as_ref().and_then(|s| s.host.as_deref()).filter(|h| !h.is_empty());
    let instance = host.or(event.reporting_instance.as_deref()).unwrap_or("");
    if instance.is_empty() { component(event).to_owned() } else { format!("{}, {instance}", component(event)) }
}

fn count(event: &Event) -> i32 {
    let series = event.series.as_ref().and_then(|s| s.count);
    series.unwrap_or_else(|| event.count.filter(|c| *c != 0).unwrap_or(1))
}

fn first_seen(event: &Event, now: Timestamp) -> String {
    let micro = event.event_time.as_ref().map(|t| Time(t.0));
    since(event.first_timestamp.as_ref().or(micro.as_ref()), now)
}

fn last_seen(event: &Event, now: Timestamp) -> String {
    let in_series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| Time(t.0));
    match in_series.as_ref().or(event.last_timestamp.as_ref()) {
        Some(last) => since(Some(last), now),
        None => first_seen(event, now),
    }
}
