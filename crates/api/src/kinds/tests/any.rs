//! Objects by chance: of the right types, and otherwise anything.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::kinds::Kind;

/// The deepest an object becomes; what would be deeper stays empty.
const MAX_DEPTH: usize = 9;

/// Texts that mean something somewhere, and texts that mean nothing anywhere.
const TEXTS: &[&str] = &[
    "",
    "a",
    "web",
    "default",
    "a-b",
    "A",
    "a/b",
    "a.b/c",
    "kubernetes.io/os",
    "-",
    ".",
    "..",
    "/",
    "//",
    "a b",
    "ä",
    "\u{0}",
    "💥",
    "1",
    "0",
    "-1",
    "65536",
    "1Gi",
    "1.5",
    "100m",
    "-5",
    "1e3",
    "1e99999999",
    "9999999999999999999999",
    "0.0000000001",
    "Ki",
    "+",
    "10.0.0.1",
    "10.0.0.0/8",
    "::1",
    "fe80::/10",
    "256.0.0.1",
    "10.0.0.1/33",
    "None",
    "localhost",
    "example.com",
    "*.example.com",
    "http",
    "HTTP",
    "TCP",
    "UDP",
    "SCTP",
    "Always",
    "Never",
    "OnFailure",
    "IfNotPresent",
    "ClusterIP",
    "NodePort",
    "LoadBalancer",
    "ExternalName",
    "ClientIP",
    "Local",
    "Cluster",
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "Gt",
    "Lt",
    "Equal",
    "NoSchedule",
    "NoExecute",
    "True",
    "False",
    "Unknown",
    "Pod",
    "Node",
    "Service",
    "ClusterRole",
    "Role",
    "User",
    "Group",
    "ServiceAccount",
    "rbac.authorization.k8s.io",
    "v1",
    "apps/v1",
    "Container",
    "PersistentVolumeClaim",
    "cpu",
    "memory",
    "pods",
    "storage",
    "requests.cpu",
    "limits.memory",
    "count/pods",
    "hugepages-2Mi",
    "nvidia.com/gpu",
    "ReadWriteOnce",
    "ReadWriteOncePod",
    "Retain",
    "Delete",
    "Recycle",
    "Filesystem",
    "Block",
    "hostname",
    "topology.kubernetes.io/zone",
    "DoNotSchedule",
    "ScheduleAnyway",
    "metadata.name",
    "metadata.labels['a']",
    "limits.cpu",
    "status.podIP",
    "$(A)",
    "$$(A)",
    "$(",
    "opaque",
    "kubernetes.io/tls",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/basic-auth",
    "kubernetes.io/service-account-token",
    "client auth",
    "server auth",
    "kubernetes.io/kube-apiserver-client",
    "a.b/c",
    "2026-01-01T00:00:00Z",
    "PreferDualStack",
    "IPv4",
    "IPv6",
    "FQDN",
    "ClusterFirst",
    "Default",
    "foregroundDeletion",
    "orphan",
    "get",
    "*",
    "Warning",
    "Normal",
    "Memory",
    "HugePages",
    "DirectoryOrCreate",
    "../x",
    "/x",
    "x/../y",
    "RuntimeDefault",
    "Localhost",
    "SYS_ADMIN",
    "ALL",
    "BestEffort",
    "PriorityClass",
    "Terminating",
];
const KEYS: &[&str] = &[
    "a",
    "app",
    "cpu",
    "memory",
    "storage",
    "pods",
    "requests.cpu",
    "limits.memory",
    "",
    "a/b",
    "tls.crt",
    ".dockerconfigjson",
    "ä",
];
const INTEGERS: &[i64] =
    &[0, 1, 2, -1, 30, 80, 443, 30_000, 32_767, 65_535, 65_536, 1_000_000_000, i32::MAX as i64, i32::MIN as i64];
const LARGE: &[i64] = &[i64::MAX, i64::MIN, 1 << 40];

/// Makes objects from a kind's schema.
pub(super) struct Any {
    rng: StdRng,
    definitions: Map<String, Value>,
    kind: &'static Kind,
    root: Value,
    /// How likely a field is there, in percent.
    density: u32,
}

impl Any {
    pub(super) fn of(kind: &'static Kind, seed: u64) -> Any {
        let settings = schemars::generate::SchemaSettings::openapi3().with(|s| s.meta_schema = None);
        let mut generator = settings.into_generator();
        let root = (kind.schema)(&mut generator).to_value();
        let definitions = generator.take_definitions(true);
        let mut rng = StdRng::seed_from_u64(seed);
        let density = rng.random_range(5..70);
        Any { rng, definitions, kind, root, density }
    }

    /// An object that can be decoded.
    pub(super) fn object(&mut self) -> Value {
        let root = self.root.clone();
        let mut object = self.value(&root, 0);
        object["apiVersion"] = json!(self.kind.info.api_version());
        object["kind"] = json!(self.kind.info.kind);
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        object
    }

    /// `object` changed in a few places, by values of any type.
    pub(super) fn mutated(&mut self, object: &Value) -> Value {
        let mut object = object.clone();
        for _ in 0..self.rng.random_range(1..5) {
            let mut place = &mut object;
            for _ in 0..self.rng.random_range(1..8) {
                let size = place.as_object().map_or(0, Map::len) + place.as_array().map_or(0, Vec::len);
                if size == 0 {
                    break;
                }
                let at = self.rng.random_range(0..size);
                place = match place {
                    Value::Object(map) => map.values_mut().nth(at).unwrap(),
                    Value::Array(list) => &mut list[at],
                    _ => break,
                };
            }
            *place = match self.rng.random_range(0..8) {
                0 => Value::Null,
                1 => json!({}),
                2 => json!([]),
                3 => json!({self.text(): self.text()}),
                4 => json!([place.clone(), place.clone()]),
                5 => json!(self.integer("int64")),
                6 => json!(self.rng.random_bool(0.5)),
                _ => json!(self.text()),
            };
        }
        object
    }

    pub(super) fn number(&mut self) -> usize {
        self.rng.random_range(0..1000)
    }

    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        let reference = schema.get("$ref").or_else(|| schema["allOf"].get(0)?.get("$ref"));
        if let Some(name) = reference.and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) {
            let schema = self.definitions[name].clone();
            return self.value(&schema, depth);
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return if self.rng.random_bool(0.3) { json!(self.integer("int32")) } else { json!(self.text()) };
        }
        let format = schema["format"].as_str().unwrap_or("");
        match schema["type"].as_str().unwrap_or("") {
            "string" if format == "byte" => {
                json!(["", "YQ==", "e30=", "LS0tLS1CRUdJTg=="][self.rng.random_range(0..4)])
            }
            "string" if format == "date-time" => json!("2026-01-01T00:00:00Z"),
            "string" => json!(self.text()),
            "integer" | "number" => json!(self.integer(format)),
            "boolean" => json!(self.rng.random_bool(0.5)),
            "array" if depth < MAX_DEPTH => {
                (0..self.rng.random_range(0..3)).map(|_| self.value(&schema["items"], depth + 1)).collect()
            }
            "array" => json!([]),
            _ => Value::Object(self.fields(schema, depth)),
        }
    }

    fn fields(&mut self, schema: &Value, depth: usize) -> Map<String, Value> {
        let mut fields = Map::new();
        if depth >= MAX_DEPTH {
            return fields;
        }
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let required = schema["required"].as_array().is_some_and(|r| r.iter().any(|name| name == key));
            if required || self.rng.random_range(0..100) < self.density || depth == 0 {
                fields.insert(key.clone(), self.value(property, depth + 1));
            }
        }
        if schema["additionalProperties"].is_object() {
            for _ in 0..self.rng.random_range(0..3) {
                let key = KEYS[self.rng.random_range(0..KEYS.len())].to_owned();
                fields.insert(key, self.value(&schema["additionalProperties"], depth + 1));
            }
        }
        fields
    }

    fn text(&mut self) -> String {
        match self.rng.random_range(0..40) {
            0 => "x".repeat(self.rng.random_range(60..300)),
            _ => TEXTS[self.rng.random_range(0..TEXTS.len())].to_owned(),
        }
    }

    fn integer(&mut self, format: &str) -> i64 {
        if format == "int64" && self.rng.random_range(0..4) == 0 {
            return LARGE[self.rng.random_range(0..LARGE.len())];
        }
        INTEGERS[self.rng.random_range(0..INTEGERS.len())]
    }
}
