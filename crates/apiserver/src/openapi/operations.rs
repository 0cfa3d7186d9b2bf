//! The paths of a kind and what can be done there, under upstream's names (`registerResourceHandlers` and
//! `getOperationIDAndTags` in `k8s.io/apiserver`).

use api::{KindInfo, Scope, Subresource, Verb};
use serde_json::{Map, Value, json};

use super::schemas::{STATUS, list_of, name_of};

/// Which OpenAPI.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

impl Form {
    /// A reference to a schema of the document.
    fn refer(self, schema: &str) -> Value {
        let place = if self == Form::V3 { "#/components/schemas" } else { "#/definitions" };
        json!({"$ref": format!("{place}/{schema}")})
    }
}

const BODIES: &[&str] = &["application/json", "application/yaml"];
const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const SELECTION: &[&str] =
    &["continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch"];
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
const DELETING: &[&str] = &["dryRun", "gracePeriodSeconds", "propagationPolicy"];
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
            let named = ["namespace", "name"].iter().filter(|name| path.contains(&format!("{{{name}}}")));
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
    for sub in info.subresources {
        let verbs = sub.info().verbs.iter();
        let operations = verbs.map(|verb| (method(*verb), below(info, schema, form, *sub, *verb)));
        add(format!("{item}/{}", sub.as_str()), operations.collect());
    }
    paths
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
        Verb::Delete => (DELETING, form.refer(STATUS)),
        Verb::DeleteCollection => (SELECTION, form.refer(STATUS)),
        Verb::Get => (&["resourceVersion"][..], object.clone()),
    };
    let place = if info.scope == Scope::Namespaced && !of_all { "Namespaced" } else { "" };
    let collection = if verb == Verb::DeleteCollection { "Collection" } else { "" };
    let all = if of_all { "ForAllNamespaces" } else { "" };
    let id = format!("{}{}{collection}{place}{}{all}", does(verb), title(info), info.kind);
    let body = match verb {
        Verb::Create | Verb::Update => Some((BODIES, object)),
        Verb::Patch => Some((PATCH_TYPES, json!({"type": "object"}))),
        _ => None,
    };
    let kind = (info.group, info.version, info.kind);
    Operation { id, action: action(verb), kind, options, body, answer: ("application/json", answer) }.show(form)
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
        let (kind, answer) = (sub.speaks(info), ("*/*", text));
        return Operation { id, action: "connect", kind, options, body: None, answer }.show(form);
    }
    let spoken = sub.info().speaks.map(name_of);
    let object = form.refer(spoken.as_deref().unwrap_or(schema));
    let (options, answer) = match verb {
        Verb::Get if sub == Subresource::Log => (LOGS, ("text/plain", text)),
        Verb::Get => (&["resourceVersion"][..], ("application/json", object.clone())),
        Verb::Patch => (PATCHING, ("application/json", object.clone())),
        _ => (WRITING, ("application/json", object.clone())),
    };
    let body = match verb {
        Verb::Create | Verb::Update => Some((BODIES, object)),
        Verb::Patch => Some((PATCH_TYPES, json!({"type": "object"}))),
        _ => None,
    };
    let id = format!("{}{}{place}", does(verb), title(info));
    Operation { id, action: action(verb), kind: sub.speaks(info), options, body, answer }.show(form)
}

/// What is said of an operation in either form.
struct Operation<'a> {
    id: String,
    action: &'a str,
    kind: (&'a str, &'a str, &'a str),
    options: &'a [&'a str],
    /// Media types and schema.
    body: Option<(&'a [&'a str], Value)>,
    /// Media type and schema.
    answer: (&'a str, Value),
}

impl Operation<'_> {
    fn show(self, form: Form) -> Value {
        let options = self.options.iter().map(|name| parameter(form, name, "query", type_of(name), false));
        let mut parameters: Vec<Value> = options.collect();
        let (group, version, kind) = self.kind;
        let mut shown = json!({
            "operationId": self.id,
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let (media_type, schema) = self.answer;
        let answer = match form {
            Form::V3 => json!({"description": "OK", "content": {media_type: {"schema": schema}}}),
            Form::V2 => {
                shown["produces"] = json!([media_type]);
                json!({"description": "OK", "schema": schema})
            }
        };
        shown["responses"] = json!({"200": answer});
        match (self.body, form) {
            (Some((types, schema)), Form::V3) => {
                let content = types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema})));
                shown["requestBody"] = json!({"content": content.collect::<Map<_, _>>(), "required": true});
            }
            (Some((types, schema)), Form::V2) => {
                shown["consumes"] = json!(types);
                parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
            }
            (None, _) => {}
        }
        shown["parameters"] = json!(parameters);
        shown
    }
}

/// `CoreV1`, `DiscoveryV1`, `RbacAuthorizationV1`.
fn title(info: &KindInfo) -> String {
    let group = info.group.strip_suffix(".k8s.io").unwrap_or(info.group);
    let group = if group.is_empty() { "core" } else { group };
    group.split('.').map(capital).chain([capital(info.version)]).collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn type_of(parameter: &str) -> &'static str {
    match parameter {
        "limit" | "gracePeriodSeconds" | "limitBytes" | "sinceSeconds" | "tailLines" | "timeoutSeconds" | "ports" => {
            "integer"
        }
        "allowWatchBookmarks"
        | "follow"
        | "force"
        | "insecureSkipTLSVerifyBackend"
        | "previous"
        | "sendInitialEvents"
        | "stderr"
        | "stdin"
        | "stdout"
        | "timestamps"
        | "tty"
        | "watch" => "boolean",
        _ => "string",
    }
}

fn parameter(form: Form, name: &str, place: &str, type_: &str, required: bool) -> Value {
    let mut parameter = json!({"name": name, "in": place});
    if required {
        parameter["required"] = json!(true);
    }
    match form {
        Form::V3 => parameter["schema"] = json!({"type": type_, "uniqueItems": true}),
        Form::V2 => {
            parameter["type"] = json!(type_);
            parameter["uniqueItems"] = json!(true);
        }
    }
    parameter
}
