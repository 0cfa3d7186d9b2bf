//! Who may do what, until RBAC: everyone who proved who he is is a cluster admin, except nodes and those who only
//! want to become one.

mod bootstrap;
mod node;
mod references;

use std::sync::Arc;

use api::well_known::{GROUP_BOOTSTRAPPERS, GROUP_MASTERS, GROUP_NODES, USER_NODE_PREFIX};

use crate::query::Query;
use crate::request::RequestInfo;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;

/// What an identity is, for authorisation.
enum Role<'a> {
    Admin,
    /// A node, by its name; `None` if its user name is not a node's.
    Node(Option<&'a str>),
    Bootstrapper,
}

fn role(user: &User) -> Role<'_> {
    if user.is_in(GROUP_MASTERS) {
        return Role::Admin;
    }
    let node = user.name.strip_prefix(USER_NODE_PREFIX).filter(|n| !n.is_empty());
    match (user.is_in(GROUP_NODES), node) {
        (true, node) => Role::Node(node),
        (false, Some(_)) => Role::Node(None),
        (false, None) if user.is_in(GROUP_BOOTSTRAPPERS) => Role::Bootstrapper,
        (false, None) => Role::Admin,
    }
}

/// Lets a request pass or answers 403 in upstream's words.
pub(crate) async fn authorize(
    shared: &Arc<Shared>,
    user: &User,
    info: &RequestInfo,
    query: &Query,
) -> Result<(), ApiError> {
    let allowed = match role(user) {
        Role::Admin => true,
        Role::Node(None) => false,
        Role::Node(Some(node)) => node::allows(shared, user, node, info, query).await?,
        Role::Bootstrapper => bootstrap::allows(shared, user, info, query).await?,
    };
    if allowed { Ok(()) } else { Err(forbidden(user, info)) }
}

/// The same for a path that is no resource.
pub(crate) fn authorize_path(user: &User, verb: &str, path: &str) -> Result<(), ApiError> {
    match role(user) {
        Role::Admin => Ok(()),
        _ => Err(ApiError::ForbiddenPath { user: user.name.clone(), verb: verb.to_owned(), path: path.to_owned() }),
    }
}

fn forbidden(user: &User, info: &RequestInfo) -> ApiError {
    let kind = info.kind.info;
    let resource = match info.subresource {
        None => kind.plural.to_owned(),
        Some(sub) => format!("{}/{}", kind.plural, sub.as_str()),
    };
    let place = match &info.namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    let (verb, group) = (info.verb.as_str(), kind.group);
    let message = format!("User {:?} cannot {verb} resource {resource:?} in API group {group:?} {place}", user.name);
    ApiError::Forbidden(info.subject(), message)
}
