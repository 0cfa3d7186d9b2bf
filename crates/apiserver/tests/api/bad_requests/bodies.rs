//! Bodies and media types that are not what a verb wants.

use api::KindInfo;
use serde_json::{Value, json};

use super::derive::with;
use super::garbage::*;
use super::request::*;

/// What is no `DeleteOptions`.
pub(super) fn options(path: &str, chance: &mut Chance) -> Vec<Bad> {
    // Should something be taken for options, at least nothing is deleted.
    let dry = format!("{path}?dryRun=All");
    let delete = |sentence: String| Bad::new("DELETE", &dry, sentence);
    let mut bad = Vec::new();
    // Unknown fields are no concern of who deletes, whatever is in them.
    let unknown = ["a number beyond all", "a long number", "no UTF-8 in a string"];
    for (sentence, body) in bodies().into_iter().filter(|(s, body)| !body.is_empty() && !unknown.contains(s)) {
        bad.push(delete(format!("the options are {sentence}")).body(body).codes(&[400]));
    }
    for (sentence, body) in yaml_bodies() {
        bad.push(delete(format!("the options are {sentence}")).header("content-type", YAML).body(body).codes(&[400]));
    }
    let wrong = [
        ("gracePeriodSeconds", vec![json!("x"), json!(1.5), json!(1e30), json!({}), json!([]), json!(true)]),
        ("preconditions", vec![json!("x"), json!([]), json!({"uid": 7}), json!({"resourceVersion": 7})]),
        ("propagationPolicy", vec![json!(7), json!("Sometimes"), json!({}), json!([]), json!("background")]),
        ("orphanDependents", vec![json!("x"), json!(1), json!({})]),
        ("dryRun", vec![json!("All"), json!([7]), json!(["Some"]), json!({}), json!(["All", "Some"]), json!(true)]),
        ("kind", vec![json!("Pod"), json!(7)]),
        // They are the same in every group and version.
        ("apiVersion", vec![json!(7), json!("no/such/version")]),
    ];
    for (field, values) in wrong {
        bad.extend(values.iter().map(|value| {
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", field: value});
            delete(format!("{field} is {value}")).json(&options).codes(&[400, 422])
        }));
    }
    let both = json!({"orphanDependents": true, "propagationPolicy": "Orphan"});
    bad.push(delete("both ways to say what becomes of dependents".into()).json(&both).codes(&[422]));
    let queries = [
        "dryRun=x",
        "propagationPolicy=x",
        "gracePeriodSeconds=x",
        "gracePeriodSeconds=1.5",
        "orphanDependents=true&propagationPolicy=Orphan",
    ];
    bad.extend(queries.iter().map(|query| Bad::new("DELETE", format!("{dry}&{query}"), *query).codes(&[400, 422])));
    bad.extend(
        MEDIA_TYPES
            .iter()
            .map(|t| delete(format!("options in {t}")).header("content-type", t).body("{}").codes(&[415])),
    );
    bad.push(delete("too much".into()).body(vec![b' '; TOO_MUCH]).codes(&[413]));
    let plain =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 5, "dryRun": ["All"]}).to_string();
    bad.extend(
        (0..DAMAGES).map(|_| Bad::new("DELETE", &dry, "damaged").body(chance.damage(plain.as_bytes())).damaged()),
    );
    bad
}

/// Bodies that are not what a POST or PUT wants, around an object that would be.
pub(super) fn bodies_for(
    method: &'static str,
    path: &str,
    object: &Value,
    info: &KindInfo,
    chance: &mut Chance,
) -> Vec<Bad> {
    let text = object.to_string();
    let request = |sentence: String| Bad::new(method, path, sentence);
    let mut bad = Vec::new();
    bad.extend(
        bodies().into_iter().map(|(sentence, body)| request(format!("{sentence} as JSON")).body(body).codes(&[400])),
    );
    for (sentence, body) in yaml_bodies() {
        bad.push(request(format!("{sentence} as YAML")).header("content-type", YAML).body(body).codes(&[400]));
    }
    bad.extend(
        MEDIA_TYPES
            .iter()
            .map(|t| request(format!("in {t}")).header("content-type", t).body(text.clone()).codes(&[415])),
    );
    bad.extend(not_acceptable(method, path).into_iter().map(|b| b.body(text.clone())));
    bad.push(request("too much".into()).body(vec![b' '; TOO_MUCH]).codes(&[413]));
    bad.extend((0..20).map(|_| {
        let end = chance.below(text.len());
        request(format!("cut off after {end} bytes")).body(&text.as_bytes()[..end]).codes(&[400])
    }));
    let claims = [
        ("kind", "Nothing"),
        ("kind", "Status"),
        ("kind", "List"),
        ("apiVersion", "v0"),
        ("apiVersion", "a/b/c"),
        ("apiVersion", "apps/v1"),
    ];
    for (field, value) in claims {
        let object = with(object, &format!("/{field}"), json!(value));
        bad.push(request(format!("{field} {value}")).json(&object).codes(&[400]));
    }
    if info.is_stored() {
        let twice = text.replacen('{', r#"{"metadata":{},"#, 1);
        let strict = format!("{path}?fieldValidation=Strict");
        bad.push(Bad::new(method, strict, "metadata twice").body(twice).codes(&[400]));
    }
    let queries = [
        "dryRun=x",
        "dryRun=All&dryRun=x",
        "fieldValidation=x",
        "fieldManager=%0A",
        &format!("fieldManager={}", "x".repeat(200)),
    ];
    bad.extend(
        queries
            .iter()
            .map(|query| Bad::new(method, format!("{path}?{query}"), *query).body(text.clone()).codes(&[400, 422])),
    );
    let dry = format!("{path}?dryRun=All");
    bad.extend((0..DAMAGES).map(|_| Bad::new(method, &dry, "damaged").body(chance.damage(text.as_bytes())).damaged()));
    bad
}

pub(super) fn damaged_bodies(media_type: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut damaged = bodies();
    match media_type {
        // An empty list of operations is one; so is a list that holds an object, but for the operation.
        JSON_PATCH => damaged.retain(|(sentence, _)| *sentence != "an empty list"),
        APPLY => damaged.extend(yaml_bodies()),
        _ => {}
    }
    // Numbers of any length are numbers, and unknown fields only earn a warning.
    damaged.retain(|(sentence, _)| !matches!(*sentence, "a long number"));
    damaged
}

pub(super) fn json_patches() -> Vec<Value> {
    let many = vec![json!({"op": "test", "path": "/kind", "value": "x"}); 10_001];
    vec![
        json!([{}]),
        json!([{"op": "add"}]),
        json!([{"op": "fly", "path": "/a"}]),
        json!([{"op": 7, "path": "/a"}]),
        json!([{"op": "add", "path": 7, "value": 1}]),
        json!([{"op": "add", "path": "a", "value": 1}]),
        json!([{"op": "add", "path": "/a/b/c/d", "value": 1}]),
        json!([{"op": "add", "path": "/metadata/~2", "value": 1}]),
        json!([{"op": "remove", "path": "/nothing"}]),
        json!([{"op": "remove", "path": ""}]),
        json!([{"op": "replace", "path": "/nothing/here", "value": 1}]),
        json!([{"op": "replace", "path": "", "value": 7}]),
        json!([{"op": "replace", "path": "", "value": null}]),
        json!([{"op": "replace", "path": "/metadata", "value": []}]),
        json!([{"op": "replace", "path": "/kind", "value": "Nothing"}]),
        json!([{"op": "test", "path": "/kind", "value": "Nothing"}]),
        json!([{"op": "move", "from": "/nothing", "path": "/a"}]),
        json!([{"op": "move", "path": "/a"}]),
        json!([{"op": "move", "from": "/metadata", "path": "/metadata/labels"}]),
        json!([{"op": "copy", "from": "/nothing", "path": "/a"}]),
        json!([{"op": "add", "path": "/metadata/finalizers/5", "value": "a/b"}]),
        json!([{"op": "add", "path": "/metadata/finalizers/99999999999999999999", "value": "a/b"}]),
        json!([{"op": "add", "path": "/".repeat(300), "value": 1}]),
        json!(many),
        json!({"op": "add", "path": "/a", "value": 1}),
        json!("x"),
    ]
}

pub(super) fn not_acceptable(method: &'static str, path: &str) -> Vec<Bad> {
    let refused = [
        "text/html",
        "image/png",
        "application/vnd.kubernetes.protobuf",
        "application/cbor",
        "application/json;as=Nothing;g=meta.k8s.io;v=v1",
    ];
    let bad =
        |accept: &&str| Bad::new(method, path, format!("accepting {accept}")).header("accept", accept).codes(&[406]);
    refused.iter().map(bad).collect()
}
