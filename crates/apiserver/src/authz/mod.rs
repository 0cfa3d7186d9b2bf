//! Who may do what: a chain of authorizers, the first that allows decides. A refusal is decided on the newest state, so
//! that who was given a right a moment ago has it.

mod attributes;
mod bootstrap;
mod node;
mod references;

use std::fmt;
use std::sync::Arc;

use api::well_known::{GROUP_BOOTSTRAPPERS, GROUP_MASTERS};

pub(crate) use attributes::{Attributes, Resource, Target};

use crate::rbac::Grant;
use crate::server::Shared;
use crate::status::ApiError;

/// What the chain says, and why.
pub(crate) enum Decision {
    Allow(Reason),
    /// Nobody allows it; why rules could not be read, if so.
    NoOpinion(String),
}

/// Why something is allowed.
pub(crate) enum Reason {
    /// By what the user is: a cluster admin, a node, somebody who joins.
    Identity,
    /// By a role.
    Grant(Arc<Grant>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Identity => Ok(()),
            Reason::Grant(grant) => write!(f, "RBAC: allowed by {}", grant.description),
        }
    }
}

/// Lets a request pass and says why, or answers 403 in upstream's words.
pub(crate) async fn authorize(shared: &Arc<Shared>, attributes: &Attributes<'_>) -> Result<Reason, ApiError> {
    match decide(shared, attributes).await? {
        Decision::Allow(reason) => Ok(reason),
        Decision::NoOpinion(reason) => Err(attributes.forbidden(&reason)),
    }
}

/// Asks the authorizers.
pub(crate) async fn decide(shared: &Arc<Shared>, attributes: &Attributes<'_>) -> Result<Decision, ApiError> {
    let user = attributes.user;
    if user.is_in(GROUP_MASTERS) {
        return Ok(Decision::Allow(Reason::Identity));
    }
    let mut why_not = String::new();
    if let Target::Resource(target) = &attributes.target {
        let verb = attributes.verb;
        let allowed = match user.node() {
            Some(node) => node::allows(shared, user, node, verb, target).await?,
            None if user.is_in(GROUP_BOOTSTRAPPERS) => bootstrap::allows(shared, user, verb, target).await?,
            None => false,
        };
        if allowed {
            return Ok(Decision::Allow(Reason::Identity));
        }
        why_not = user.node().map(|node| node::reason(node, verb, target)).unwrap_or_default();
    }
    if let Some(grant) = shared.cache.rights().allows(attributes) {
        return Ok(Decision::Allow(Reason::Grant(grant)));
    }
    // Perhaps the right is only too new. A store that cannot be asked changes nothing about what is known.
    let caught_up = shared.cache.catch_up().await;
    let rights = shared.cache.rights();
    match rights.allows(attributes).filter(|_| caught_up.is_ok()) {
        Some(grant) => Ok(Decision::Allow(Reason::Grant(grant))),
        None => {
            let reasons = [why_not, rights.problems(attributes)];
            let said: Vec<String> = reasons.into_iter().filter(|reason| !reason.is_empty()).collect();
            Ok(Decision::NoOpinion(said.join("\n")))
        }
    }
}
