//! Field selectors, after `k8s.io/apimachinery/pkg/fields/selector.go`.

use std::fmt;

use super::ParseError;

/// A conjunction of `field=value` and `field!=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// `spec.nodeName`.
    pub field: String,
    /// Whether the field must equal the value (`=`, `==`) or differ from it (`!=`).
    pub equal: bool,
    /// The value, unescaped.
    pub value: String,
}

impl FieldSelector {
    /// Parses `spec.nodeName=box1,status.phase!=Running`. Commas, equal signs and backslashes in values are escaped by
    /// a backslash. Fields are not checked against a kind here; see [`FieldSelector::requirements`].
    pub fn parse(text: &str) -> Result<FieldSelector, ParseError> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        terms
            .into_iter()
            .filter(|t| !t.is_empty())
            .map(|t| parse_term(text, t))
            .collect::<Result<_, _>>()
            .map(FieldSelector)
    }

    /// The same from conditions.
    pub fn of(requirements: Vec<FieldRequirement>) -> FieldSelector {
        FieldSelector(requirements)
    }

    /// The conditions.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object whose fields `value_of` gives is selected (`None`: an unknown field, which never matches).
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|r| value_of(&r.field).is_some_and(|value| (value == r.value) == r.equal))
    }

    /// The one value `field` must have, if the selector says so (`RequiresExactMatch`).
    pub fn exact_match(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            let (comma, operator) = (if i > 0 { "," } else { "" }, if r.equal { "=" } else { "!=" });
            write!(f, "{comma}{}{operator}{}", r.field, escape(&r.value))?;
        }
        Ok(())
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=")
}

/// The text between commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn parse_term(text: &str, term: &str) -> Result<FieldRequirement, ParseError> {
    let not_understood = || ParseError(format!("invalid selector: '{text}'; can't understand '{term}'"));
    let at = term
        .char_indices()
        .map(|(i, _)| i)
        .find(|i| term[*i..].starts_with("!=") || term[*i..].starts_with('='))
        .ok_or_else(not_understood)?;
    let (field, rest) = term.split_at(at);
    let (equal, value) = match rest.strip_prefix("!=") {
        Some(value) => (false, value),
        None => (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).unwrap_or(rest)),
    };
    Ok(FieldRequirement { field: field.to_owned(), equal, value: unescape(value)? })
}

fn unescape(value: &str) -> Result<String, ParseError> {
    let bad_escape = |c: String| ParseError(format!("invalid field selector: invalid escape sequence: \\{c}"));
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => return Err(bad_escape(other.map(String::from).unwrap_or_default())),
            },
            // Upstream prints the character's number.
            ',' | '=' => {
                let text = format!("invalid field selector: unescaped character in value: {}", u32::from(c));
                return Err(ParseError(text));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}
