//! `events.k8s.io/v1` Event: the same object as `v1` Event in newer words (KEP-383).
//!
//! Conversion follows `pkg/apis/events/v1/conversion.go`, what is checked `pkg/apis/core/validation/events.go`.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::Value;

use super::rules;
use super::view::Viewing;
use crate::Resource;
use crate::field::{ErrorList, Path, invalid, required};
use crate::kinds::{KindInfo, Verb};
use crate::metadata::{immutable, validate_finalizers};

impl Resource for Event {
    const INFO: KindInfo = KindInfo {
        group: "events.k8s.io",
        verbs: Verb::ALL,
        // The same fields in the same order as those of `v1` Event.
        selectable_fields: &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "source",
            "type",
        ],
        ..core::Event::INFO
    };

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        let stored = self.clone().store();
        Resource::selectable_fields(&stored).into_iter().map(|field| Cow::Owned(field.into_owned())).collect()
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        Resource::cells(&self.clone().store(), now)
    }
}

impl Viewing for Event {
    type Stored = core::Event;

    fn store(self) -> core::Event {
        core::Event {
            metadata: self.metadata,
            action: self.action,
            count: self.deprecated_count,
            event_time: self.event_time,
            first_timestamp: self.deprecated_first_timestamp,
            involved_object: self.regarding.unwrap_or_default(),
            last_timestamp: self.deprecated_last_timestamp,
            message: self.note,
            reason: self.reason,
            related: self.related,
            reporting_component: self.reporting_controller,
            reporting_instance: self.reporting_instance,
            series: self.series.map(|s| core::EventSeries {
                // None is what the stored words have for zero.
                count: Some(s.count).filter(|count| *count != 0),
                last_observed_time: Some(s.last_observed_time).filter(|time| *time != NEVER),
            }),
            source: self.deprecated_source,
            type_: self.type_,
        }
    }

    fn show(stored: core::Event) -> Event {
        Event {
            metadata: stored.metadata,
            action: stored.action,
            deprecated_count: stored.count,
            deprecated_first_timestamp: stored.first_timestamp,
            deprecated_last_timestamp: stored.last_timestamp,
            deprecated_source: stored.source,
            event_time: stored.event_time,
            note: stored.message,
            reason: stored.reason,
            regarding: Some(stored.involved_object),
            related: stored.related,
            reporting_controller: stored.reporting_component,
            reporting_instance: stored.reporting_instance,
            series: stored.series.map(|s| EventSeries {
                count: s.count.unwrap_or(0),
                last_observed_time: s.last_observed_time.unwrap_or(NEVER),
            }),
            type_: stored.type_,
        }
    }

    fn mend(event: &mut Value) -> bool {
        let Some(series) = event.get_mut("series").and_then(Value::as_object_mut) else { return false };
        let is_missing = series.get("lastObservedTime").is_none_or(Value::is_null);
        if is_missing {
            series.insert("lastObservedTime".to_owned(), serde_json::json!(NEVER));
        }
        is_missing
    }

    fn validate_stored(new: &core::Event, old: Option<&core::Event>, errors: &mut ErrorList) {
        let controller = Path::new("reportingController");
        errors
            .iter_mut()
            .filter(|e| e.field == Path::new("reportingComponent"))
            .for_each(|e| e.field = controller.clone());
        match old {
            None => created(new, errors),
            Some(old) => updated(new, old, errors),
        }
    }
}

/// A time that is not told, where a type has no way to say so.
const NEVER: MicroTime = MicroTime(Timestamp::UNIX_EPOCH);

/// A new event says when it happened, and nothing in the older words.
fn created(event: &core::Event, errors: &mut ErrorList) {
    let name = event.metadata.name.as_deref().unwrap_or("");
    if !name.is_empty() {
        rules::dns_subdomain(name, &Path::new("metadata").child("name"), errors);
    }
    series(event, errors);
    if event.event_time.is_none() {
        errors.push(required(&Path::new("eventTime"), ""));
    }
    let type_ = event.type_.as_deref().unwrap_or("");
    if !matches!(type_, "Normal" | "Warning") {
        errors.push(invalid(&Path::new("type"), "", &format!("has invalid value: {type_}")));
    }
    let has_source = event.source.as_ref().is_some_and(|s| {
        let is_set = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
        is_set(&s.component) || is_set(&s.host)
    });
    for (is_set, field) in [
        (event.first_timestamp.is_some(), "firstTimestamp"),
        (event.last_timestamp.is_some(), "lastTimestamp"),
        (event.count.unwrap_or(0) != 0, "count"),
        (has_source, "source"),
    ] {
        if is_set {
            errors.push(invalid(&Path::new(field), "", "needs to be unset"));
        }
    }
}

/// Only the series of an event goes on.
fn updated(new: &core::Event, old: &core::Event, errors: &mut ErrorList) {
    validate_finalizers(&Event::INFO, &new.metadata, &Path::new("metadata").child("finalizers"), errors);
    if new.series != old.series {
        series(new, errors);
    }
    immutable(&Path::new("involvedObject"), &new.involved_object, &old.involved_object, errors);
    for (field, new, old) in [
        ("reason", &new.reason, &old.reason),
        ("message", &new.message, &old.message),
        ("type", &new.type_, &old.type_),
        ("action", &new.action, &old.action),
        ("reportingController", &new.reporting_component, &old.reporting_component),
        ("reportingInstance", &new.reporting_instance, &old.reporting_instance),
    ] {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        immutable(&Path::new(field), &text(new), &text(old), errors);
    }
    let source = |event: &core::Event| event.source.clone().unwrap_or_default();
    immutable(&Path::new("source"), &source(new), &source(old), errors);
    immutable(&Path::new("firstTimestamp"), &new.first_timestamp, &old.first_timestamp, errors);
    immutable(&Path::new("lastTimestamp"), &new.last_timestamp, &old.last_timestamp, errors);
    immutable(&Path::new("count"), &new.count, &old.count, errors);
    immutable(&Path::new("eventTime"), &new.event_time, &old.event_time, errors);
    immutable(&Path::new("related"), &new.related, &old.related, errors);
}

/// A series has happened more than once.
fn series(event: &core::Event, errors: &mut ErrorList) {
    let Some(series) = &event.series else { return };
    let path = Path::new("series");
    let count = series.count.unwrap_or(0);
    if count < 2 {
        errors.push(invalid(&path.child("count"), "", "should be at least 2"));
    }
    if series.last_observed_time.is_none() {
        errors.push(required(&path.child("lastObservedTime"), ""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::by_kind;

    #[test]
    fn the_same_event_reads_in_both_words() {
        let kind = by_kind("events.k8s.io/v1", "Event").unwrap();
        let newer = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "note": "it was tried", "reason": "Tried", "action": "Try",
            "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "a.b/c", "reportingInstance": "c-1",
            "series": {"count": 3, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}, "type": "Normal",
        });
        let stored = (kind.decode)(newer.to_string().as_bytes()).unwrap().object.encode();
        let older: Value = serde_json::from_slice(&stored).unwrap();
        assert_eq!(
            (&older["apiVersion"], &older["message"], &older["involvedObject"]["name"], &older["reportingComponent"]),
            (&json!("v1"), &json!("it was tried"), &json!("p"), &json!("a.b/c"))
        );
        let shown: Value = serde_json::from_slice(&kind.show(&stored).unwrap()).unwrap();
        let mut expected = newer.clone();
        for always in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
            expected[always] = Value::Null;
        }
        expected["deprecatedSource"] = json!({});
        assert_eq!(shown, expected);
        assert_eq!(kind.stored().info.group, "");
    }

    #[test]
    fn a_series_without_its_last_time_is_read_and_refused() {
        let kind = by_kind("events.k8s.io/v1", "Event").unwrap();
        for series in [json!({"count": 2}), json!({"count": 2, "lastObservedTime": null})] {
            let event = json!({"metadata": {"name": "A_b"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "series": series});
            let decoded = (kind.decode)(event.to_string().as_bytes()).unwrap();
            let mut errors = ErrorList::new();
            (kind.view.unwrap().validate)(&*decoded.object, None, &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert!(
                texts[0].starts_with(r#"metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain"#),
                "{texts:?}"
            );
            assert_eq!(texts[1..], ["series.lastObservedTime: Required value"]);
        }
        let wrong = json!({"metadata": {"name": "a"}, "series": {"lastObservedTime": "soon"}});
        assert!((kind.decode)(wrong.to_string().as_bytes()).is_err());
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_the_request() {
        let event = core::Event { event_time: Some(NEVER), type_: Some("Normal".into()), ..core::Event::default() };
        let mut errors = crate::Object::validate(&event);
        Event::validate_stored(&event, None, &mut errors);
        let fields: Vec<String> = errors.iter().map(|e| e.field.to_string()).collect();
        assert_eq!(fields[..3], ["reportingController"; 3]);
    }

    #[test]
    fn what_is_not_said_is_as_it_was() {
        let old = core::Event {
            source: Some(core::EventSource::default()),
            reporting_component: Some(String::new()),
            ..core::Event::default()
        };
        let mut errors = ErrorList::new();
        Event::validate_stored(&core::Event::default(), Some(&old), &mut errors);
        assert_eq!(errors, []);
    }

    #[test]
    fn newer_events_say_nothing_in_older_words() {
        let event = core::Event { count: Some(1), ..core::Event::default() };
        let mut errors = ErrorList::new();
        Event::validate_stored(&event, None, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "eventTime: Required value",
                r#"type: Invalid value: "": has invalid value: "#,
                r#"count: Invalid value: "": needs to be unset"#,
            ]
        );
    }
}
