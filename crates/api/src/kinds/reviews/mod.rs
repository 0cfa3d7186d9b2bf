//! Reviews: questions to the API server that look like objects. They are created, answered in their status, and forgotten.

mod access;
mod self_subject;
mod token;

use crate::kinds::{CREATED_AT, KindInfo, NAME, Scope, Verb};
use crate::names::NameRule;

/// The row of a review.
const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    scope: Scope,
) -> KindInfo {
    KindInfo {
        group,
        version: "v1",
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        scope,
        verbs: Verb::CREATE_ONLY,
        subresources: &[],
        columns: &[NAME, CREATED_AT],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    }
}
