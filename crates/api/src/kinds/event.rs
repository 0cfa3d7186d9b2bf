//! Event: something that happened to an object, for people to read.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::rules;
use crate::Resource;
use crate::field::{ErrorList, Path, invalid};
use crate::kinds::{KindInfo, NAME, Scope, Verb, column, wide};
use crate::names::NameRule;
use crate::printing::since;

/// How long the words and the sentence of an event may be.
const MAX_WORD: usize = 128;
const MAX_MESSAGE: usize = 1024;

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
        verbs: Verb::ALL,
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

    fn validate(&self, errors: &mut ErrorList) {
        let namespace = self.metadata.namespace.as_deref().unwrap_or("");
        let involved = self.involved_object.namespace.as_deref().unwrap_or("");
        // Events about objects without a namespace live in the default one; those that know when they happened may live in
        // the system's, and anywhere else about what is elsewhere (`legacyValidateEvent`).
        let fits = match (self.event_time.is_some(), involved.is_empty()) {
            (_, true) if matches!(namespace, "" | "default") => true,
            (true, true) => namespace == "kube-system",
            (true, false) => true,
            (false, _) => namespace == involved,
        };
        if !fits {
            let path = Path::new("involvedObject").child("namespace");
            errors.push(invalid(&path, involved, "does not match event.namespace"));
        }
        if self.event_time.is_some() {
            modern(self, errors);
        }
    }

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

/// What events must say that know when they happened to the microsecond (`events.k8s.io`).
fn modern(event: &Event, errors: &mut ErrorList) {
    let component = Path::new("reportingComponent");
    rules::given(event.reporting_component.as_deref().unwrap_or(""), &component, errors);
    rules::label_key(event.reporting_component.as_deref().unwrap_or(""), &component, errors);
    let words =
        [(&event.reporting_instance, "reportingInstance"), (&event.action, "action"), (&event.reason, "reason")];
    for (word, field) in words {
        let (word, path) = (word.as_deref().unwrap_or(""), Path::new(field));
        rules::given(word, &path, errors);
        at_most(word, MAX_WORD, &path, errors);
    }
    at_most(event.message.as_deref().unwrap_or(""), MAX_MESSAGE, &Path::new("message"), errors);
}

fn at_most(text: &str, max: usize, path: &Path, errors: &mut ErrorList) {
    if text.len() > max {
        errors.push(invalid(path, "", &format!("can have at most {max} characters")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    fn about(namespace: &str, involved: &str) -> Event {
        let mut event = Event::default();
        event.metadata.namespace = Some(namespace.into());
        event.involved_object.namespace = Some(involved.into());
        event.involved_object.kind = Some("Pod".into());
        event.involved_object.name = Some("web".into());
        event
    }

    #[test]
    fn events_live_beside_their_objects() {
        for (namespace, involved, is_fine) in
            [("web", "web", true), ("default", "", true), ("web", "", false), ("web", "db", false)]
        {
            let errors = Object::validate(&about(namespace, involved));
            assert_eq!(errors.is_empty(), is_fine, "{namespace} about {involved}: {errors:?}");
        }
    }

    #[test]
    fn modern_events_say_who_did_what() {
        let modern = |event| Event { event_time: Some(MicroTime(Timestamp::UNIX_EPOCH)), ..event };
        for (namespace, involved, is_fine) in
            [("default", "", true), ("kube-system", "", true), ("web", "", false), ("web", "db", true)]
        {
            let errors = Object::validate(&modern(about(namespace, involved)));
            let fits = errors.iter().all(|e| e.field.as_str() != "involvedObject.namespace");
            assert_eq!(fits, is_fine, "{namespace} about {involved}: {errors:?}");
        }
        let event = modern(about("web", "web"));
        let fields: Vec<String> = Object::validate(&event).iter().map(|e| e.field.to_string()).collect();
        let component = ["reportingComponent"; 3];
        assert_eq!(fields, [&component[..], &["reportingInstance", "action", "reason"]].concat());
    }

    #[test]
    fn cells_tell_when_it_was_last_seen() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut event = about("web", "web");
        event.first_timestamp = Some(Time(at(0)));
        event.last_timestamp = Some(Time(at(50)));
        event.count = Some(3);
        let cells = Object::cells(&event, at(60));
        assert_eq!(
            (&cells[0], &cells[3], &cells[7], &cells[8]),
            (&json!("10s"), &json!("pod/web"), &json!("60s"), &json!(3))
        );
    }
}
