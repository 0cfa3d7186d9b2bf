//! GET of one object: from the cache, as fresh as asked.

use http::StatusCode;

use super::revision::{Freshness, parse};
use crate::call::Call;
use crate::negotiate::Shape;
use crate::respond::{self, ApiResponse};
use crate::status::ApiError;
use crate::table::{IncludeObject, Table};

pub(super) async fn get(call: &Call) -> Result<ApiResponse, ApiError> {
    if call.query.flag("export") {
        let gone = "the export parameter, deprecated since v1.14, is no longer supported";
        return Err(ApiError::BadRequest(gone.to_owned()));
    }
    let freshness = match parse(call.info.verb, call.query.get("resourceVersion"))? {
        None => Freshness::Newest,
        Some(0) => Freshness::Any,
        Some(revision) => Freshness::NotOlderThan(revision),
    };
    call.shared.reach(freshness).await?;
    let entry = call.shared.cache.of(call.info.kind).get(&call.info.key());
    let entry = entry.ok_or_else(|| ApiError::NotFound(call.info.subject()))?.shown_as(call.info.kind);
    if call.output.shape == Shape::Table {
        let table = Table::new(call.info.kind, IncludeObject::parse(&call.query)?, call.output.meta);
        let table = table.of_one(entry.json());
        return Ok(respond::encoded(StatusCode::OK, table.into(), call.output.encoding));
    }
    Ok(respond::object(StatusCode::OK, call.info.kind, entry.json_bytes(), call.output))
}
