//! Replication controllers.

use serde_json::Value;

use super::pod::describe_template;
use super::text::Text;
use crate::object::{joined_pairs, text as at};

/// `pods` are those that the selector finds.
pub(super) fn describe(text: &mut Text, rc: &Value, pods: &[Value]) {
    text.name(rc);
    text.field(0, "Selector", joined_pairs(&rc["spec"]["selector"]));
    text.labels(0, &rc["metadata"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let (current, desired) = (number(&rc["status"]["replicas"]), number(&rc["spec"]["replicas"]));
    text.field(0, "Replicas", format!("{current} current / {desired} desired"));
    let count = |phase: &str| pods.iter().filter(|p| at(p, &["status", "phase"]) == phase).count();
    text.field(
        0,
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            count("Running"),
            count("Pending"),
            count("Succeeded"),
            count("Failed")
        ),
    );
    describe_template(text, &rc["spec"]["template"]);
    text.conditions(rc);
}
