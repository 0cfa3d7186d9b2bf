//! Lines of a description: indentation, tabs between columns, the same few forms for labels, dates and lists.

use serde_json::Value;

use crate::{object, tabwriter};

/// Space between columns (`describe.go` upstream).
const PADDING: usize = 2;
/// Longer pairs are cut (`maxAnnotationLen` upstream).
const PAIR_CHARS_MAX: usize = 140;

/// A description in the making.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// A line, two spaces in for each level.
    pub(super) fn line(&mut self, level: usize, line: &str) {
        self.0.push_str(&"  ".repeat(level));
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// `Key:  value`.
    pub(super) fn field(&mut self, level: usize, key: &str, value: impl std::fmt::Display) {
        self.line(level, &format!("{key}:\t{value}"));
    }

    /// `Key:  value` where there is one.
    pub(super) fn field_if(&mut self, level: usize, key: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, key, value);
        }
    }

    /// Name, namespace, and what stands before labels and annotations is the caller's.
    pub(super) fn name(&mut self, object: &Value) {
        self.field(0, "Name", object::name(object));
        if let Some(namespace) = object::namespace(object) {
            self.field(0, "Namespace", namespace);
        }
    }

    /// Labels and annotations.
    pub(super) fn labels(&mut self, level: usize, metadata: &Value) {
        self.pairs(level, "Labels", &metadata["labels"], "=");
        self.annotations(level, &metadata["annotations"]);
    }

    fn annotations(&mut self, level: usize, annotations: &Value) {
        let mut shown = annotations.clone();
        if let Some(fields) = shown.as_object_mut() {
            fields.remove(api::well_known::LAST_APPLIED);
        }
        self.pairs(level, "Annotations", &shown, ": ");
    }

    /// A map, one pair on each line.
    pub(super) fn pairs(&mut self, level: usize, key: &str, map: &Value, between: &str) {
        let pairs = object::pairs(map);
        if pairs.is_empty() {
            return self.field(level, key, "<none>");
        }
        for (i, (name, value)) in pairs.into_iter().enumerate() {
            let title = if i == 0 { format!("{key}:") } else { String::new() };
            let pair = format!("{name}{between}{}", one_line(value));
            if pair.chars().count() > PAIR_CHARS_MAX {
                let cut: String = one_line(value).chars().take(PAIR_CHARS_MAX - 2).collect();
                self.line(level, &format!("{title}\t{name}{}", between.trim_end()));
                self.line(level, &format!("\t  {cut}..."));
            } else {
                self.line(level, &format!("{title}\t{pair}"));
            }
        }
    }

    /// `Conditions` of an object: type and status.
    pub(super) fn conditions(&mut self, object: &Value) {
        let conditions = object::items(object, &["status", "conditions"]);
        if conditions.is_empty() {
            return;
        }
        self.line(0, "Conditions:");
        self.line(1, "Type\tStatus");
        for condition in conditions {
            self.line(
                1,
                &format!("{} \t{} ", object::text(condition, &["type"]), object::text(condition, &["status"])),
            );
        }
    }

    /// Amounts of resources, one on each line.
    pub(super) fn amounts(&mut self, level: usize, key: &str, amounts: &Value) {
        let pairs = object::pairs(amounts);
        if pairs.is_empty() {
            return;
        }
        self.line(level, &format!("{key}:"));
        for (name, amount) in pairs {
            self.field(level + 1, name, amount);
        }
    }

    /// The aligned text.
    pub(super) fn finish(self) -> String {
        tabwriter::align(&self.0, PADDING)
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\t'], " ")
}

/// A timestamp as kubectl writes dates.
pub(super) fn date(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(stamp) => stamp.strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
        Err(_) => "<unset>".to_owned(),
    }
}

/// `ReplicationController/web`.
pub(super) fn controller(object: &Value) -> Option<String> {
    let owners = object::items(object, &["metadata", "ownerReferences"]);
    let owner = owners.iter().find(|o| o["controller"] == true)?;
    Some(format!("{}/{}", object::text(owner, &["kind"]), object::text(owner, &["name"])))
}

/// `True` or `False` as Go prints booleans for people.
pub(super) fn truth(value: &Value) -> &'static str {
    if value == true { "True" } else { "False" }
}
