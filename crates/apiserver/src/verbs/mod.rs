//! The verbs, written once for every kind in the table.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
mod get;
pub(crate) mod list;
mod list_body;
pub(crate) mod patch;
mod revision;
pub(crate) mod step;
mod update;
mod watch;

use api::{Subresource, Verb};
use axum::body::Body;

use crate::call::Call;
use crate::respond::ApiResponse;
use crate::status::ApiError;
use crate::subresources::{binding, eviction, log, scale, token};
use crate::virtual_kinds;

/// Does what a request asks for.
pub(crate) async fn run(call: Call, body: Body) -> Result<ApiResponse, ApiError> {
    if !call.info.kind.info.is_stored() {
        return virtual_kinds::run(&call, body).await;
    }
    if call.info.verb != Verb::Update {
        call.check_name()?;
    }
    match (call.info.verb, call.info.subresource) {
        (Verb::Get, Some(Subresource::Log)) => log::get(&call).await,
        (Verb::Get, Some(Subresource::Scale)) => scale::get(&call).await,
        (Verb::Update, Some(Subresource::Scale)) => scale::update(&call, body).await,
        (Verb::Patch, Some(Subresource::Scale)) => scale::patch(&call, body).await,
        (Verb::Create, Some(Subresource::Eviction)) => eviction::create(&call, body).await,
        (Verb::Create, Some(Subresource::Binding)) => binding::create(&call, body).await,
        (Verb::Create, Some(Subresource::Token)) => token::create(&call, body).await,
        (Verb::Get, _) => get::get(&call).await,
        (Verb::List, _) => list::list(&call).await,
        (Verb::Watch, _) => watch::watch(&call).await,
        (Verb::Create, _) => create::create(&call, body).await,
        (Verb::Update, _) => update::update(&call, body).await,
        (Verb::Patch, _) => patch::patch(&call, body).await,
        (Verb::Delete, _) => delete::delete(&call, body).await,
        (Verb::DeleteCollection, _) => delete::delete_collection(&call, body).await,
    }
}
