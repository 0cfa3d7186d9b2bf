//! Verbs against a small server in this process: what is sent, what is printed, what is said.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use clap::{CommandFactory, Parser};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kctl::cli::run_verb;
use kctl::session::Session;
use kctl::{Cli, Console};
use kube::client::Body;
use serde_json::{Value, json};

type Store = Arc<std::sync::Mutex<Server>>;

/// Objects by path, and the requests that changed something.
#[derive(Default)]
struct Server {
    objects: std::collections::BTreeMap<String, Value>,
    writes: Vec<String>,
}

#[derive(Clone, Default)]
struct Buffer(Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The answer to one request.
fn answer(server: &mut Server, method: &Method, path: &str, query: &str, table: bool, body: &Value) -> (u16, Value) {
    let row = |name: &str, singular: &str, kind: &str, short: &str, namespaced: bool| {
        json!({"name": name, "singularName": singular, "kind": kind, "shortNames": [short], "namespaced": namespaced,
               "categories": ["all"], "verbs": ["get", "list"]})
    };
    match path {
        "/api" => return (200, json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => return (200, json!({"kind": "APIGroupList", "groups": []})),
        "/version" => return (200, json!({"gitVersion": "v1.35.0+coracle.0.1.0"})),
        "/api/v1" => {
            let resources = [
                row("pods", "pod", "Pod", "po", true),
                row("replicationcontrollers", "replicationcontroller", "ReplicationController", "rc", true),
                row("services", "service", "Service", "svc", true),
                row("nodes", "node", "Node", "no", false),
            ];
            return (200, json!({"kind": "APIResourceList", "resources": resources}));
        }
        _ => {}
    }
    let object_path = path.strip_suffix("/scale").unwrap_or(path);
    let known = server.objects.get(object_path).cloned();
    if *method != Method::GET {
        server.writes.push(format!("{method} {path}{} {body}", if query.contains("dryRun") { "?dryRun" } else { "" }));
    }
    let not_found = || {
        let (rest, name) = path.rsplit_once('/').unwrap();
        let resource = rest.rsplit('/').next().unwrap();
        json!({"kind": "Status", "reason": "NotFound", "code": 404, "message": format!("{resource} \"{name}\" not found")})
    };
    match (method.as_str(), known) {
        ("GET", Some(object)) if table => (200, as_table(vec![object])),
        ("GET", Some(object)) => (200, object),
        ("GET", None) => {
            let below: Vec<Value> = server
                .objects
                .iter()
                .filter(|(p, _)| p.strip_prefix(&format!("{path}/")).is_some_and(|name| !name.contains('/')))
                .map(|(_, o)| o.clone())
                .collect();
            let is_list = ["pods", "services", "replicationcontrollers", "nodes", "events", "endpointslices"];
            match is_list.iter().any(|l| path.ends_with(l)) {
                true if table => (200, as_table(below)),
                true => (200, json!({"kind": "List", "metadata": {"resourceVersion": "7"}, "items": below})),
                false => (404, not_found()),
            }
        }
        ("POST", _) => {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            let exists = server.objects.contains_key(&path);
            if exists {
                let message = format!("pods \"{}\" already exists", body["metadata"]["name"].as_str().unwrap());
                return (409, json!({"kind": "Status", "reason": "AlreadyExists", "message": message}));
            }
            server.objects.insert(path, body.clone());
            (201, body.clone())
        }
        (_, None) => (404, not_found()),
        ("DELETE", Some(_)) => {
            server.objects.remove(path);
            (200, json!({"kind": "Status", "status": "Success", "details": {"uid": "u"}}))
        }
        (_, Some(object)) => (200, object),
    }
}

fn as_table(objects: Vec<Value>) -> Value {
    let row = |o: &Value| json!({"cells": [o["metadata"]["name"], "5m"], "object": {"metadata": o["metadata"]}});
    json!({"kind": "Table", "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}],
           "rows": objects.iter().map(row).collect::<Vec<_>>()})
}

/// A session with a server that has these objects (path after the namespace, labels).
fn server(objects: &[(&str, Value)]) -> (Session, Store) {
    let store = Store::default();
    for (path, object) in objects {
        let full = format!("/api/v1/namespaces/default/{path}");
        store.lock().unwrap().objects.insert(full, object.clone());
    }
    let shared = store.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let shared = shared.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let table = parts.headers.get("accept").is_some_and(|a| a.to_str().unwrap().contains("as=Table"));
            let query = parts.uri.query().unwrap_or("").to_owned();
            let (code, value) =
                answer(&mut shared.lock().unwrap(), &parts.method, parts.uri.path(), &query, table, &body);
            let mut response = Response::builder().status(code);
            if let Some(said) = body["metadata"]["annotations"]["said"].as_str() {
                response = response.header("warning", format!("299 - \"{said}\""));
            }
            let body = Full::new(Bytes::from(value.to_string()));
            Ok::<_, Infallible>(response.body(body).unwrap())
        }
    });
    (Session::new(kube::Client::new(service, "default"), "default"), store)
}

/// Runs a command line: what it printed, and what it said.
async fn kctl(session: &Session, line: &str, input: &str) -> (String, String) {
    let words = std::iter::once("kctl").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap();
    let (out, err) = (Buffer::default(), Buffer::default());
    let input = std::io::Cursor::new(input.as_bytes().to_vec());
    let mut console = Console { out: Box::new(out.clone()), err: Box::new(err.clone()), input: Box::new(input) };
    if let Err(error) = run_verb(&cli.verb, session, &mut console).await {
        console.note(&error.to_string());
    }
    (out.text(), err.text())
}

fn object(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind,
           "metadata": {"name": name, "namespace": "default", "uid": "u", "labels": {"app": "a"}, "resourceVersion": "5"},
           "spec": {"replicas": 2, "selector": {"app": "a"}}})
}

#[test]
fn flags_do_not_contradict_each_other() {
    Cli::command().debug_assert();
}

#[tokio::test]
async fn what_the_server_says_beside_its_answers_is_told_once() {
    let pod = |name: &str, said: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {"said": said}}})
            .to_string()
    };
    let all = [pod("a", "old"), pod("b", "old"), pod("x", "older")].join("\n---\n");
    let (session, _) = server(&[("pods/x", object("Pod", "x"))]);
    let (out, err) = kctl(&session, "create -f -", &all).await;
    assert_eq!(out, "pod/a created\npod/b created\n");
    let refused = "Error from server (AlreadyExists): error when creating \"STDIN\": pods \"x\" already exists\n";
    assert_eq!(err, format!("Warning: old\nWarning: older\n{refused}"), "also beside a refusal");
}

#[tokio::test]
async fn each_command_prints_and_says_what_kubectl_would() {
    let objects = [
        ("pods/x", object("Pod", "x")),
        ("pods/longer", object("Pod", "longer")),
        ("replicationcontrollers/web", object("ReplicationController", "web")),
    ];
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"new"}}"#;
    let old = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}"#;
    for (line, input, out, err) in [
        ("get pods", "", "NAME     AGE\nlonger   5m\nx        5m\n", ""),
        ("get pod x", "", "NAME   AGE\nx      5m\n", ""),
        ("get pods x nope", "", "NAME   AGE\nx      5m\n", "Error from server (NotFound): pods \"nope\" not found\n"),
        ("get svc", "", "", "No resources found in default namespace.\n"),
        ("get nodes", "", "", "No resources found\n"),
        (
            "get po,rc",
            "",
            "NAME         AGE\npod/longer   5m\npod/x        5m\n\nNAME                        AGE\nreplicationcontroller/web   5m\n",
            "",
        ),
        ("get pods -o name", "", "pod/longer\npod/x\n", ""),
        ("get pods -o jsonpath={.items[*].metadata.name}", "", "longer x", ""),
        ("get pod x -o jsonpath={.metadata.name}", "", "x", ""),
        ("get pods --no-headers --show-labels", "", "longer   5m    app=a\nx        5m    app=a\n", ""),
        ("get pod nope --ignore-not-found", "", "", ""),
        ("get --raw /version", "", "{\"gitVersion\":\"v1.35.0+coracle.0.1.0\"}", ""),
        ("get --raw /version pods", "", "", "error: arguments may not be passed when --raw is specified\n"),
        ("get --raw /version -o json", "", "", "error: --raw and --output are mutually exclusive\n"),
        ("get --raw version", "", "", "error: --raw must be a valid URL path: \"version\"\n"),
        (
            "get --raw /version -w",
            "",
            "",
            "error: --raw may not be specified with other flags that filter the server request or alter the output\n",
        ),
        ("get nonsense", "", "", "error: the server doesn't have a resource type \"nonsense\"\n"),
        ("create -f -", pod, "pod/new created\n", ""),
        (
            "create -f -",
            old,
            "",
            "Error from server (AlreadyExists): error when creating \"STDIN\": pods \"x\" already exists\n",
        ),
        ("create -f - --dry-run=client", pod, "pod/new created (dry run)\n", ""),
        ("create -f - -o name", pod, "pod/new\n", ""),
        ("create -f /nowhere", "", "", "error: the path \"/nowhere\" does not exist\n"),
        ("delete pod x --wait=false", "", "pod \"x\" deleted\n", ""),
        ("delete pod x nope", "", "pod \"x\" deleted\n", "Error from server (NotFound): pods \"nope\" not found\n"),
        ("delete pods --all", "", "pod \"longer\" deleted\npod \"x\" deleted\n", ""),
        ("delete pod x --dry-run=server", "", "pod \"x\" deleted (server dry run)\n", ""),
        ("scale rc web --replicas=3", "", "replicationcontroller/web scaled\n", ""),
        ("scale rc web --replicas=3 --current-replicas=9", "", "", "error: Expected replicas to be 9, was 2\n"),
        ("run p --image=i", "", "pod/p created\n", ""),
        ("expose rc web --port=80", "", "service/web exposed\n", ""),
        ("expose rc web", "", "", "error: couldn't find port via --port flag or introspection\n"),
        ("label pod x app=b", "", "", "error: 'app' already has a value (a), and --overwrite is false\n"),
        ("label pod x app=b --overwrite", "", "pod/x labeled\n", ""),
        ("label pod x app-", "", "pod/x unlabeled\n", ""),
        ("annotate pod x note=1", "", "pod/x annotated\n", ""),
        ("version", "", "Client Version: v0.1.0\nServer Version: v1.35.0+coracle.0.1.0\n", ""),
        ("api-versions", "", "v1\n", ""),
    ] {
        let (session, _) = server(&objects);
        assert_eq!(kctl(&session, line, input).await, (out.to_owned(), err.to_owned()), "{line}");
    }
}

#[tokio::test]
async fn writes_carry_what_was_asked_for() {
    let objects =
        [("pods/x", object("Pod", "x")), ("replicationcontrollers/web", object("ReplicationController", "web"))];
    for (line, expected) in [
        (
            "delete pod x --wait=false --grace-period=5",
            vec!["\"gracePeriodSeconds\":5", "\"propagationPolicy\":\"Background\""],
        ),
        ("delete pod x --wait=false --force --grace-period=0", vec!["\"gracePeriodSeconds\":0"]),
        (
            "delete pod x --wait=false --now --cascade=orphan",
            vec!["\"gracePeriodSeconds\":1", "\"propagationPolicy\":\"Orphan\""],
        ),
        (
            "scale rc/web --replicas=5",
            vec!["PATCH /api/v1/namespaces/default/replicationcontrollers/web/scale", "{\"spec\":{\"replicas\":5}}"],
        ),
        ("label pod x app-", vec!["PATCH", "\"app\":null", "\"resourceVersion\":\"5\""]),
        (
            "run p --image=i --env=A=b --port=80 --command -- sh -c x",
            vec!["\"command\":[\"sh\",\"-c\",\"x\"]", "\"containerPort\":80", "{\"name\":\"A\",\"value\":\"b\"}"],
        ),
        (
            "expose rc web --port=80 --target-port=http --type=NodePort",
            vec!["\"targetPort\":\"http\"", "\"type\":\"NodePort\"", "\"selector\":{\"app\":\"a\"}"],
        ),
    ] {
        let (session, store) = server(&objects);
        let said = kctl(&session, line, "").await;
        let writes = store.lock().unwrap().writes.join("\n");
        assert!(expected.iter().all(|part| writes.contains(part)), "{line}: {writes:?} {said:?}");
    }
}

#[tokio::test]
async fn a_client_dry_run_writes_nothing() {
    let (session, store) = server(&[("pods/x", object("Pod", "x"))]);
    for line in [
        "run p --image=i --dry-run=client -o json",
        "delete pod x --dry-run=client",
        "label pod x b=c --dry-run=client",
    ] {
        kctl(&session, line, "").await;
    }
    assert_eq!(store.lock().unwrap().writes, Vec::<String>::new());
}
