//! OpenAPI v2 in protobuf, as kubectl up to 1.29 asks for it: only what it looks for, that every kind's PATCH takes
//! `fieldValidation`. Without definitions it merges by the types it was built with.
//!
//! The messages are those of `openapiv2/OpenAPIv2.proto` in google/gnostic.

use api::{KINDS, Verb};
use serde_json::json;

use super::operations;

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
}

/// The whole document.
pub(super) fn document() -> Vec<u8> {
    let info = [bytes(field::INFO_TITLE, b"Kubernetes"), bytes(field::INFO_VERSION, b"v1.35.0")].concat();
    let patched = KINDS.iter().map(|kind| kind.info).filter(|info| info.can(Verb::Patch));
    let paths: Vec<u8> = patched.flat_map(|info| bytes(field::PATHS_PATH, &path(info))).collect();
    [
        bytes(field::DOCUMENT_SWAGGER, b"2.0"),
        bytes(field::DOCUMENT_INFO, &info),
        bytes(field::DOCUMENT_PATHS, &paths),
        bytes(field::DOCUMENT_DEFINITIONS, b""),
    ]
    .concat()
}

fn path(info: &api::KindInfo) -> Vec<u8> {
    let gvk = json!({"group": info.group, "version": info.version, "kind": info.kind}).to_string();
    let any = bytes(field::ANY_YAML, gvk.as_bytes());
    let extension = [bytes(field::NAME, b"x-kubernetes-group-version-kind"), bytes(field::VALUE, &any)].concat();
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
