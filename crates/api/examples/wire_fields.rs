//! Makes `src/protobuf/wire_fields.txt`: the numbers, JSON names and types of the fields of protobuf messages.
//!
//! The numbers and types come from the `k8s-pb` crate of the Kubernetes version that `k8s-openapi` stands for, whose
//! unpacked source is the only argument; the JSON names, which it lost, from the schemas of `k8s-openapi`:
//!
//! ```text
//! cargo run -p api --example wire_fields -- ~/.cargo/registry/src/*/k8s-pb-0.9.0/src > crates/api/src/protobuf/wire_fields.txt
//! ```
//!
//! A message in a message for which the schema has no property is one that Go embeds: its fields stand in its parent.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::Value;

/// An error here is a sentence for the developer who runs the tool.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Messages that are no object in JSON.
const SPECIAL: &[(&str, &str)] = &[
    ("api.resource.Quantity", "quantity"),
    ("util.intstr.IntOrString", "int-or-string"),
    ("meta.v1.Time", "time"),
    ("meta.v1.MicroTime", "micro-time"),
    ("meta.v1.FieldsV1", "json"),
    ("authentication.v1.ExtraValue", "strings"),
    ("authorization.v1.ExtraValue", "strings"),
    ("certificates.v1.ExtraValue", "strings"),
];

/// Optional strings that Go keeps behind a pointer, or always writes, and that say something when they are empty.
const EMPTY_STRINGS: &[(&str, &str)] = &[
    ("coordination.v1.LeaseSpec", "holderIdentity"),
    ("coordination.v1.LeaseSpec", "preferredHolder"),
    ("coordination.v1.LeaseSpec", "strategy"),
    ("core.v1.AppArmorProfile", "localhostProfile"),
    ("core.v1.AzureDiskVolumeSource", "cachingMode"),
    ("core.v1.AzureDiskVolumeSource", "fsType"),
    ("core.v1.AzureDiskVolumeSource", "kind"),
    ("core.v1.AzureFilePersistentVolumeSource", "secretNamespace"),
    ("core.v1.CSIVolumeSource", "fsType"),
    ("core.v1.ClusterTrustBundleProjection", "name"),
    ("core.v1.ClusterTrustBundleProjection", "signerName"),
    ("core.v1.Container", "restartPolicy"),
    ("core.v1.ContainerStatus", "stopSignal"),
    ("core.v1.EndpointAddress", "nodeName"),
    ("core.v1.EndpointPort", "appProtocol"),
    ("core.v1.EphemeralContainerCommon", "restartPolicy"),
    ("core.v1.Event", "reportingComponent"),
    ("core.v1.Event", "reportingInstance"),
    ("core.v1.GRPCAction", "service"),
    ("core.v1.GlusterfsPersistentVolumeSource", "endpointsNamespace"),
    ("core.v1.HostPathVolumeSource", "type"),
    ("core.v1.ISCSIPersistentVolumeSource", "initiatorName"),
    ("core.v1.ISCSIVolumeSource", "initiatorName"),
    ("core.v1.Lifecycle", "stopSignal"),
    ("core.v1.LoadBalancerIngress", "ipMode"),
    ("core.v1.LocalVolumeSource", "fsType"),
    ("core.v1.PersistentVolumeClaimSpec", "storageClassName"),
    ("core.v1.PersistentVolumeClaimSpec", "volumeAttributesClassName"),
    ("core.v1.PersistentVolumeClaimSpec", "volumeMode"),
    ("core.v1.PersistentVolumeClaimStatus", "currentVolumeAttributesClassName"),
    ("core.v1.PersistentVolumeSpec", "volumeAttributesClassName"),
    ("core.v1.PersistentVolumeSpec", "volumeMode"),
    ("core.v1.PodDNSConfigOption", "value"),
    ("core.v1.PodResourceClaim", "resourceClaimName"),
    ("core.v1.PodResourceClaim", "resourceClaimTemplateName"),
    ("core.v1.PodResourceClaimStatus", "resourceClaimName"),
    ("core.v1.PodSecurityContext", "fsGroupChangePolicy"),
    ("core.v1.PodSecurityContext", "seLinuxChangePolicy"),
    ("core.v1.PodSecurityContext", "supplementalGroupsPolicy"),
    ("core.v1.PodSpec", "hostnameOverride"),
    ("core.v1.PodSpec", "preemptionPolicy"),
    ("core.v1.PodSpec", "runtimeClassName"),
    ("core.v1.PortStatus", "error"),
    ("core.v1.SeccompProfile", "localhostProfile"),
    ("core.v1.SecurityContext", "procMount"),
    ("core.v1.ServicePort", "appProtocol"),
    ("core.v1.ServiceSpec", "internalTrafficPolicy"),
    ("core.v1.ServiceSpec", "ipFamilyPolicy"),
    ("core.v1.ServiceSpec", "loadBalancerClass"),
    ("core.v1.ServiceSpec", "trafficDistribution"),
    ("core.v1.TopologySpreadConstraint", "nodeAffinityPolicy"),
    ("core.v1.TopologySpreadConstraint", "nodeTaintsPolicy"),
    ("core.v1.TypedLocalObjectReference", "apiGroup"),
    ("core.v1.TypedObjectReference", "apiGroup"),
    ("core.v1.TypedObjectReference", "namespace"),
    ("core.v1.VolumeMount", "mountPropagation"),
    ("core.v1.VolumeMount", "recursiveReadOnly"),
    ("core.v1.VolumeMountStatus", "recursiveReadOnly"),
    ("core.v1.WindowsSecurityContextOptions", "gmsaCredentialSpec"),
    ("core.v1.WindowsSecurityContextOptions", "gmsaCredentialSpecName"),
    ("core.v1.WindowsSecurityContextOptions", "runAsUserName"),
    ("discovery.v1.Endpoint", "hostname"),
    ("discovery.v1.Endpoint", "nodeName"),
    ("discovery.v1.Endpoint", "zone"),
    ("discovery.v1.EndpointPort", "appProtocol"),
    ("discovery.v1.EndpointPort", "name"),
    ("discovery.v1.EndpointPort", "protocol"),
    ("meta.v1.DeleteOptions", "propagationPolicy"),
    ("meta.v1.Preconditions", "resourceVersion"),
    ("meta.v1.Preconditions", "uid"),
    ("scheduling.v1.PriorityClass", "preemptionPolicy"),
];

/// Optional numbers and booleans that Go keeps without a pointer, so that 0 and `false` are what it writes where nothing
/// is set. A type of `*` is any.
const UNSET_IF_ZERO: &[(&str, &str)] = &[
    ("*", "availableReplicas"),
    ("*", "count"),
    ("*", "deprecatedCount"),
    ("*", "fullyLabeledReplicas"),
    ("*", "generation"),
    ("*", "healthCheckNodePort"),
    ("*", "hostPort"),
    ("*", "minReadySeconds"),
    ("*", "nodePort"),
    ("*", "observedGeneration"),
    ("*", "partition"),
    ("*", "readyReplicas"),
    ("*", "signal"),
    ("core.v1.ContainerImage", "sizeBytes"),
    ("core.v1.Probe", "failureThreshold"),
    ("core.v1.Probe", "initialDelaySeconds"),
    ("core.v1.Probe", "periodSeconds"),
    ("core.v1.Probe", "successThreshold"),
    ("core.v1.Probe", "timeoutSeconds"),
    ("*", "authenticated"),
    ("*", "chapAuthDiscovery"),
    ("*", "chapAuthSession"),
    ("*", "denied"),
    ("*", "globalDefault"),
    ("*", "hostIPC"),
    ("*", "hostNetwork"),
    ("*", "hostPID"),
    ("*", "publishNotReadyAddresses"),
    ("*", "readOnly"),
    ("*", "sslEnabled"),
    ("*", "stdin"),
    ("*", "stdinOnce"),
    ("*", "tty"),
    ("*", "unschedulable"),
];

/// Fields in [`UNSET_IF_ZERO`] that are behind a pointer in these types.
const POINTERS: &[(&str, &str)] =
    &[("core.v1.AzureDiskVolumeSource", "readOnly"), ("core.v1.CSIVolumeSource", "readOnly")];

fn main() -> Result<()> {
    let Some(source) = std::env::args().nth(1) else { return Err("usage: wire_fields <source of k8s-pb>".into()) };
    let mut messages = BTreeMap::new();
    read_directory(Path::new(&source), &mut messages)?;
    let (schemas, roots) = schemas();
    let mut table = Table { messages, schemas, done: BTreeMap::new() };
    for root in roots {
        table.add(&root, None)?;
    }
    println!("# Made by crates/api/examples/wire_fields.rs from k8s-openapi 0.29 and k8s-pb 0.9; do not edit.");
    for (name, lines) in &table.done {
        println!("{name}");
        lines.iter().for_each(|line| println!("  {line}"));
    }
    Ok(())
}

/// A field as `k8s-pb` has it.
#[derive(Clone)]
struct Field {
    number: String,
    /// In lower case without underscores.
    name: String,
    /// `[]` or `map:` before the type of many.
    many: &'static str,
    /// `string`, `bytes`, `bool`, `int`, `double` or the message's full name.
    of: String,
}

/// Messages by full name in lower case: the name as it is, and the fields.
type Messages = BTreeMap<String, (String, Vec<Field>)>;

fn read_directory(directory: &Path, messages: &mut Messages) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_directory(&path, messages)?;
        } else if path.file_name().is_some_and(|name| name == "mod.rs") {
            let parts: Vec<_> = directory.iter().rev().take(2).filter_map(|part| part.to_str()).collect();
            let prefix = parts.into_iter().rev().collect::<Vec<_>>().join(".");
            read_module(&prefix, &std::fs::read_to_string(&path)?, messages)?;
        }
    }
    Ok(())
}

/// Reads one generated module, line by line: an attribute, then the field it speaks of, which may go over several lines.
fn read_module(prefix: &str, text: &str, messages: &mut Messages) -> Result<()> {
    let (mut current, mut attribute, mut declaration) = (String::new(), None, String::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = format!("{prefix}.{}", rest.trim_end_matches([' ', '{', '}']));
            current = normalized(&name);
            messages.insert(current.clone(), (name, Vec::new()));
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            attribute = Some(rest.trim_end_matches(")]").to_owned());
            declaration.clear();
        } else if let Some(found) = &attribute {
            declaration.push_str(line);
            if line.ends_with(',') && declaration.matches('<').count() == declaration.matches('>').count() {
                let field = field(prefix, found, &declaration)?;
                messages.get_mut(&current).ok_or("a field without a message")?.1.push(field);
                attribute = None;
            }
        }
    }
    Ok(())
}

/// `string, optional, tag = "1"` and `pub name: Option<String>,`.
fn field(prefix: &str, attribute: &str, declaration: &str) -> Result<Field> {
    let (rest, number) = attribute.rsplit_once("tag = ").ok_or("a field without a number")?;
    let (name, of) = declaration.trim_start_matches("pub ").split_once(':').ok_or("a field without a type")?;
    let message = of.trim_end_matches(['>', ',']).rsplit(['<', ' ', ',']).next().unwrap_or("");
    let (many, scalar) = match rest.strip_prefix("btree_map = \"string, ") {
        Some(value) => ("map:", value),
        None => (if rest.contains("repeated") { "[]" } else { "" }, rest),
    };
    let of = match scalar.split(['"', ',', ' ']).next().unwrap_or("") {
        "message" => full_name(prefix, message),
        "int32" | "int64" => "int".to_owned(),
        other => other.to_owned(),
    };
    Ok(Field { number: number.trim_matches('"').to_owned(), name: normalized(name.trim_start_matches("r#")), many, of })
}

/// `super::super::meta::v1::Time` and `PodSpec`, seen in `core.v1`, are `meta.v1.Time` and `core.v1.PodSpec`.
fn full_name(prefix: &str, path: &str) -> String {
    let parts: Vec<&str> = path.split("::").collect();
    if parts.len() < 3 { format!("{prefix}.{path}") } else { parts[parts.len() - 3..].join(".") }
}

fn normalized(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

struct Table {
    messages: Messages,
    /// By name in lower case: the name as it is, and the schema.
    schemas: BTreeMap<String, (String, Value)>,
    done: BTreeMap<String, Vec<String>>,
}

impl Table {
    /// Adds a message and all below it; returns its name. `parent` is the schema in which the fields of one stand that has
    /// no schema of its own.
    fn add(&mut self, message: &str, parent: Option<&Value>) -> Result<String> {
        let key = normalized(message);
        let (proto_name, fields) = self.messages.get(&key).ok_or_else(|| format!("no message {message}"))?;
        let (name, schema) = match (self.schemas.get(&key), parent) {
            (Some((name, schema)), _) => (name.clone(), schema.clone()),
            (None, Some(parent)) => (proto_name.clone(), parent.clone()),
            (None, None) => return Err(format!("no schema for {message}").into()),
        };
        if self.done.contains_key(&name) {
            return Ok(name);
        }
        let fields = fields.clone();
        let mut lines = Vec::new();
        for field in &fields {
            lines.extend(self.line(&name, &schema, field)?);
        }
        self.done.insert(name.clone(), lines);
        Ok(name)
    }

    fn line(&mut self, message: &str, schema: &Value, field: &Field) -> Result<Option<String>> {
        let Field { number, name, many, of } = field;
        let mut properties = schema["properties"].as_object().into_iter().flatten();
        let json = properties.find(|(property, _)| normalized(property) == *name).map(|(property, _)| property.clone());
        let special = SPECIAL.iter().find(|(message, _)| message == of).map(|(_, special)| *special);
        let is_message = of.contains('.');
        match json {
            Some(json) if special.is_some() => Ok(special.map(|special| format!("{number} {json} {many}{special}"))),
            Some(json) if is_message => Ok(Some(format!("{number} {json} {many}{}", self.add(of, None)?))),
            Some(json) => {
                let zero = many.is_empty() && says_something_if_zero(message, schema, &json, of);
                Ok(Some(format!("{number} {json} {many}{of}{}", if zero { " zero" } else { "" })))
            }
            None if is_message && many.is_empty() => Ok(Some(format!("{number} - {}", self.add(of, Some(schema))?))),
            None => {
                eprintln!("{message}: no property for field {number} {name}");
                Ok(None)
            }
        }
    }
}

/// Whether Go writes the field's zero into JSON: it does if the field is required or behind a pointer.
fn says_something_if_zero(message: &str, schema: &Value, field: &str, of: &str) -> bool {
    let named = |list: &[(&str, &str)]| list.iter().any(|(t, f)| (*t == message || *t == "*") && *f == field);
    let required = schema["required"].as_array().is_some_and(|names| names.iter().any(|name| name == field));
    required
        || match of {
            "string" | "bytes" => named(EMPTY_STRINGS),
            _ => !named(UNSET_IF_ZERO) || named(POINTERS),
        }
}

/// The schemas of all types in request bodies, and the names of those that are bodies.
fn schemas() -> (BTreeMap<String, (String, Value)>, BTreeSet<String>) {
    let mut generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let subresources = [&api::eviction::KIND, &api::scale::KIND, &api::token_request::KIND];
    let mut roots = BTreeSet::from(["meta.v1.DeleteOptions".to_owned()]);
    let _ = generator.subschema_for::<DeleteOptions>();
    for kind in api::kinds().chain(subresources) {
        (kind.schema)(&mut generator);
        roots.insert(api::protobuf::message_name(&kind.info.api_version(), kind.info.kind));
    }
    let schemas = generator.definitions().iter().map(|(name, schema)| {
        let name = short_name(name);
        (normalized(&name), (name, schema.clone()))
    });
    (schemas.collect(), roots)
}

/// `io.k8s.api.core.v1.PodSpec` is `core.v1.PodSpec` here.
fn short_name(name: &str) -> String {
    let parts: Vec<&str> = name.rsplitn(4, '.').collect();
    parts.into_iter().take(3).rev().collect::<Vec<_>>().join(".")
}
