//! Label selectors (equality and set based) and field selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `key in (a,b)`, also `key=a`.
    In(String, Vec<String>),
    /// `key notin (a,b)`, also `key!=a`; true for objects without the key.
    NotIn(String, Vec<String>),
    /// `key`.
    Exists(String),
    /// `!key`.
    DoesNotExist(String),
}

/// A conjunction of requirements; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// Why a selector is not one; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

impl Selector {
    /// Parses `a=b,c!=d,e in (f,g),h,!i`.
    pub fn parse(_text: &str) -> Result<Selector, ParseError> {
        todo!()
    }

    /// The selector of a ReplicationController or Service: every pair must match.
    pub fn from_map(_map: &BTreeMap<String, String>) -> Selector {
        todo!()
    }

    /// The selector of a `metav1.LabelSelector`.
    pub fn from_label_selector(_selector: &LabelSelector) -> Result<Selector, ParseError> {
        todo!()
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, _labels: Option<&BTreeMap<String, String>>) -> bool {
        todo!()
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

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
    /// Parses `spec.nodeName=box1,status.phase!=Running`. Fields are not checked against a kind here; see
    /// [`FieldSelector::requirements`].
    pub fn parse(_text: &str) -> Result<FieldSelector, ParseError> {
        todo!()
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
    pub fn matches<'a>(&self, _value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        todo!()
    }
}
