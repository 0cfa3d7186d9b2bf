//! Label selectors (equality and set based) and field selectors.
//!
//! The grammar, the order of requirements and the error texts are those of `k8s.io/apimachinery/pkg/labels` and
//! `pkg/fields`. `label` parses the former, `field` the latter.

mod field;
mod label;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub use field::{FieldRequirement, FieldSelector};

use crate::field::{ErrorList, Path, invalid};
use crate::names;

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `key=a`, also `key==a`.
    Equals(String, String),
    /// `key!=a`; true for objects without the key.
    NotEquals(String, String),
    /// `key in (a,b)`.
    In(String, Vec<String>),
    /// `key notin (a,b)`; true for objects without the key.
    NotIn(String, Vec<String>),
    /// `key`.
    Exists(String),
    /// `!key`.
    DoesNotExist(String),
    /// `key>5`: the label is an integer greater than this.
    GreaterThan(String, i64),
    /// `key<5`: the label is an integer less than this.
    LessThan(String, i64),
}

impl Requirement {
    /// The label's key.
    pub fn key(&self) -> &str {
        match self {
            Requirement::Equals(key, _)
            | Requirement::NotEquals(key, _)
            | Requirement::In(key, _)
            | Requirement::NotIn(key, _)
            | Requirement::Exists(key)
            | Requirement::DoesNotExist(key)
            | Requirement::GreaterThan(key, _)
            | Requirement::LessThan(key, _) => key,
        }
    }

    fn values(&self) -> &[String] {
        match self {
            Requirement::Equals(_, value) | Requirement::NotEquals(_, value) => std::slice::from_ref(value),
            Requirement::In(_, values) | Requirement::NotIn(_, values) => values,
            _ => &[],
        }
    }

    /// Whether a label of this value (`None`: no such label) is selected.
    fn matches(&self, value: Option<&str>) -> bool {
        let integer = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Requirement::Equals(_, wanted) => value == Some(wanted),
            Requirement::NotEquals(_, unwanted) => value != Some(unwanted),
            Requirement::In(_, values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(_, values) => !value.is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::Exists(_) => value.is_some(),
            Requirement::DoesNotExist(_) => value.is_none(),
            Requirement::GreaterThan(_, bound) => integer().is_some_and(|v| v > *bound),
            Requirement::LessThan(_, bound) => integer().is_some_and(|v| v < *bound),
        }
    }

    /// Checks key and values (`NewRequirement` upstream).
    fn validated(self) -> Result<Requirement, ParseError> {
        let mut errors = ErrorList::new();
        let problems = names::is_qualified_name(self.key());
        if !problems.is_empty() {
            errors.push(invalid(&Path::new("key"), self.key(), &problems.join("; ")));
        }
        let path = Path::new("values");
        if matches!(&self, Requirement::In(_, v) | Requirement::NotIn(_, v) if v.is_empty()) {
            let detail = "for 'in', 'notin' operators, values set can't be empty";
            errors.push(invalid(&path, serde_json::json!([]), detail));
        }
        for (i, value) in self.values().iter().enumerate() {
            let problems = names::is_label_value(value);
            if !problems.is_empty() {
                errors.push(invalid(&path.index(i).key(self.key()), value.as_str(), &problems.join("; ")));
            }
        }
        match aggregate(&errors) {
            None => Ok(self),
            Some(text) => Err(ParseError(text)),
        }
    }
}

/// Several errors as one text: `a` or `[a, b]`, as Go's `utilerrors.Aggregate` prints them.
fn aggregate(errors: &ErrorList) -> Option<String> {
    match errors.as_slice() {
        [] => None,
        [one] => Some(one.to_string()),
        many => Some(format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requirement::Equals(key, value) => write!(f, "{key}={value}"),
            Requirement::NotEquals(key, value) => write!(f, "{key}!={value}"),
            Requirement::In(key, values) => write!(f, "{key} in ({})", values.join(",")),
            Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(",")),
            Requirement::Exists(key) => f.write_str(key),
            Requirement::DoesNotExist(key) => write!(f, "!{key}"),
            Requirement::GreaterThan(key, bound) => write!(f, "{key}>{bound}"),
            Requirement::LessThan(key, bound) => write!(f, "{key}<{bound}"),
        }
    }
}

/// A conjunction of requirements, ordered by key; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// Why a selector is not one; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

impl Selector {
    /// Parses `a=b,c!=d,e in (f,g),h,!i,j>1`.
    pub fn parse(text: &str) -> Result<Selector, ParseError> {
        label::parse(text).map(Selector::of)
    }

    /// The conjunction of `requirements`.
    fn of(mut requirements: Vec<Requirement>) -> Selector {
        requirements.sort_by(|a, b| a.key().cmp(b.key()));
        Selector(requirements)
    }

    /// The selector of a ReplicationController or Service: every pair must match.
    pub fn from_map(map: &BTreeMap<String, String>) -> Selector {
        Selector(map.iter().map(|(k, v)| Requirement::Equals(k.clone(), v.clone())).collect())
    }

    /// The selector of a `metav1.LabelSelector` (`LabelSelectorAsSelector`). An empty one selects everything; what an
    /// absent one means is up to the caller.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Selector, ParseError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::Equals(key.clone(), value.clone()).validated()?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let mut values = expression.values.clone().unwrap_or_default();
            values.sort();
            values.dedup();
            let requirement = match expression.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                other => return Err(ParseError(format!("{other:?} is not a valid label selector operator"))),
            };
            requirements.push(requirement.validated()?);
        }
        Ok(Selector::of(requirements))
    }

    /// The conditions, ordered by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.0.iter().all(|r| r.matches(labels.and_then(|l| l.get(r.key())).map(String::as_str)))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            write!(f, "{}{requirement}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
