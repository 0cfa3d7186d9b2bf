//! How an answer may differ from what was recorded: `differences.yaml`, each entry with its reason.
//!
//! Entries are in four lists: `newer` (Kubernetes itself has changed since), `meant` (it is another on purpose, as docs/api.md
//! says), `chance` (what neither promises), `defects` (what is wrong here, until it is put right). An entry is
//! - `was`, `now`: words of texts, wherever they are; the recorded text with all of these replaced is as good; or
//! - `at`: a JSON pointer into the line of an answer, with `real` and `ours`: what is there (`absent` where nothing is); or
//! - without `at`, the answer as a whole: `real` and `ours` are `CODE MESSAGE`.
//!
//! `step` says of which steps (`FILE STEP`). In all of them `*` stands for anything, and what is left out is anything. One that
//! explains nothing any more fails the test.
//!
//! Of a refusal with causes the message is not compared where the causes differ, as it says them again; where the code is
//! another, nothing else is.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::answer::caused;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    newer: Vec<Rule>,
    meant: Vec<Rule>,
    chance: Vec<Rule>,
    defects: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The reason.
    why: String,
    #[serde(default = "anything")]
    step: String,
    at: Option<String>,
    #[serde(default = "anything")]
    real: String,
    #[serde(default = "anything")]
    ours: String,
    was: Option<String>,
    #[serde(default)]
    now: String,
    #[serde(skip)]
    used: bool,
}

fn anything() -> String {
    "*".to_owned()
}

/// Where a refusal says why.
const CAUSES: &str = "/body/details/causes";

pub(super) struct Differences {
    rules: Vec<Rule>,
}

impl Differences {
    pub(super) fn read(path: &Path) -> Differences {
        let value = api::yaml::parse_one(&std::fs::read(path).unwrap()).unwrap();
        let Lists { newer, meant, chance, defects } = serde_json::from_value(value).unwrap();
        Differences { rules: newer.into_iter().chain(meant).chain(chance).chain(defects).collect() }
    }

    /// Where an answer is another than recorded without a reason, and how.
    pub(super) fn unexplained(&mut self, file: &str, recorded: &Value, ours: &Value) -> Vec<(String, String)> {
        if recorded == ours {
            return Vec::new();
        }
        let step = format!("{file} {}", ours["step"].as_str().unwrap_or_default());
        let (real_summary, our_summary) = (summary(recorded), summary(ours));
        if self.rule(&step, None, &real_summary, &our_summary) {
            return Vec::new();
        }
        let line = |at: &str, real: &str, ours: &str| {
            (at.to_owned(), format!("{step}\n  {at}\n    real: {real}\n    ours: {ours}"))
        };
        if recorded["code"] != ours["code"] {
            return vec![line("/code", &real_summary, &our_summary)];
        }
        let mut found = Vec::new();
        walk(String::new(), Some(recorded), Some(ours), &mut found);
        if found.iter().any(|(at, _, _)| at.starts_with(CAUSES)) {
            found.retain(|(at, _, _)| at != "/body/message");
        }
        found.retain(|(pointer, real, ours)| {
            !self.reworded(*real, *ours) && !self.rule(&step, Some(pointer), &shown(*real), &shown(*ours))
        });
        found.iter().map(|(at, real, ours)| line(at, &shown(*real), &shown(*ours))).collect()
    }

    fn rule(&mut self, step: &str, pointer: Option<&String>, real: &str, ours: &str) -> bool {
        let is_it = |rule: &&mut Rule| {
            let place = match (&rule.at, pointer) {
                (None, None) => rule.was.is_none(),
                (Some(at), Some(pointer)) => matches(at, pointer),
                _ => false,
            };
            place && matches(&rule.step, step) && matches(&rule.real, real) && matches(&rule.ours, ours)
        };
        let found = self.rules.iter_mut().find(is_it);
        found.map(|rule| rule.used = true).is_some()
    }

    /// Whether a text is the recorded one in today's words.
    fn reworded(&mut self, real: Option<&Value>, ours: Option<&Value>) -> bool {
        let (Some(Value::String(real)), Some(Value::String(ours))) = (real, ours) else { return false };
        let (mut text, mut by) = (real.clone(), Vec::new());
        for (number, rule) in self.rules.iter().enumerate() {
            if let Some(was) = rule.was.as_ref().filter(|was| text.contains(*was)) {
                text = text.replace(was, &rule.now);
                by.push(number);
            }
        }
        let same = text == *ours;
        by.into_iter().filter(|_| same).for_each(|number| self.rules[number].used = true);
        same
    }

    /// The entries that explained nothing.
    pub(super) fn stale(&self) -> Vec<String> {
        self.rules.iter().filter(|rule| !rule.used).map(|rule| format!("{}: {rule:?}", rule.why)).collect()
    }
}

fn summary(line: &Value) -> String {
    let (body, code) = (&line["body"], &line["code"]);
    let message = body["message"].as_str().unwrap_or_default();
    match message.strip_suffix("...") {
        Some(message) => format!("{code} {message}{}", caused(&body["details"]["causes"])),
        None => format!("{code} {message}"),
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

type Found<'a> = (String, Option<&'a Value>, Option<&'a Value>);

/// The places where two values differ, as deep as both go.
fn walk<'a>(pointer: String, real: Option<&'a Value>, ours: Option<&'a Value>, found: &mut Vec<Found<'a>>) {
    let below = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
    match (real, ours) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let only = b.keys().filter(|key| !a.contains_key(*key));
            a.keys().chain(only).for_each(|key| walk(below(key), a.get(key), b.get(key), found));
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if pointer == CAUSES => {
            // Their order is that of a map of Go, and one more or less is no reason to compare all that follow. What is
            // wrong twice, as upstream validates a new object and then the step to it, may be told once.
            let (a, b) = (without(a, b), without(b, a));
            (0..a.len().max(b.len()))
                .for_each(|n| walk(below(&n.to_string()), a.get(n).copied(), b.get(n).copied(), found));
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            (0..a.len().max(b.len())).for_each(|n| walk(below(&n.to_string()), a.get(n), b.get(n), found));
        }
        _ if real == ours => {}
        _ => found.push((pointer, real, ours)),
    }
}

/// The items of one list that are not in another, each once, in a fixed order.
fn without<'a>(list: &'a [Value], other: &[Value]) -> Vec<&'a Value> {
    let mut rest: Vec<&Value> = list.iter().filter(|item| !other.contains(item)).collect();
    rest.sort_by_key(|item| item.to_string());
    rest.dedup();
    rest
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    let Some(mut text) = text.strip_suffix(end) else { return false };
    parts.into_iter().all(|part| match text.find(part) {
        Some(place) => {
            text = &text[place + part.len()..];
            true
        }
        None => false,
    })
}
