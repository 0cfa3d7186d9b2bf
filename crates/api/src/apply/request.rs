//! What clients say about managers: their own name, and sometimes the list itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::{fields_v1, managed};
use crate::field::{ErrorList, Path, invalid, too_long};

/// The longest name of a manager (`FieldManagerMaxLength`).
pub const MAX_MANAGER_LENGTH: usize = 128;

/// What a written object says in `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// Nothing, or nothing that could be understood: the list stays as it is.
    Nothing,
    /// An empty list or `[{}]`: forget who manages what.
    Reset,
    /// Another list, to be used as if it had been there.
    List(String),
}

/// Reads what a client put into `metadata.managedFields` (`decodeLiveOrNew`, `DecodeManagedFields`).
pub fn given(fields: Option<&[ManagedFieldsEntry]>) -> Given {
    match fields {
        None => Given::Nothing,
        Some([]) => Given::Reset,
        Some([only]) if *only == ManagedFieldsEntry::default() => Given::Reset,
        Some(entries) => list(entries).map_or(Given::Nothing, Given::List),
    }
}

fn list(entries: &[ManagedFieldsEntry]) -> Option<String> {
    let understood = |entry: &ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map_or_else(|| "{}".to_owned(), |f| f.0.to_string());
        matches!(entry.operation.as_deref(), Some("Apply" | "Update"))
            && entry.api_version.as_deref().is_some_and(|v| !v.is_empty())
            && entry.fields_type.as_deref() == Some("FieldsV1")
            && fields_v1::parse(&fields).is_some()
    };
    if !entries.iter().all(understood) {
        return None;
    }
    let text = serde_json::to_string(entries).ok()?;
    let mut list = managed::parse(&text);
    // In our spelling: other code compares texts.
    for entry in &mut list {
        entry.set();
    }
    Some(managed::write(list)).filter(|text| !text.is_empty())
}

/// The manager of a request that names none: its user agent up to the first slash (`prefixFromUserAgent`).
pub fn manager_of_user_agent(user_agent: &str) -> String {
    let prefix = user_agent.split('/').next().unwrap_or("");
    let mut name = String::new();
    for character in prefix.chars().filter(|c| is_print(*c)) {
        if name.len() + character.len_utf8() > MAX_MANAGER_LENGTH {
            break;
        }
        name.push(character);
    }
    name
}

/// Everything wrong with `fieldManager` (`ValidateFieldManager`).
pub fn manager_errors(manager: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if manager.len() > MAX_MANAGER_LENGTH {
        errors.push(too_long(path, MAX_MANAGER_LENGTH));
    }
    for (position, character) in manager.char_indices().filter(|(_, c)| !is_print(*c)) {
        let detail = format!("invalid character U+{:04X} (at position {position})", u32::from(character));
        errors.push(invalid(path, manager, &detail));
    }
    errors
}

/// Go's `unicode.IsPrint`, but for code points no one has assigned.
fn is_print(character: char) -> bool {
    !character.is_control() && (character == ' ' || !character.is_whitespace())
}
