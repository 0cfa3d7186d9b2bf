//! OpenAPI v2 in protobuf, as kubectl asks for it: of the paths only what it looks for, that every kind's PATCH takes
//! `fieldValidation`; and all definitions, which `kubectl explain` up to 1.26 knows from nowhere else.
//!
//! The messages are those of `openapiv2/OpenAPIv2.proto` in google/gnostic.

use api::{Verb, kinds};
use serde_json::{Map, Value, json};

use super::{operations, schemas};

/// The field numbers used here.
mod field {
    pub(super) const DOCUMENT_SWAGGER: u32 = 1;
    pub(super) const DOCUMENT_INFO: u32 = 2;
    pub(super) const DOCUMENT_PATHS: u32 = 8;
    pub(super) const DOCUMENT_DEFINITIONS: u32 = 9;
    pub(super) const INFO_TITLE: u32 = 1;
    pub(super) const INFO_VERSION: u32 = 2;
    pub(super) const PATHS_PATH: u32 = 2;
    pub(super) const NAME: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const PATH_ITEM_PATCH: u32 = 8;
    pub(super) const OPERATION_PARAMETERS: u32 = 8;
    pub(super) const OPERATION_RESPONSES: u32 = 9;
    pub(super) const OPERATION_EXTENSION: u32 = 13;
    pub(super) const ITEM_PARAMETER: u32 = 1;
    pub(super) const PARAMETER_NON_BODY: u32 = 2;
    pub(super) const NON_BODY_QUERY: u32 = 3;
    pub(super) const QUERY_IN: u32 = 2;
    pub(super) const QUERY_NAME: u32 = 4;
    pub(super) const QUERY_TYPE: u32 = 6;
    pub(super) const ANY_YAML: u32 = 2;
    pub(super) const SCHEMA_REF: u32 = 1;
    pub(super) const SCHEMA_FORMAT: u32 = 2;
    pub(super) const SCHEMA_DESCRIPTION: u32 = 4;
    pub(super) const SCHEMA_DEFAULT: u32 = 5;
    pub(super) const SCHEMA_REQUIRED: u32 = 19;
    pub(super) const SCHEMA_ADDITIONAL: u32 = 21;
    pub(super) const SCHEMA_TYPE: u32 = 22;
    pub(super) const SCHEMA_ITEMS: u32 = 23;
    pub(super) const SCHEMA_PROPERTIES: u32 = 25;
    pub(super) const SCHEMA_EXTENSION: u32 = 31;
    /// The one field of messages that wrap another.
    pub(super) const ONLY: u32 = 1;
}

/// The whole document.
pub(super) fn document() -> Vec<u8> {
    let info = [bytes(field::INFO_TITLE, b"Kubernetes"), bytes(field::INFO_VERSION, b"v1.35.0")].concat();
    let patched = kinds().map(|kind| kind.info).filter(|info| info.can(Verb::Patch));
    let paths: Vec<u8> = patched.flat_map(|info| bytes(field::PATHS_PATH, &path(info))).collect();
    let (_, definitions) = schemas::v2(&kinds().collect::<Vec<_>>());
    [
        bytes(field::DOCUMENT_SWAGGER, b"2.0"),
        bytes(field::DOCUMENT_INFO, &info),
        bytes(field::DOCUMENT_PATHS, &paths),
        bytes(field::DOCUMENT_DEFINITIONS, &named_schemas(&definitions)),
    ]
    .concat()
}

/// `Definitions` and `Properties`, which are made alike.
fn named_schemas(schemas: &Map<String, Value>) -> Vec<u8> {
    let one = |(name, schema): (&String, &Value)| {
        bytes(field::ONLY, &[bytes(field::NAME, name.as_bytes()), bytes(field::VALUE, &message(schema))].concat())
    };
    schemas.iter().flat_map(one).collect()
}

/// A `Schema`: what the generator makes of k8s-openapi's types, and nothing it does not.
fn message(schema: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in schema.as_object().into_iter().flatten() {
        let text = || value.as_str().unwrap_or("").as_bytes();
        out.extend(match key.as_str() {
            "$ref" => bytes(field::SCHEMA_REF, text()),
            "format" => bytes(field::SCHEMA_FORMAT, text()),
            "description" => bytes(field::SCHEMA_DESCRIPTION, text()),
            "default" => bytes(field::SCHEMA_DEFAULT, &any(value)),
            "type" => bytes(field::SCHEMA_TYPE, &bytes(field::ONLY, text())),
            "items" => bytes(field::SCHEMA_ITEMS, &bytes(field::ONLY, &message(value))),
            "properties" => bytes(field::SCHEMA_PROPERTIES, &value.as_object().map(named_schemas).unwrap_or_default()),
            "additionalProperties" if value.is_object() => {
                bytes(field::SCHEMA_ADDITIONAL, &bytes(field::ONLY, &message(value)))
            }
            "required" => {
                let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                names.flat_map(|name| bytes(field::SCHEMA_REQUIRED, name.as_bytes())).collect()
            }
            _ if key.starts_with("x-") => bytes(field::SCHEMA_EXTENSION, &extension(key, value)),
            _ => Vec::new(),
        });
    }
    out
}

/// A `NamedAny`.
fn extension(name: &str, value: &Value) -> Vec<u8> {
    [bytes(field::NAME, name.as_bytes()), bytes(field::VALUE, &any(value))].concat()
}

/// An `Any`: JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    bytes(field::ANY_YAML, value.to_string().as_bytes())
}

fn path(info: &api::KindInfo) -> Vec<u8> {
    let gvk = json!({"group": info.group, "version": info.version, "kind": info.kind});
    let extension = extension("x-kubernetes-group-version-kind", &gvk);
    let parameters = ["dryRun", "fieldManager", "fieldValidation"].map(|name| {
        let query = [
            bytes(field::QUERY_IN, b"query"),
            bytes(field::QUERY_NAME, name.as_bytes()),
            bytes(field::QUERY_TYPE, b"string"),
        ];
        let parameter = bytes(field::PARAMETER_NON_BODY, &bytes(field::NON_BODY_QUERY, &query.concat()));
        bytes(field::OPERATION_PARAMETERS, &bytes(field::ITEM_PARAMETER, &parameter))
    });
    let operation =
        [parameters.concat(), bytes(field::OPERATION_RESPONSES, b""), bytes(field::OPERATION_EXTENSION, &extension)];
    let item = bytes(field::PATH_ITEM_PATCH, &operation.concat());
    let name = format!("/{}/{}/{{name}}", operations::root(info), info.plural);
    [bytes(field::NAME, name.as_bytes()), bytes(field::VALUE, &item)].concat()
}

/// A length-delimited field: the only wire type used here.
fn bytes(number: u32, value: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u64 = 2;
    let mut out = Vec::with_capacity(value.len() + 4);
    varint(&mut out, u64::from(number) << 3 | LENGTH_DELIMITED);
    varint(&mut out, value.len() as u64);
    out.extend_from_slice(value);
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
