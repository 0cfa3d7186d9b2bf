//! The other shapes of objects: `meta.k8s.io` Table and PartialObjectMetadata, in the version that was asked for.

use api::Kind;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::query::Query;
use crate::status::ApiError;

/// What a Table's rows carry besides their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

impl IncludeObject {
    pub(crate) fn parse(query: &Query) -> Result<IncludeObject, ApiError> {
        match query.get("includeObject") {
            None | Some("Metadata") => Ok(IncludeObject::Metadata),
            Some("None") => Ok(IncludeObject::None),
            Some("Object") => Ok(IncludeObject::Object),
            Some(other) => Err(ApiError::BadRequest(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }
}

#[derive(Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

fn metadata(object: &[u8]) -> &str {
    serde_json::from_slice::<OnlyMetadata<'_>>(object).map_or("{}", |o| o.metadata.get())
}

/// An object reduced to its metadata, in version `meta`.
pub(crate) fn partial_metadata(object: &[u8], meta: &str) -> Vec<u8> {
    let metadata = metadata(object);
    format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{meta}","metadata":{metadata}}}"#).into_bytes()
}

/// Makes Tables of one kind.
pub(crate) struct Table {
    kind: &'static Kind,
    include: IncludeObject,
    meta: &'static str,
    now: Timestamp,
}

impl Table {
    /// Tables of version `meta`.
    pub(crate) fn new(kind: &'static Kind, include: IncludeObject, meta: &'static str) -> Table {
        Table { kind, include, meta, now: Timestamp::now() }
    }

    /// Ages are counted up to now.
    pub(crate) fn set_now(&mut self) {
        self.now = Timestamp::now();
    }

    /// A whole Table. `list_metadata` is the JSON of its metadata; columns may be left out where the client has them.
    pub(crate) fn of<'a>(
        &self,
        list_metadata: &str,
        with_columns: bool,
        objects: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<u8> {
        let (meta, columns) = (self.meta, if with_columns { self.columns() } else { Value::Null });
        let start = format!(
            r#"{{"kind":"Table","apiVersion":"{meta}","metadata":{list_metadata},"columnDefinitions":{columns},"rows":["#
        );
        let mut out = start.into_bytes();
        for (index, object) in objects.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.row(&mut out, object);
        }
        out.extend_from_slice(b"]}");
        out
    }

    /// A Table of one object, with the object's resourceVersion.
    pub(crate) fn of_one(&self, object: &[u8]) -> Vec<u8> {
        self.of_one_with(object, true)
    }

    pub(crate) fn of_one_with(&self, object: &[u8], with_columns: bool) -> Vec<u8> {
        let metadata: Value = serde_json::from_str(metadata(object)).unwrap_or_default();
        let list_metadata = json!({"resourceVersion": metadata["resourceVersion"]}).to_string();
        self.of(&list_metadata, with_columns, std::iter::once(object))
    }

    fn columns(&self) -> Value {
        let columns = self.kind.info.columns.iter();
        columns
            .map(|c| {
                json!({
                    "name": c.name, "type": c.column_type, "format": c.format,
                    "description": c.description, "priority": c.priority,
                })
            })
            .collect()
    }

    fn row(&self, out: &mut Vec<u8>, object: &[u8]) {
        let (plain, _) = api::apply::split(self.kind.info, object);
        let cells = match (self.kind.decode)(&plain) {
            Ok(decoded) => decoded.object.cells(self.now),
            Err(_) => vec![Value::Null; self.kind.info.columns.len()],
        };
        out.extend_from_slice(br#"{"cells":"#);
        out.extend_from_slice(Value::Array(cells).to_string().as_bytes());
        out.extend_from_slice(br#","object":"#);
        match self.include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Metadata => out.extend_from_slice(&partial_metadata(object, self.meta)),
            IncludeObject::Object => out.extend_from_slice(object),
        }
        out.push(b'}');
    }
}
