//! SelfSubjectReview: who am I? (KEP-3325)

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use serde_json::{Value, json};

use super::review;
use crate::Resource;
use crate::kinds::{KindInfo, Scope};

impl Resource for SelfSubjectReview {
    const INFO: KindInfo =
        review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", Scope::Cluster);

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), crate::printing::created_at(&self.metadata)]
    }
}
