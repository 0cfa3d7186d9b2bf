//! The paths of a kind and what can be done there.

use api::{KindInfo, Scope, Verb};
use serde_json::{Map, Value, json};

/// Which OpenAPI.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

const PATCH_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// `api/v1` or `apis/discovery.k8s.io/v1`.
pub(super) fn root(info: &KindInfo) -> String {
    if info.group.is_empty() {
        format!("api/{}", info.version)
    } else {
        format!("apis/{}/{}", info.group, info.version)
    }
}

/// The path items of a kind; `reference` is where its schema is.
pub(super) fn paths(info: &KindInfo, reference: &str, form: Form) -> Map<String, Value> {
    let root = root(info);
    let namespace = if info.scope == Scope::Namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{root}{namespace}/{}", info.plural);
    let item = format!("{collection}/{{name}}");
    let operation = |action, options: &[&str], body| operation(info, form, reference, action, options, body);
    let named = |name: &str| parameter(form, name, "path", "string", true);
    let mut in_collection = vec![];
    if !namespace.is_empty() {
        in_collection.push(named("namespace"));
    }
    let mut in_item = in_collection.clone();
    in_item.push(named("name"));
    let selection = ["continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch"];
    let writing = ["dryRun", "fieldManager", "fieldValidation"];
    let body: &[&str] = &["application/json", "application/yaml"];
    let patch_options = ["dryRun", "fieldManager", "fieldValidation", "force"];
    let delete_options = ["dryRun", "gracePeriodSeconds", "propagationPolicy"];
    let of_collection = [
        (Verb::List, "get", operation("list", &selection, None)),
        (Verb::Create, "post", operation("post", &writing, Some(body))),
        (Verb::DeleteCollection, "delete", operation("deletecollection", &selection, None)),
    ];
    let of_item = [
        (Verb::Get, "get", operation("get", &["resourceVersion"], None)),
        (Verb::Update, "put", operation("put", &writing, Some(body))),
        (Verb::Patch, "patch", operation("patch", &patch_options, Some(&PATCH_TYPES))),
        (Verb::Delete, "delete", operation("delete", &delete_options, None)),
    ];
    let mut paths = Map::new();
    for (path, parameters, operations) in
        [(collection, in_collection, of_collection.to_vec()), (item, in_item, of_item.to_vec())]
    {
        let served = operations.into_iter().filter(|(verb, ..)| info.can(*verb));
        let mut path_item: Map<_, _> = served.map(|(_, method, operation)| (method.to_owned(), operation)).collect();
        if !path_item.is_empty() {
            path_item.insert("parameters".to_owned(), json!(parameters));
            paths.insert(path, Value::Object(path_item));
        }
    }
    paths
}

fn operation(
    info: &KindInfo,
    form: Form,
    reference: &str,
    action: &str,
    options: &[&str],
    body: Option<&[&str]>,
) -> Value {
    let mut parameters: Vec<Value> =
        options.iter().map(|name| parameter(form, name, "query", kind_of(name), false)).collect();
    let schema = json!({"$ref": reference});
    let answer = match form {
        Form::V3 => json!({"description": "OK", "content": {"application/json": {"schema": schema}}}),
        Form::V2 => json!({"description": "OK", "schema": schema}),
    };
    let mut operation = json!({
        "operationId": format!("{action}{}{}", title(info), info.kind),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": info.group, "version": info.version, "kind": info.kind},
        "responses": {"200": answer},
    });
    let body_schema = if action == "patch" { json!({"type": "object"}) } else { schema };
    match (body, form) {
        (Some(types), Form::V3) => {
            let content = types.iter().map(|t| ((*t).to_owned(), json!({"schema": body_schema})));
            operation["requestBody"] = json!({"content": content.collect::<Map<_, _>>(), "required": true});
        }
        (Some(types), Form::V2) => {
            operation["consumes"] = json!(types);
            parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": body_schema}));
        }
        (None, _) => {}
    }
    operation["parameters"] = json!(parameters);
    operation
}

/// `CoreV1`, `DiscoveryV1`.
fn title(info: &KindInfo) -> String {
    let capital = |text: &str| {
        let mut chars = text.chars();
        chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    let group = info.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    format!("{}{}", capital(group), capital(info.version))
}

fn kind_of(parameter: &str) -> &'static str {
    match parameter {
        "limit" | "gracePeriodSeconds" => "integer",
        "force" => "boolean",
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
