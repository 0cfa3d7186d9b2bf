//! Asking an API server, and what of its answer is kept: all that is the same each time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use harness::wait::PATIENCE;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Map, Value, json};

use super::steps::Step;

/// The headers that are kept.
const HEADERS: [&str; 6] = ["allow", "content-type", "location", "retry-after", "warning", "www-authenticate"];
/// The type that is not worth a word.
const JSON: &str = "application/json";
/// Fields that hold what is another each time, wherever they are, and what is kept of them.
const FIELDS: [(&str, &str); 7] = [
    ("uid", "<uid>"),
    ("resourceVersion", "<version>"),
    ("clusterIP", "<address>"),
    ("clusterIPs", "<address>"),
    ("continue", "<continue>"),
    ("serverAddress", "<address>"),
    ("token", "<token>"),
];
/// An API server that listens.
pub(super) struct Server {
    client: kube::Client,
}

impl Server {
    pub(super) fn at(address: SocketAddr) -> Result<Server> {
        let mut config = kube::Config::new(format!("https://{address}").parse()?);
        config.accept_invalid_certs = true;
        Ok(Server { client: kube::Client::try_from(config)? })
    }

    /// Sends a step, with what was kept of earlier answers; gives the line that is recorded of it.
    pub(super) async fn ask(&self, step: &Step, kept: &mut BTreeMap<String, String>) -> Value {
        let answer = tokio::time::timeout(PATIENCE, self.send(step, kept)).await;
        let (code, headers, body) =
            answer.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {}", step.name)).unwrap();
        for (name, pointer) in &step.keep {
            let value = body.pointer(pointer).unwrap_or_else(|| panic!("{}: no {pointer} in {body}", step.name));
            kept.insert(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        let body = short(normal(body, "", kept), code);
        let headers = HEADERS.iter().filter_map(|name| Some((*name, values(&headers, name)?)));
        json!({"step": step.name, "code": code, "headers": headers.filter(|(_, value)| value != JSON).collect::<BTreeMap<_, _>>(), "body": body})
    }

    /// Whether it is there and content.
    pub(super) async fn answers(&self, step: &Step) -> bool {
        self.send(step, &BTreeMap::new()).await.is_ok_and(|(code, _, _)| code == 200)
    }

    async fn send(&self, step: &Step, kept: &BTreeMap<String, String>) -> Result<(u16, HeaderMap, Value)> {
        let mut request = Request::builder().method(step.method.as_str()).uri(filled(&step.path, kept));
        for (name, value) in &step.headers {
            request = request.header(name, filled(value, kept));
        }
        let request = request.body(Body::from(filled(&step.body, kept).into_bytes()))?;
        let (parts, mut body) = self.client.send(request).await?.into_parts();
        let mut text = Vec::new();
        while step.events.is_none_or(|wanted| text.iter().filter(|byte| **byte == b'\n').count() < wanted)
            && let Some(frame) = body.frame().await
        {
            text.extend(frame?.into_data().unwrap_or_default());
        }
        let text = String::from_utf8_lossy(&text);
        let read = match step.events {
            Some(_) => text.lines().map(serde_json::from_str::<Value>).collect(),
            None => serde_json::from_str(&text),
        };
        Ok((parts.status.as_u16(), parts.headers, read.unwrap_or_else(|_| json!(text))))
    }
}

/// A refusal without what all refusals have, and without saying its causes twice.
fn short(mut body: Value, code: u16) -> Value {
    let said = caused(&body["details"]["causes"]);
    if let Some(message) = body["message"].as_str().and_then(|message| message.strip_suffix(&said))
        && !said.is_empty()
    {
        body["message"] = json!(format!("{message}..."));
    }
    let usual = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code});
    if let (Value::Object(body), Value::Object(usual)) = (&mut body, &usual)
        && usual.iter().all(|(field, value)| body.get(field) == Some(value))
    {
        body.retain(|field, _| !usual.contains_key(field));
    }
    body
}

/// How a message tells causes: each once.
pub(super) fn caused(causes: &Value) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in causes.as_array().into_iter().flatten() {
        let one = ["field", "message"].map(|field| cause[field].as_str().unwrap_or_default()).join(": ");
        if !told.contains(&one) {
            told.push(one);
        }
    }
    if told.len() > 1 { format!("[{}]", told.join(", ")) } else { told.concat() }
}

fn values(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut all: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    all.sort_unstable();
    (!all.is_empty()).then(|| all.join("\n"))
}

/// A text with `{name}` replaced by what was kept under the name.
fn filled(text: &str, kept: &BTreeMap<String, String>) -> String {
    kept.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// A value without what is another each time; `field` is where it was found.
fn normal(value: Value, field: &str, kept: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(map) => object(map, kept),
        Value::Array(list) => list.into_iter().map(|item| normal(item, field, kept)).collect(),
        Value::String(text) => json!(string(text, field, kept)),
        Value::Number(_) if field.to_ascii_lowercase().ends_with("nodeport") => json!("<port>"),
        other => other,
    }
}

fn object(mut map: Map<String, Value>, kept: &BTreeMap<String, String>) -> Value {
    // What a column means is told in other words, and at length.
    for column in map.get_mut("columnDefinitions").and_then(Value::as_array_mut).into_iter().flatten() {
        column["description"] = Value::Null;
    }
    let generated = map.get("generateName").and_then(Value::as_str).map(str::to_owned);
    if let (Some(start), Some(Value::String(name))) = (generated, map.get_mut("name"))
        && name.len() == start.len() + 5
        && name.starts_with(&start)
    {
        *name = format!("{start}<random>");
    }
    // Discovery is in the order in which Go happens to register things.
    if let Some(Value::Array(resources)) = map.get_mut("resources")
        && resources.iter().all(|resource| resource["verbs"].is_array())
    {
        resources.sort_by_key(|resource| resource["name"].to_string());
    }
    // Those of one second are in no order that means something.
    if let Some(Value::Array(managers)) = map.get_mut("managedFields") {
        managers
            .sort_by_key(|entry| ["manager", "operation", "subresource", "apiVersion"].map(|f| entry[f].to_string()));
    }
    map.into_iter().map(|(name, value)| (name.clone(), normal(value, &name, kept))).collect()
}

fn string(text: String, field: &str, kept: &BTreeMap<String, String>) -> String {
    let is_set = !matches!(text.as_str(), "" | "None" | "0");
    if let Some((_, shown)) = FIELDS.iter().find(|(name, _)| *name == field && is_set) {
        return (*shown).to_owned();
    }
    if text.len() >= 20 && text.ends_with('Z') && text.parse::<k8s_openapi::jiff::Timestamp>().is_ok() && is_now(&text)
    {
        return "<time>".to_owned();
    }
    if field == "cells" && is_age(&text) {
        return "<age>".to_owned();
    }
    // What is known of an object stands in messages, too.
    let known = kept.iter().filter(|(name, value)| *name != "ns" && value.len() > 8);
    known.fold(text, |text, (name, value)| text.replace(value.as_str(), &format!("<{name}>")))
}

/// Whether a cell tells how long ago something was, some minutes at the most.
fn is_age(cell: &str) -> bool {
    let (number, unit) = cell.split_at(cell.find(['s', 'm']).unwrap_or_default());
    !number.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit() || b"sm".contains(&byte)) && !unit.is_empty()
}

/// Whether a time was read from the clock: times in steps are of another year.
fn is_now(text: &str) -> bool {
    let year = k8s_openapi::jiff::Timestamp::now().to_string();
    text.get(..4) == year.get(..4)
}
