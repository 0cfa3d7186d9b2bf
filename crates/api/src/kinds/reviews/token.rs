//! TokenReview: whose is this token?

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenReview;
use serde_json::{Value, json};

use super::review;
use crate::Resource;
use crate::kinds::{KindInfo, Scope};

impl Resource for TokenReview {
    const INFO: KindInfo =
        review("authentication.k8s.io", "TokenReview", "tokenreviews", "tokenreview", Scope::Cluster);

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), crate::printing::age(&self.metadata, now)]
    }
}
