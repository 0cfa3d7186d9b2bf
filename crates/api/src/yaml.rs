//! YAML as Kubernetes reads and prints it (YAML 1.1 scalars, several documents in one file).
//!
//! Reading goes through `serde-saphyr`, always into a JSON tree first: a typed field would swallow `yes` as a string. Files
//! are read strictly ([`parse_all`], [`parse_one`]), what is sent to a server as leniently as there ([`parse_first`]).
//! Printing is our own, byte for byte what `sigs.k8s.io/yaml` prints and thus what `kubectl -o yaml` shows.

mod first;
mod lines;
mod print;
mod scalar;

use serde_json::Value;
use serde_saphyr::budget::Budget;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

pub use first::{First, parse_first};
pub use lines::line_of;
pub use print::to_string;

/// The most scalars, maps and lists one text may have; a List of many objects is large, an alias bomb is larger.
const MAX_NODES: usize = 4_000_000;
/// The most scalars, maps and lists that aliases may repeat.
const MAX_ALIASED_NODES: usize = 100_000;
/// The deepest nesting, that of the JSON decoder.
const MAX_DEPTH: usize = 128;
/// The most documents in one text.
const MAX_DOCUMENTS: usize = 100_000;
/// The stack for reading: the decoder recurses, and takes some 30 KiB a level where nothing is optimised, which the usual
/// stack of a thread does not have for every level allowed.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error converting YAML to JSON: {0}")]
pub struct YamlError(pub String);

/// Reads every document; empty ones are skipped. Duplicate keys are an error that names the key and line.
pub fn parse_all(text: &str) -> Result<Vec<Value>, YamlError> {
    documents(text, DuplicateKeyPolicy::Error)
}

fn documents<T>(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Vec<T>, YamlError>
where
    T: serde::de::DeserializeOwned + Send,
{
    if let Some(line) = tab_indented_line(text) {
        return Err(YamlError(format!("yaml: line {line}: found character that cannot start any token")));
    }
    on_a_large_stack(|| {
        let read = serde_saphyr::from_multiple_with_options(text, options(duplicate_keys));
        read.map_err(|error| explain(error.without_snippet()))
    })
}

/// Does `work` where it may recurse as deep as [`MAX_DEPTH`] allows, whoever calls.
fn on_a_large_stack<T: Send>(work: impl FnOnce() -> Result<T, YamlError> + Send) -> Result<T, YamlError> {
    let failed = || YamlError("yaml: cannot be read now".to_owned());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        thread.map_err(|_| failed())?.join().map_err(|_| failed())?
    })
}

/// Reads the only document of a text that is bytes yet, JSON or YAML.
pub fn parse_one(text: &[u8]) -> Result<Value, YamlError> {
    if let Ok(json) = serde_json::from_slice(text) {
        return Ok(json);
    }
    let text = std::str::from_utf8(text).map_err(|e| YamlError(format!("yaml: {e}")))?;
    match parse_all(text)?.as_mut_slice() {
        [] => Ok(Value::Null),
        [one] => Ok(one.take()),
        _ => Err(YamlError("yaml: more than one document".to_owned())),
    }
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> serde_saphyr::Options {
    let mut budget = Budget::default();
    budget.max_nodes = MAX_NODES;
    budget.max_events = 3 * MAX_NODES;
    budget.max_depth = MAX_DEPTH;
    budget.max_documents = MAX_DOCUMENTS;
    let mut options = serde_saphyr::options! {
        budget: Some(budget),
        duplicate_keys: duplicate_keys,
        legacy_octal_numbers: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
    };
    options.alias_limits.max_total_replayed_events = MAX_ALIASED_NODES;
    options
}

/// The error in the words of Go's YAML library, as far as it has words for it.
fn explain(error: &serde_saphyr::Error) -> YamlError {
    let line = error.location().map_or(1, |l| l.line());
    YamlError(match error {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("");
            format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map")
        }
        other => {
            let text = other.to_string();
            let text = text.lines().next().unwrap_or("");
            let text = text.strip_prefix("error: ").unwrap_or(text);
            format!("yaml: line {line}: {text}")
        }
    })
}

/// The first line that is indented by a tab where YAML wants spaces. Inside brackets, braces and quotes tabs are fine,
/// and block scalars cannot contain such a line.
fn tab_indented_line(text: &str) -> Option<usize> {
    if !text.contains("\n\t") && !text.starts_with('\t') {
        return None;
    }
    let mut context = Context::default();
    for (i, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if line.starts_with('\t') && !content.is_empty() && !content.starts_with('#') && context.is_block() {
            return Some(i + 1);
        }
        context.read(line);
    }
    None
}

/// How many brackets are open, and which quote.
#[derive(Default)]
struct Context {
    depth: usize,
    quote: Option<char>,
}

impl Context {
    fn is_block(&self) -> bool {
        self.depth == 0 && self.quote.is_none()
    }

    fn read(&mut self, line: &str) {
        let (mut before, mut chars) = (' ', line.chars());
        while let Some(c) = chars.next() {
            // A quote or bracket means something only where a token can begin.
            let token = " \t,:[{-".contains(before) || self.depth > 0;
            match (self.quote, c) {
                (Some('"'), '\\') => drop(chars.next()),
                (Some(quote), c) if quote == c => self.quote = None,
                (Some(_), _) => {}
                (None, '#') if before.is_whitespace() => return,
                (None, '"' | '\'') if token => self.quote = Some(c),
                (None, '[' | '{') if token => self.depth += 1,
                (None, ']' | '}') => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            before = c;
        }
    }
}

#[cfg(test)]
mod tests;
