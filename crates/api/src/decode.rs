//! Bytes to objects: strict where asked, with every unknown and duplicate field named.
//!
//! ```text
//!  bytes ──scan──▶ apiVersion, kind, duplicate keys, no amounts ──zeros──▶ ──typed decode──▶ object, unknown fields
//!                                                                               │ wrong type
//!                                                                            locate ──▶ path of the field
//! ```
//!
//! The typed decoder is instantiated once per kind and everything else here is not generic: the path of a wrongly typed
//! field is found from the position of the error, not by a second decoder. Nesting is bounded by `serde_json` (128).

mod amounts;
mod go;
mod locate;
mod micro_time;
mod mismatch;
mod scan;
mod zeros;

use serde::Deserialize;

pub use go::{go_error, go_type};

use crate::kinds::{self, KindInfo};
use crate::object::{Object, Resource};

/// How many unknown and duplicate fields are named at most, each.
pub const MAX_STRICT_ERRORS: usize = 100;

/// A decoded object and what the decoder did not know.
pub struct Decoded {
    /// The object.
    pub object: Box<dyn Object>,
    /// Paths of unknown fields (`unknown field "spec.foo"`) and duplicate keys (`duplicate field "spec.bar"`), in
    /// upstream's words, for `fieldValidation`.
    pub strict_errors: Vec<String>,
    /// What is wrong with the first text that should be an amount, or a time with microseconds, and is none. Whoever takes an
    /// object from outside refuses it ([`Decoded::checked`]); what is stored is taken as it is.
    pub(crate) misread: Option<DecodeError>,
}

impl Decoded {
    /// The same, if every amount and time is one.
    pub fn checked(self) -> Result<Decoded, DecodeError> {
        match self.misread {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded").field("strict_errors", &self.strict_errors).finish_non_exhaustive()
    }
}

/// Why bytes are not an object of the kind.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON at all, or cut short: answered as 400.
    #[error("{0}")]
    Syntax(String),
    /// JSON, but a field has the wrong type: answered as 400 with the field's path.
    #[error("{message}")]
    Type {
        /// Path of the field.
        path: String,
        /// What was found and what was wanted.
        message: String,
    },
    /// An object of another kind or version than the one asked for: answered as 400.
    #[error("{message}")]
    Kind {
        /// `apiVersion` of the data, may be empty.
        api_version: String,
        /// `kind` of the data, may be empty.
        kind: String,
        /// What does not fit, in upstream's words.
        message: String,
    },
}

/// Decodes JSON into `T`; the one place where a kind's serde code is instantiated. `apiVersion` and `kind` may be absent
/// (the URL says them); if they are there they must be those of `T`.
pub fn decode<T: Resource>(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut scan = scan::scan(&T::INFO, bytes)?;
    let is_also_read = T::ALSO_READ.contains(&scan.api_version.as_str());
    if is_also_read {
        scan.api_version.clear();
    }
    check_kind(&T::INFO, &scan)?;
    let repaired = repaired(&T::INFO, bytes, is_also_read || scan.is_blank(), scan.is_unsettled());
    let bytes = repaired.as_deref().unwrap_or(bytes);
    let mut strict_errors = Vec::new();
    let misread = scan.misread.map(|error| not_handled(&T::INFO, &error));
    let object = match typed_with_times::<T>(bytes, &mut strict_errors) {
        Ok(object) => object,
        // Whatever else there is to say, this is said first.
        Err(error) => return Err(misread.unwrap_or(error)),
    };
    strict_errors.extend(scan.duplicates);
    Ok(Decoded { object: Box::new(object), strict_errors, misread })
}

/// The decoder's refusal of an amount or a time, as Go words it.
fn not_handled(info: &KindInfo, error: &str) -> DecodeError {
    let (kind, version) = (info.kind, info.version);
    let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}");
    DecodeError::Type { path: String::new(), message }
}

/// Decodes an object of any served kind, as its own `apiVersion` and `kind` say.
pub fn decode_any(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let Identity { api_version, kind, .. } = identify(bytes)?;
    match kinds::by_kind(&api_version, &kind) {
        Some(row) => (row.decode)(bytes),
        None => {
            let message = if kind.is_empty() {
                "Object 'Kind' is missing".to_owned()
            } else {
                format!("no kind {kind:?} is registered for version {api_version:?}")
            };
            Err(DecodeError::Kind { api_version, kind, message })
        }
    }
}

/// Who an object says it is, read without decoding it. Absent fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
}

/// Reads `apiVersion`, `kind`, `metadata.name` and `metadata.namespace`, skipping everything else.
pub fn identify(bytes: &[u8]) -> Result<Identity, DecodeError> {
    #[derive(Default, Deserialize)]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        api_version: Option<String>,
        kind: Option<String>,
        metadata: Option<Metadata>,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|e| failure(None, bytes, &e))?;
    let metadata = head.metadata.unwrap_or_default();
    Ok(Identity {
        api_version: head.api_version.unwrap_or_default(),
        kind: head.kind.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        namespace: metadata.namespace.unwrap_or_default(),
    })
}

fn typed<T: Resource>(bytes: &[u8], unknown: &mut Vec<String>) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    // Not a closure's own type: that is another one for each `T`, and all that objects have in common is compiled again.
    let note: &mut dyn FnMut(serde_ignored::Path<'_>) = &mut |path| {
        if unknown.len() < MAX_STRICT_ERRORS {
            unknown.push(format!("unknown field {:?}", render(&path)));
        }
    };
    serde_ignored::deserialize(&mut json, note)
}

/// The same, where the typed decoder must have a time and Go's need not.
fn typed_with_times<T: Resource>(bytes: &[u8], unknown: &mut Vec<String>) -> Result<T, DecodeError> {
    let error = match typed(bytes, unknown) {
        Ok(object) => return Ok(object),
        Err(error) => failure(Some(&T::INFO), bytes, &error),
    };
    let Some(bytes) = with_times(&T::INFO, bytes) else { return Err(error) };
    unknown.clear();
    typed(&bytes, unknown).map_err(|error| failure(Some(&T::INFO), &bytes, &error))
}

/// `spec.containers[0].foo`.
fn render(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", render(parent)),
        Path::Map { parent, key } => match render(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => render(parent),
    }
}

/// The text without `apiVersion` and `kind` where these are checked and not what the typed decoder expects, and with what
/// Go's decoder makes of nothing. Most texts need neither.
fn repaired(info: &KindInfo, bytes: &[u8], is_without_type_meta: bool, is_unsettled: bool) -> Option<Vec<u8>> {
    if !is_without_type_meta && !is_unsettled {
        return None;
    }
    let mut value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    if let Some(spot) = zeros::Spot::root(info).filter(|_| is_unsettled) {
        zeros::settle(&mut value, spot);
    }
    if let Some(object) = value.as_object_mut().filter(|_| is_without_type_meta) {
        object.retain(|key, v| !(matches!(key.as_str(), "apiVersion" | "kind") && (v.is_null() || v.is_string())));
    }
    Some(value.to_string().into_bytes())
}

/// The text with the times that the typed decoder must have, if any is missing.
fn with_times(info: &KindInfo, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    zeros::fill_times(&mut value, zeros::Spot::root(info)?).then(|| value.to_string().into_bytes())
}

/// Where upstream knows its kinds from.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// What a kind is called in Go: `v1.Pod`.
fn go_name(api_version: &str, kind: &str) -> String {
    format!("{}.{kind}", api_version.rsplit('/').next().unwrap_or(api_version))
}

/// What Go calls objects of a kind once they are decoded, whatever their version: `core.Pod`.
pub fn internal_name(info: &KindInfo) -> String {
    let package = match info.group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    format!("{package}.{}", info.kind)
}

fn check_kind(info: &KindInfo, scan: &scan::Scan) -> Result<(), DecodeError> {
    let (api_version, kind) = (scan.api_version.as_str(), scan.kind.as_str());
    let expected = info.api_version();
    if api_version.matches('/').count() > 1 {
        return Err(DecodeError::Syntax(format!("unexpected GroupVersion string: {api_version}")));
    }
    let given = if api_version.is_empty() { expected.as_str() } else { api_version };
    let kind = if kind.is_empty() { info.kind } else { kind };
    if (given, kind) == (expected.as_str(), info.kind) {
        return Ok(());
    }
    if kind == info.kind && kinds::by_kind(given, kind).is_some() {
        let message =
            format!("the API version in the data ({given}) does not match the expected API version ({expected})");
        return Err(DecodeError::Kind { api_version: api_version.to_owned(), kind: kind.to_owned(), message });
    }
    let problem = match kinds::by_kind(given, kind) {
        Some(_) => format!("converting ({}) to ({}): unknown conversion", go_name(given, kind), internal_name(info)),
        None => format!("no kind {kind:?} is registered for version {given:?} in scheme {SCHEME:?}"),
    };
    let version = given.rsplit('/').next().unwrap_or(given);
    let message = format!("{kind} in version {version:?} cannot be handled as a {}: {problem}", info.kind);
    Err(DecodeError::Kind { api_version: api_version.to_owned(), kind: kind.to_owned(), message })
}

/// The error of the JSON decoder in our words.
fn failure(info: Option<&KindInfo>, bytes: &[u8], error: &serde_json::Error) -> DecodeError {
    if !error.is_data() {
        let problem = go_error(bytes, error);
        return DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {problem}"));
    }
    let path = locate::path(bytes, locate::consumed(bytes, error));
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if let Some(why) = mismatch::head(&path, text) {
        return DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {why}"));
    }
    if let Some((info, why)) = info.and_then(|info| Some((info, mismatch::mismatch(info, &path, text)?))) {
        let (kind, version) = (info.kind, info.version);
        let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}");
        return DecodeError::Type { path, message };
    }
    let field = if path.is_empty() { String::new() } else { format!("cannot decode field {path:?}: ") };
    let prefix = info.map(|i| format!("{} in version {:?} cannot be handled as a {}: ", i.kind, i.version, i.kind));
    DecodeError::Type { path, message: format!("{}{field}{text}", prefix.unwrap_or_default()) }
}

#[cfg(test)]
mod tests;
