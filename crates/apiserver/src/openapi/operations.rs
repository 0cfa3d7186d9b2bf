//! The paths of a kind and what can be done there, under upstream's names (`registerResourceHandlers` and
//! `getOperationIDAndTags` in `k8s.io/apiserver`).

use api::{KindInfo, Scope, Subresource, Verb};
use serde_json::{Map, Value, json};

use super::operation::{Form, Operation, capital, parameter, title};
use super::schemas::{DELETE_OPTIONS, STATUS, WATCH_EVENT, list_of, name_of};
use crate::verbs::delete::shows_what_is_gone;

const BODIES: &[&str] = &["application/json", "application/yaml"];
/// What a list is answered in, as it may also be a watch.
const LISTS: &[&str] = &["application/json", "application/yaml", "application/json;stream=watch"];
/// Application first, which not every kind has.
const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

fn patch_types(info: &KindInfo) -> &'static [&'static str] {
    let can_be_applied = api::kinds::by_kind(&info.api_version(), info.kind).is_none_or(|kind| kind.view.is_none());
    if can_be_applied { PATCH_TYPES } else { &PATCH_TYPES[1..] }
}
const DELETING_SEVERAL: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
];
const LISTING: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const WRITING: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCHING: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETING: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const LOGS: &[&str] = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "tailLines",
    "timestamps",
];
const COMMAND: &[&str] = &["command", "container", "stderr", "stdin", "stdout", "tty"];

/// `api/v1` or `apis/discovery.k8s.io/v1`.
pub(super) fn root(info: &KindInfo) -> String {
    if info.group.is_empty() {
        format!("api/{}", info.version)
    } else {
        format!("apis/{}/{}", info.group, info.version)
    }
}

/// The path items of a kind, whose schema has this name.
pub(super) fn paths(info: &KindInfo, schema: &str, form: Form) -> Map<String, Value> {
    let (root, is_namespaced) = (root(info), info.scope == Scope::Namespaced);
    let namespace = if is_namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{root}{namespace}/{}", info.plural);
    let item = format!("{collection}/{{name}}");
    let mut paths = Map::new();
    let mut add = |path: String, operations: Vec<(&str, Value)>| {
        if !operations.is_empty() {
            let mut path_item: Map<_, _> = operations.into_iter().map(|(m, o)| (m.to_owned(), o)).collect();
            let named = ["namespace", "name", "path"].iter().filter(|name| path.contains(&format!("{{{name}}}")));
            let named: Vec<_> = named.map(|name| parameter(form, name, "path", "string", true)).collect();
            path_item.insert("parameters".to_owned(), json!(named));
            paths.insert(path, Value::Object(path_item));
        }
    };
    let of = |verbs: &[Verb]| {
        let served = verbs.iter().filter(|verb| info.can(**verb));
        served.map(|verb| (method(*verb), operation(info, schema, form, *verb, false))).collect::<Vec<_>>()
    };
    if is_namespaced && info.can(Verb::List) {
        add(format!("/{root}/{}", info.plural), vec![("get", operation(info, schema, form, Verb::List, true))]);
    }
    add(collection, of(&[Verb::List, Verb::Create, Verb::DeleteCollection]));
    add(item.clone(), of(&[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete]));
    for (path, operation) in watches(info, form) {
        add(path, vec![("get", operation)]);
    }
    for sub in info.subresources {
        let verbs = sub.info().verbs.iter();
        let operations = verbs.map(|verb| (method(*verb), below(info, schema, form, *sub, *verb)));
        let operations: Vec<_> = operations.collect();
        let path = format!("{item}/{}", sub.as_str());
        if *sub == Subresource::Proxy {
            let with_path = operations.iter().map(|(method, operation)| {
                let id = format!("{}WithPath", operation["operationId"].as_str().unwrap_or_default());
                let mut operation = operation.clone();
                operation["operationId"] = json!(id);
                (*method, operation)
            });
            add(format!("{path}/{{path}}"), with_path.collect());
        }
        add(path, operations);
    }
    paths
}

/// The paths that are for watches only: of all objects, of those of a namespace, of one.
fn watches(info: &KindInfo, form: Form) -> Vec<(String, Value)> {
    if !info.can(Verb::Watch) {
        return Vec::new();
    }
    let (all, plural) = (format!("/{}/watch", root(info)), info.plural);
    let (namespace, place) = match info.scope {
        Scope::Namespaced => ("/namespaces/{namespace}", "Namespaced"),
        Scope::Cluster => ("", ""),
    };
    let watch = |action, place, what| {
        let id = format!("watch{}{place}{}{what}", title(info), info.kind);
        let (kind, answer) = ((info.group, info.version, info.kind), (LISTS, form.refer(WATCH_EVENT)));
        Operation { info, id, action, kind, options: LISTING, body: None, answer, codes: &["200"] }.show(form)
    };
    let mut watches = vec![
        (format!("{all}{namespace}/{plural}"), watch("watchlist", place, "List")),
        (format!("{all}{namespace}/{plural}/{{name}}"), watch("watch", place, "")),
    ];
    if info.scope == Scope::Namespaced {
        watches.push((format!("{all}/{plural}"), watch("watchlist", "", "ListForAllNamespaces")));
    }
    watches
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Get | Verb::List | Verb::Watch => "get",
        Verb::Create => "post",
        Verb::Update => "put",
        Verb::Patch => "patch",
        Verb::Delete | Verb::DeleteCollection => "delete",
    }
}

/// How an operation's name begins.
fn does(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "read",
        Verb::List | Verb::Watch => "list",
        Verb::Create => "create",
        Verb::Update => "replace",
        Verb::Patch => "patch",
        Verb::Delete | Verb::DeleteCollection => "delete",
    }
}

/// What upstream calls the action.
fn action(verb: Verb) -> &'static str {
    if verb == Verb::DeleteCollection {
        "deletecollection"
    } else if verb == Verb::List {
        "list"
    } else {
        method(verb)
    }
}

/// An operation on objects, or on those of all namespaces.
fn operation(info: &KindInfo, schema: &str, form: Form, verb: Verb, of_all: bool) -> Value {
    let object = form.refer(schema);
    let (options, answer) = match verb {
        Verb::List | Verb::Watch => (LISTING, form.refer(&list_of(schema))),
        Verb::Create | Verb::Update => (WRITING, object.clone()),
        Verb::Patch => (PATCHING, object.clone()),
        Verb::Delete if shows_what_is_gone(info) => (DELETING, object.clone()),
        Verb::Delete => (DELETING, form.refer(STATUS)),
        Verb::DeleteCollection => (DELETING_SEVERAL, form.refer(STATUS)),
        Verb::Get => (&["resourceVersion"][..], object.clone()),
    };
    let place = if info.scope == Scope::Namespaced && !of_all { "Namespaced" } else { "" };
    let collection = if verb == Verb::DeleteCollection { "Collection" } else { "" };
    let all = if of_all { "ForAllNamespaces" } else { "" };
    let id = format!("{}{}{collection}{place}{}{all}", does(verb), title(info), info.kind);
    let body = match verb {
        Verb::Delete | Verb::DeleteCollection => Some((BODIES, form.refer(DELETE_OPTIONS))),
        _ => body(info, verb, object),
    };
    let kind = (info.group, info.version, info.kind);
    let answer = (if verb == Verb::List { LISTS } else { BODIES }, answer);
    Operation { info, id, action: action(verb), kind, options, body, answer, codes: codes(verb) }.show(form)
}

/// What an object is written with.
fn body(info: &KindInfo, verb: Verb, object: Value) -> Option<(&'static [&'static str], Value)> {
    match verb {
        Verb::Create | Verb::Update => Some((BODIES, object)),
        Verb::Patch => Some((patch_types(info), json!({"type": "object"}))),
        _ => None,
    }
}

/// With which codes an operation that succeeds is answered.
fn codes(verb: Verb) -> &'static [&'static str] {
    match verb {
        Verb::Create => &["200", "201", "202"],
        Verb::Update | Verb::Patch => &["200", "201"],
        Verb::Delete => &["200", "202"],
        _ => &["200"],
    }
}

/// An operation below an object.
fn below(info: &KindInfo, schema: &str, form: Form, sub: Subresource, verb: Verb) -> Value {
    let name: String = match sub {
        Subresource::EphemeralContainers => "Ephemeralcontainers".to_owned(),
        Subresource::PortForward => "Portforward".to_owned(),
        other => capital(other.as_str()),
    };
    let place = if info.scope == Scope::Namespaced { "Namespaced" } else { "" };
    let place = format!("{place}{}{name}", info.kind);
    let text = json!({"type": "string"});
    if sub.connects() {
        let options = match sub {
            Subresource::PortForward => &["ports"][..],
            Subresource::Proxy => &["path"],
            Subresource::Attach => &COMMAND[1..],
            _ => COMMAND,
        };
        let id = format!("connect{}{}{place}", title(info), capital(method(verb)));
        let (kind, answer) = (sub.speaks(info), (&["*/*"][..], text));
        return Operation { info, id, action: "connect", kind, options, body: None, answer, codes: &["200"] }
            .show(form);
    }
    let spoken = sub.info().speaks.map(name_of);
    let object = form.refer(spoken.as_deref().unwrap_or(schema));
    let (options, answer) = match verb {
        Verb::Get if sub == Subresource::Log => (LOGS, (&["text/plain"][..], text)),
        Verb::Get => (&["resourceVersion"][..], (BODIES, object.clone())),
        Verb::Patch => (PATCHING, (BODIES, object.clone())),
        _ => (WRITING, (BODIES, object.clone())),
    };
    let body = body(info, verb, object);
    let id = format!("{}{}{place}", does(verb), title(info));
    let (action, kind) = (action(verb), sub.speaks(info));
    Operation { info, id, action, kind, options, body, answer, codes: codes(verb) }.show(form)
}
