//! What is asked: the files below `steps`.
//!
//! A file asks about one thing. It may have
//! - `at`, `object`, `change`: a collection, a good object of its kind and a merge patch for it. All that `life.yaml` asks of
//!   every kind is asked first; `{at}` stands there for the path, `$object` and `$change` for the two values;
//! - `create`: changes to the object, each of which is sent to be created (and is not, `dryRun=All`); `replace`: the same of
//!   an update of what is there;
//! - `steps`: what else there is to ask.
//!
//! A step is `ask: METHOD PATH` with `body` (text is sent as it is), `type` (of the body: `merge`, `apply` ... or a media
//! type), `accept`, `headers`, `as` (a user of `TOKENS`, or `nobody`), and
//! - `with`: the step is asked once for each of these changes to the body, maps of JSON pointers to values; a null removes;
//! - `keep`: names for parts of the answer, `{name: /pointer}`. `{name}` in a later path or body is that;
//! - `events`: how many events of a watch are read, then it is hung up.
//!
//! `{ns}` is the file's own namespace.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A file below `steps`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    at: Option<String>,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    change: Value,
    #[serde(default)]
    create: Vec<Change>,
    #[serde(default)]
    replace: Vec<Change>,
    #[serde(default)]
    steps: Vec<Written>,
}

type Change = Map<String, Value>;

/// A step as it is written.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    ask: String,
    #[serde(default)]
    body: Value,
    #[serde(default)]
    with: Vec<Change>,
    #[serde(default, rename = "type")]
    media_type: String,
    #[serde(default)]
    accept: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, rename = "as")]
    user: String,
    #[serde(default)]
    keep: BTreeMap<String, String>,
    events: Option<usize>,
}

/// One request.
pub(super) struct Step {
    /// What it is called in the recording.
    pub(super) name: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
    /// Parts of the answer that later steps use: names with pointers.
    pub(super) keep: BTreeMap<String, String>,
    /// How many events are read, where it is a watch.
    pub(super) events: Option<usize>,
}

impl Step {
    /// An object to be created by who may do anything.
    pub(super) fn post(path: &str, body: &Value) -> Step {
        Step::new(&Written { ask: format!("POST {path}"), ..Written::default() }, "", body, None)
    }

    /// A question of who may do anything.
    pub(super) fn get(path: &str) -> Step {
        Step::new(&Written { ask: format!("GET {path}"), ..Written::default() }, "", &Value::Null, None)
    }

    fn new(written: &Written, at: &str, body: &Value, change: Option<&Change>) -> Step {
        let (method, path) = written.ask.split_once(' ').expect("METHOD PATH");
        let path = path.replace("{at}", at);
        let user = if written.user.is_empty() { "admin" } else { &written.user };
        let (media_type, accept) = (media_type(&written.media_type), accepted(&written.accept));
        let mut headers = written.headers.clone();
        let mut header = |name: &str, value: &str| headers.entry(name.to_owned()).or_insert(value.to_owned()).clone();
        header("accept", accept);
        header("user-agent", "recorder/1");
        if user != "nobody" {
            header("authorization", &format!("Bearer {user}"));
        }
        let body =
            body.as_str().map_or_else(|| if body.is_null() { String::new() } else { body.to_string() }, str::to_owned);
        if !body.is_empty() {
            header("content-type", media_type);
        }
        let mut name = written.ask.clone();
        for said in [&written.media_type, &written.accept] {
            name.extend((!said.is_empty()).then(|| format!(" {said}")));
        }
        name.extend((user != "admin").then(|| format!(" as {user}")));
        name.extend(change.map(|change| format!(" {}", Value::Object(change.clone()))));
        let (keep, events) = (written.keep.clone(), written.events);
        Step { name, method: method.to_owned(), path, headers, body, keep, events }
    }
}

fn media_type(said: &str) -> &str {
    match said {
        "" => "application/json",
        "yaml" => "application/yaml",
        "json-patch" => "application/json-patch+json",
        "merge" => "application/merge-patch+json",
        "strategic" => "application/strategic-merge-patch+json",
        "apply" => "application/apply-patch+yaml",
        other => other,
    }
}

fn accepted(said: &str) -> &str {
    match said {
        "" => "application/json",
        "table" => "application/json;as=Table;v=v1;g=meta.k8s.io",
        "metadata" => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "metadata-list" => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        other => other,
    }
}

/// All files of a folder by their names, `life.yaml` beside it told for those that are about a kind.
pub(super) fn read(folder: &Path) -> BTreeMap<String, Vec<Step>> {
    let life: Vec<Written> = parsed(&folder.with_file_name("life.yaml"));
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        files.insert(name, steps(parsed(&path), &life));
    }
    files
}

fn parsed<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read(path).unwrap();
    let value = api::yaml::parse_one(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_value(value).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn steps(file: File, life: &[Written]) -> Vec<Step> {
    let at = file.at.clone().unwrap_or_default();
    let each = |ask: &str, with| Written { ask: ask.to_owned(), with, body: file.object.clone(), ..Written::default() };
    let mut all = if file.at.is_some() { life.to_vec() } else { Vec::new() };
    if !file.create.is_empty() {
        all.push(each("POST {at}?dryRun=All", file.create));
    }
    if !file.replace.is_empty() {
        let mut there = each("PUT {at}/live?dryRun=All", file.replace);
        set(&mut there.body, "/metadata/name", &"live".into());
        all.push(there);
    }
    all.extend(file.steps);
    let mut steps = Vec::new();
    for mut written in all {
        let mut body = std::mem::take(&mut written.body);
        for (name, value) in [("$object", &file.object), ("$change", &file.change)] {
            if body == name {
                body = value.clone();
            }
        }
        for change in &written.with {
            let mut changed = body.clone();
            change.iter().for_each(|(pointer, value)| set(&mut changed, pointer, value));
            steps.push(Step::new(&written, &at, &changed, Some(change)));
        }
        if written.with.is_empty() {
            steps.push(Step::new(&written, &at, &body, None));
        }
    }
    steps
}

/// Puts a value at a pointer, making the objects on the way; a null takes away what is there.
fn set(object: &mut Value, pointer: &str, value: &Value) {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        *object = value.clone();
        return;
    };
    if object.pointer(parent).is_none_or(Value::is_null) {
        set(object, parent, &Value::Object(Map::new()));
    }
    let key = key.replace("~1", "/").replace("~0", "~");
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) if value.is_null() => drop(map.remove(&key)),
        Some(Value::Object(map)) => drop(map.insert(key, value.clone())),
        Some(Value::Array(list)) if value.is_null() => drop(list.remove(key.parse().unwrap())),
        Some(Value::Array(list)) if key == "-" => list.push(value.clone()),
        Some(Value::Array(list)) => list[key.parse::<usize>().unwrap()] = value.clone(),
        _ => panic!("{pointer} leads nowhere"),
    }
}
