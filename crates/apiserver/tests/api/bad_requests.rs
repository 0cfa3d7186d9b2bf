//! Requests that should not have been made, hundreds for every verb of every kind in the table: derived from a valid object
//! and the kind's published schema, damaged by chance, and recorded. Each is answered with a `Status` that says whose fault
//! it is, and nothing is written.
//!
//! Chance is seeded: `BAD_REQUESTS_SEED=<what a failure prints>` makes the same requests again.

mod bodies;
mod derive;
mod fields;
mod garbage;
mod places;
mod recorded;
mod request;

use std::collections::BTreeMap;

use api::{Kind, Scope, Subresource, Verb};
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::common::*;
use crate::examples::examples;
use apiserver::User;
use derive::{Target, mutated};
use garbage::Chance;
use request::Bad;

/// Fewer than this for a verb, and the test is not worth its name.
const ENOUGH: usize = 100;
/// How many objects with one field changed by chance are sent for each kind.
const MUTATIONS: usize = 40;

/// What the server made of a request.
async fn ask(server: &Server, bad: &Bad) -> Answer {
    let mut request = Request::builder().method(bad.method).uri(&bad.path);
    for (name, value) in &bad.headers {
        request = request.header(*name, value);
    }
    let request = request.body(Body::from(bad.body.clone())).unwrap();
    let response = server.api.service_as(User::master("admin")).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    // A watch that should not have begun would not end.
    let text = match parts.status.is_success() {
        true => String::new(),
        false => String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned(),
    };
    Answer { code: parts.status.as_u16(), headers: parts.headers, text }
}

/// What is wrong with an answer to a bad request.
fn complaint(bad: &Bad, answer: &Answer) -> Option<String> {
    if bad.may_succeed && (200..300).contains(&answer.code) {
        return None;
    }
    let wanted =
        if bad.codes.is_empty() { (400..500).contains(&answer.code) } else { bad.codes.contains(&answer.code) };
    if !wanted {
        return Some(format!("{} is not one of {:?}", answer.code, bad.codes));
    }
    // What is below nothing that is served has no Status.
    if answer.code == 404 && answer.text == "404 page not found\n" {
        return None;
    }
    let Ok(status) = serde_json::from_str::<Value>(&answer.text) else { return Some("not JSON".into()) };
    let says = |field: &str, value: Value| (status[field] != value).then(|| format!("{field} is not {value}"));
    let about_an_object = matches!(answer.code, 404 | 409 | 422);
    says("kind", json!("Status"))
        .or_else(|| says("apiVersion", json!("v1")))
        .or_else(|| says("status", json!("Failure")))
        .or_else(|| says("code", json!(answer.code)))
        .or_else(|| (!reasons(answer.code).contains(&status["reason"].as_str()?)).then(|| "another reason".into()))
        .or_else(|| status["message"].as_str().is_none_or(str::is_empty).then(|| "no message".into()))
        .or_else(|| (about_an_object && !status["details"].is_object()).then(|| "no details".into()))
}

fn reasons(code: u16) -> &'static [&'static str] {
    match code {
        400 => &["BadRequest"],
        403 => &["Forbidden"],
        404 => &["NotFound"],
        405 => &["MethodNotAllowed"],
        406 => &["NotAcceptable"],
        409 => &["Conflict", "AlreadyExists"],
        410 => &["Expired"],
        413 => &["RequestEntityTooLarge"],
        415 => &["UnsupportedMediaType"],
        422 => &["Invalid"],
        _ => &[],
    }
}

/// Where objects of a kind are.
fn collection(kind: &Kind) -> String {
    let info = kind.info;
    let root = if info.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", info.group) };
    let place = if info.scope == Scope::Namespaced { "/namespaces/default" } else { "" };
    format!("{root}/{}{place}/{}", info.version, info.plural)
}

fn example_of(kind: &Kind) -> Value {
    let mut all = examples().into_iter();
    let (version, name) = (kind.info.api_version(), kind.info.kind);
    let mut example = all.find(|e| e["apiVersion"] == version && e["kind"] == name).expect("every kind has an example");
    if example["metadata"].is_null() {
        example["metadata"] = json!({});
    }
    example
}

/// Asks everything wrong of one kind; gives the complaints, and how much was asked of each verb.
async fn try_kind(server: &Server, kind: &'static Kind, chance: &mut Chance) -> (Vec<String>, BTreeMap<String, usize>) {
    let info = kind.info;
    let document = server.get(&format!("/openapi/v3{}", root(kind))).await.json();
    let fields = fields::of_kind(&document, info);
    let mut new = example_of(kind);
    let mut live = Value::Null;
    if info.is_stored() {
        new["metadata"]["name"] = json!("live");
        live = server.create(&collection(kind), &new).await;
        new["metadata"]["name"] = json!("new");
    }
    let target = Target { info, collection: collection(kind), new, live, fields: &fields };
    let mut bad: Vec<(String, Bad)> = Vec::new();
    for verb in info.verbs {
        bad.extend(target.verb(*verb, chance).into_iter().map(|b| (verb.as_str().to_owned(), b)));
    }
    for sub in info.subresources.iter().filter(|sub| !sub.connects()) {
        for verb in sub.info().verbs {
            let label = format!("{} {}", verb.as_str(), sub.as_str());
            let spoken = server.get(&format!("{}/{}", target.path(), sub.as_str())).await;
            let requests = match sub.info().speaks {
                // What is spoken there is another kind's object, which is read there too.
                Some(_) if spoken.code == 200 => {
                    let (live, new) = (spoken.json(), target.new.clone());
                    let (fields, collection) = (fields::of_value(&live), target.collection.clone());
                    Target { info, collection, new, live, fields: &fields }.sub(*sub, *verb, chance)
                }
                _ => target.sub(*sub, *verb, chance),
            };
            bad.extend(requests.into_iter().map(|b| (label.clone(), b)));
        }
    }
    for _ in 0..MUTATIONS {
        if info.can(Verb::Create) {
            bad.push(("create".into(), mutated(&target, &target.new, "POST", &target.collection, chance)));
        }
        if info.can(Verb::Update) {
            bad.push(("update".into(), mutated(&target, &target.live, "PUT", &target.path(), chance)));
        }
        if info.has(Subresource::Status) {
            let path = format!("{}/status", target.path());
            bad.push(("update status".into(), mutated(&target, &target.live, "PUT", &path, chance)));
        }
    }
    let mut asked = BTreeMap::new();
    let mut complaints = Vec::new();
    let before = server.store.revision().await.unwrap();
    for (label, bad) in bad {
        let answer = ask(server, &bad).await;
        if !(200..300).contains(&answer.code) {
            *asked.entry(label.clone()).or_default() += 1;
        }
        if let Some(complaint) = complaint(&bad, &answer) {
            let text: String = answer.text.chars().take(300).collect();
            complaints.push(format!("{} {label}: {}: {complaint}: {} {text}", info.kind, bad.sentence, answer.code));
        }
    }
    if server.store.revision().await.unwrap() != before {
        complaints.push(format!("{}: something was written", info.kind));
    }
    if info.is_stored() && server.get(&target.path()).await.json() != target.live {
        complaints.push(format!("{}: what was there is not as it was", info.kind));
    }
    if server.get("/version").await.code != 200 {
        complaints.push(format!("{}: the server does not answer any more", info.kind));
    }
    (complaints, asked)
}

/// `/api/v1`, `/apis/discovery.k8s.io/v1`.
fn root(kind: &Kind) -> String {
    let path = collection(kind);
    let depth = if kind.info.group.is_empty() { 2 } else { 3 };
    path.split('/').take(depth + 1).collect::<Vec<_>>().join("/")
}

/// Whether a verb must have been asked for in a hundred wrong ways: of what is only read there is less to be said.
fn is_much_asked(kind: &Kind, label: &str) -> bool {
    kind.info.is_stored() || label == Verb::Create.as_str()
}

/// Chance as the environment wants it, or another one each time; the seed is printed with a failure.
fn seed() -> u64 {
    let given = std::env::var("BAD_REQUESTS_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(rand::random)
}

async fn bad_requests_of(kinds: impl Iterator<Item = &'static Kind>) {
    let seed = seed();
    println!("BAD_REQUESTS_SEED={seed}");
    let mut complaints = Vec::new();
    for kind in kinds {
        // It writes of its own accord where this takes minutes.
        let server = Server::start_with(|config| config.compaction_interval = None).await;
        let (mut said, asked) = try_kind(&server, kind, &mut Chance::new(seed)).await;
        for (label, count) in &asked {
            if *count < ENOUGH && is_much_asked(kind, label) {
                said.push(format!("{} {label}: only {count} were refused", kind.info.kind));
            }
        }
        complaints.extend(said);
    }
    let count = complaints.len();
    complaints.truncate(200);
    assert!(complaints.is_empty(), "BAD_REQUESTS_SEED={seed}: {count} complaints\n{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_for_kinds_of_the_core_are_refused_with_a_status() {
    bad_requests_of(api::kinds().filter(|kind| kind.info.group.is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_for_kinds_of_other_groups_are_refused_with_a_status() {
    bad_requests_of(api::kinds().filter(|kind| !kind.info.group.is_empty())).await;
}
