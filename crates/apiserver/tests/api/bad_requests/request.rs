//! A request as it is made, and what may be answered.

use serde_json::Value;

pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";
pub(super) const YAML: &str = "application/yaml";
/// Larger than any body may be.
pub(super) const TOO_MUCH: usize = 3 * 1024 * 1024 + 1;
/// How many random damages are done per verb.
pub(super) const DAMAGES: usize = 25;

/// A request that should not have been made.
#[derive(Clone)]
pub(super) struct Bad {
    pub(super) sentence: String,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// The codes it may be answered with; empty: any that says whose fault it is.
    pub(super) codes: &'static [u16],
    /// Whether chance may have made something sensible.
    pub(super) may_succeed: bool,
}

impl Bad {
    pub(super) fn new(method: &'static str, path: impl Into<String>, sentence: impl Into<String>) -> Bad {
        let (path, sentence) = (path.into(), sentence.into());
        Bad { sentence, method, path, headers: Vec::new(), body: Vec::new(), codes: &[], may_succeed: false }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Bad {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Bad {
        self.body = body.into();
        self
    }

    pub(super) fn json(self, body: &Value) -> Bad {
        self.body(body.to_string())
    }

    pub(super) fn codes(mut self, codes: &'static [u16]) -> Bad {
        self.codes = codes;
        self
    }

    pub(super) fn damaged(mut self) -> Bad {
        self.may_succeed = true;
        self
    }
}
