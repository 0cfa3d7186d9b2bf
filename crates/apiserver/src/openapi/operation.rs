//! How an operation is said in either form of OpenAPI.

use api::KindInfo;
use serde_json::{Map, Value, json};

/// Which OpenAPI.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

impl Form {
    /// A reference to a schema of the document.
    pub(super) fn refer(self, schema: &str) -> Value {
        let place = if self == Form::V3 { "#/components/schemas" } else { "#/definitions" };
        json!({"$ref": format!("{place}/{schema}")})
    }
}

/// What is said of an operation in either form.
pub(super) struct Operation<'a> {
    /// Of which kind's objects it is.
    pub(super) info: &'a KindInfo,
    pub(super) id: String,
    pub(super) action: &'a str,
    pub(super) kind: (&'a str, &'a str, &'a str),
    pub(super) options: &'a [&'a str],
    /// Media types and schema.
    pub(super) body: Option<(&'a [&'a str], Value)>,
    /// Media types and schema.
    pub(super) answer: (&'a [&'a str], Value),
    /// How success is told.
    pub(super) codes: &'a [&'a str],
}

/// What each code says (`http.StatusText`).
fn says(code: &str) -> &'static str {
    match code {
        "201" => "Created",
        "202" => "Accepted",
        "401" => "Unauthorized",
        _ => "OK",
    }
}

impl Operation<'_> {
    /// As the document says it.
    pub(super) fn show(self, form: Form) -> Value {
        let options = self.options.iter().map(|name| parameter(form, name, "query", type_of(name), false));
        let mut parameters: Vec<Value> = options.collect();
        let (group, version, kind) = self.kind;
        let mut shown = json!({
            "operationId": self.id,
            "description": described(self.action, kind),
            "tags": [tag(self.info)],
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let (media_types, schema) = self.answer;
        if form == Form::V2 {
            shown["produces"] = json!(media_types);
            shown["schemes"] = json!(["https"]);
        }
        for code in self.codes {
            shown["responses"][code] = match form {
                Form::V3 => json!({"description": says(code), "content": in_each(media_types, &schema)}),
                Form::V2 => json!({"description": says(code), "schema": schema}),
            };
        }
        shown["responses"]["401"] = json!({"description": says("401")});
        // Whoever deletes says how only if it matters.
        let required = !matches!(self.action, "delete" | "deletecollection");
        match (self.body, form) {
            (Some((types, schema)), Form::V3) => {
                shown["requestBody"] = json!({"content": in_each(types, &schema), "required": required});
            }
            (Some((types, schema)), Form::V2) => {
                shown["consumes"] = json!(types);
                parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
            }
            (None, _) => {}
        }
        shown["parameters"] = json!(parameters);
        shown
    }
}

/// What it does. Of the paths that are for watches only upstream says what to use instead of them.
fn described(action: &str, kind: &str) -> String {
    const INSTEAD: &str = "deprecated: use the 'watch' parameter with a list operation instead";
    match action {
        "watchlist" => format!("watch individual changes to a list of {kind}. {INSTEAD}."),
        "watch" => format!(
            "watch changes to an object of kind {kind}. {INSTEAD}, filtered to a single item with the 'fieldSelector' \
             parameter."
        ),
        _ => format!("{action} {kind}"),
    }
}

fn in_each(media_types: &[&str], schema: &Value) -> Map<String, Value> {
    media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({"schema": schema}))).collect()
}

/// `CoreV1`, `DiscoveryV1`, `RbacAuthorizationV1`.
pub(super) fn title(info: &KindInfo) -> String {
    group(info).chain([capital(info.version)]).collect()
}

/// `core_v1`, `discovery_v1`, `rbacAuthorization_v1`: by which generated clients are called.
fn tag(info: &KindInfo) -> String {
    let group: String = group(info).collect();
    let (first, rest) = group.split_at(1);
    format!("{}{rest}_{}", first.to_ascii_lowercase(), info.version)
}

/// `Core`, `Discovery`, `Rbac` and `Authorization`.
fn group(info: &KindInfo) -> impl Iterator<Item = String> {
    let group = info.group.strip_suffix(".k8s.io").unwrap_or(info.group);
    let group = if group.is_empty() { "core" } else { group };
    group.split('.').map(capital)
}

pub(super) fn capital(text: &str) -> String {
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
        | "orphanDependents"
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

pub(super) fn parameter(form: Form, name: &str, place: &str, type_: &str, required: bool) -> Value {
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
