//! Makes `src/merge_keys.txt`: which lists of which types merge by which key.
//!
//! The types and the JSON names of their fields come from the schemas of `k8s-openapi`; the markers (`+patchMergeKey`,
//! `+patchStrategy`, `+listType`, `+listMapKey`, `+mapType`, `+structType`) from the comments of the `k8s-pb` crate of the
//! same Kubernetes version, whose unpacked source is the only argument:
//!
//! ```text
//! cargo run -p api --example merge_keys -- ~/.cargo/registry/src/*/k8s-pb-0.9.0/src > crates/api/src/merge_keys.txt
//! ```
//!
//! Left out is what merging does anyway: maps merge key by key, lists are replaced.

#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// An error here is a sentence for the developer who runs the tool.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Directories of `k8s-pb` and the prefix of the types in them.
const MODULES: &[(&str, &str)] = &[
    ("api/core/v1", "core.v1"),
    ("api/apps/v1", "apps.v1"),
    ("api/batch/v1", "batch.v1"),
    ("api/certificates/v1", "certificates.v1"),
    ("api/coordination/v1", "coordination.v1"),
    ("api/discovery/v1", "discovery.v1"),
    ("api/events/v1", "events.v1"),
    ("api/rbac/v1", "rbac.v1"),
    ("api/scheduling/v1", "scheduling.v1"),
    ("apimachinery/pkg/apis/meta/v1", "meta.v1"),
];

/// Go embeds these fields, so in JSON their own fields stand where they would.
const EMBEDDED: &[(&str, &str)] = &[
    ("core.v1.Volume", "volumesource"),
    ("core.v1.PersistentVolumeSpec", "persistentvolumesource"),
    ("core.v1.EphemeralContainer", "ephemeralcontainercommon"),
    ("core.v1.Probe", "handler"),
];

fn main() -> Result<()> {
    let Some(source) = std::env::args().nth(1) else { return Err("usage: merge_keys <source of k8s-pb>".into()) };
    let mut markers = Markers::default();
    for (directory, prefix) in MODULES {
        markers.read(prefix, &std::fs::read_to_string(Path::new(&source).join(directory).join("mod.rs"))?);
    }
    let schemas = schemas();
    let table = Table { schemas: &schemas, markers: &markers };
    println!("# Made by crates/api/examples/merge_keys.rs from k8s-openapi 0.29 and k8s-pb 0.9; do not edit.");
    for (name, schema) in &schemas {
        let lines = table.lines(name, schema);
        let atomic = markers.atomic_types.contains(name);
        if atomic || !lines.is_empty() {
            println!("{name}{}", if atomic { " atomic" } else { "" });
            lines.iter().for_each(|line| println!("  {line}"));
        }
    }
    Ok(())
}

/// Markers by type and by field name in lower case without underscores (case is lost in `k8s-pb`).
#[derive(Default)]
struct Markers {
    fields: BTreeMap<(String, String), Vec<(String, String)>>,
    atomic_types: BTreeSet<String>,
    embedded: BTreeMap<String, Vec<String>>,
}

impl Markers {
    /// Reads one generated module, line by line: comments gather markers, the next item takes them.
    fn read(&mut self, prefix: &str, text: &str) {
        let (mut pending, mut current) = (Vec::new(), String::new());
        for line in text.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("///") {
                let marker = comment.trim().strip_prefix('+').and_then(|m| m.split_once('='));
                pending.extend(marker.map(|(key, value)| (key.to_owned(), value.to_owned())));
            } else if let Some(rest) = line.strip_prefix("pub struct ") {
                current = format!("{prefix}.{}", rest.trim_end_matches([' ', '{', '}']));
                if pending.drain(..).any(|(key, value)| key == "structType" && value == "atomic") {
                    self.atomic_types.insert(current.clone());
                }
            } else if let Some((name, of)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(':')) {
                let name = normalized(name.trim_start_matches("r#"));
                if EMBEDDED.contains(&(&current, &name)) {
                    let of = of.trim_end_matches(['>', ',']).rsplit(['<', ':']).next().unwrap_or("");
                    self.embedded.entry(current.clone()).or_default().push(format!("{prefix}.{of}"));
                }
                self.fields.insert((current.clone(), name), std::mem::take(&mut pending));
            }
        }
    }

    fn of(&self, type_name: &str, field: &str) -> &[(String, String)] {
        let found = |t: &str| self.fields.get(&(t.to_owned(), normalized(field))).map(Vec::as_slice);
        let embedded = || self.embedded.get(type_name).into_iter().flatten().find_map(|t| found(t));
        found(type_name).or_else(embedded).unwrap_or_default()
    }
}

fn normalized(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

struct Table<'a> {
    schemas: &'a BTreeMap<String, Value>,
    markers: &'a Markers,
}

impl Table<'_> {
    /// `name type flags` for every field that merges in its own way or leads to one that does.
    fn lines(&self, type_name: &str, schema: &Value) -> Vec<String> {
        let fields = schema["properties"].as_object().into_iter().flatten();
        fields.filter_map(|(name, property)| self.line(type_name, name, property)).collect()
    }

    fn line(&self, type_name: &str, field: &str, property: &Value) -> Option<String> {
        let flags = self.flags(type_name, field, property);
        let of = reference(property).filter(|of| self.matters(of, &mut BTreeSet::new()));
        if flags.is_empty() && of.is_none() {
            return None;
        }
        Some([&[field.to_owned(), of.unwrap_or_else(|| "-".to_owned())], flags.as_slice()].concat().join(" "))
    }

    /// Whether the type or one below it has anything to say.
    fn matters(&self, type_name: &str, seen: &mut BTreeSet<String>) -> bool {
        let Some(schema) = self.schemas.get(type_name) else { return false };
        if self.markers.atomic_types.contains(type_name) {
            return true;
        }
        if !seen.insert(type_name.to_owned()) {
            return false;
        }
        let fields = schema["properties"].as_object().into_iter().flatten();
        fields.into_iter().any(|(name, property)| {
            !self.flags(type_name, name, property).is_empty()
                || reference(property).is_some_and(|of| self.matters(&of, seen))
        })
    }

    fn flags(&self, type_name: &str, field: &str, property: &Value) -> Vec<String> {
        let markers = self.markers.of(type_name, field);
        let mut flags: Vec<String> = Vec::new();
        for strategy in get(markers, "patchStrategy").split(',').filter(|s| !s.is_empty()) {
            let key = get(markers, "patchMergeKey");
            flags.push(if strategy == "merge" && !key.is_empty() {
                format!("merge={key}")
            } else {
                strategy.to_owned()
            });
        }
        match get(markers, "listType") {
            "map" => flags.push(format!("map={}", self.list_keys(markers, property).join(","))),
            "set" => flags.push("set".to_owned()),
            _ => {}
        }
        if get(markers, "mapType") == "atomic" || get(markers, "structType") == "atomic" {
            flags.push("atomic".to_owned());
        }
        if get(markers, "structType") == "granular" {
            flags.push("granular".to_owned());
        }
        flags
    }

    /// The keys of a list, with the values they have where an element leaves them out: `protocol=TCP`.
    fn list_keys(&self, markers: &[(String, String)], property: &Value) -> Vec<String> {
        let of = reference(property).unwrap_or_default();
        let keys = markers.iter().filter(|(k, _)| k == "listMapKey").map(|(_, key)| key);
        keys.map(|key| match self.markers.of(&of, key).iter().find(|(k, _)| k == "default") {
            Some((_, default)) => format!("{key}={}", default.trim_matches('"')),
            None => key.clone(),
        })
        .collect()
    }
}

fn get<'a>(markers: &'a [(String, String)], key: &str) -> &'a str {
    markers.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
}

/// The type a property, its items or its values refer to.
fn reference(property: &Value) -> Option<String> {
    match property {
        Value::Object(map) => match map.get("$ref").and_then(Value::as_str) {
            Some(target) => Some(short_name(target.rsplit('/').next()?)),
            None => map.iter().filter(|(key, _)| *key != "description").find_map(|(_, v)| reference(v)),
        },
        Value::Array(list) => list.iter().find_map(reference),
        _ => None,
    }
}

/// `io.k8s.api.core.v1.PodSpec` is `core.v1.PodSpec` here.
fn short_name(name: &str) -> String {
    let parts: Vec<&str> = name.rsplitn(4, '.').collect();
    parts.into_iter().take(3).rev().collect::<Vec<_>>().join(".")
}

/// The schemas of all types below the kinds we serve or may serve.
fn schemas() -> BTreeMap<String, Value> {
    use k8s_openapi::api::{apps, batch, certificates, coordination, core, discovery, events, rbac, scheduling};
    let mut generator = schemars::generate::SchemaSettings::draft07().into_generator();
    macro_rules! roots { ($($root:ty),* $(,)?) => { $(let _ = generator.subschema_for::<$root>();)* } }
    roots!(
        core::v1::Pod,
        core::v1::PodTemplate,
        core::v1::ReplicationController,
        core::v1::Service,
        core::v1::Endpoints,
        core::v1::Event,
        core::v1::Secret,
        core::v1::ConfigMap,
        core::v1::ServiceAccount,
        core::v1::Namespace,
        core::v1::Node,
        core::v1::ResourceQuota,
        core::v1::LimitRange,
        core::v1::PersistentVolume,
        core::v1::PersistentVolumeClaim,
        apps::v1::Deployment,
        apps::v1::ReplicaSet,
        apps::v1::DaemonSet,
        apps::v1::StatefulSet,
        apps::v1::ControllerRevision,
        batch::v1::Job,
        batch::v1::CronJob,
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        discovery::v1::EndpointSlice,
        events::v1::Event,
        scheduling::v1::PriorityClass,
        rbac::v1::Role,
        rbac::v1::RoleBinding,
        rbac::v1::ClusterRole,
        rbac::v1::ClusterRoleBinding,
    );
    generator.definitions().iter().map(|(name, schema)| (short_name(name), schema.clone())).collect()
}
