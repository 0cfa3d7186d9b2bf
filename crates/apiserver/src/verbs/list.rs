//! LIST: joins slices of the cache. Pages after the first show the same revision as the first, from the store's past if
//! the present has moved on.

use std::sync::Arc;

use api::KindInfo;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::json;
use store::{ListRequest, Revision};

use super::list_body::{ListBody, item};
use super::revision::Freshness;
use crate::cache::{Change, Entry, Filter, Snapshot};
use crate::call::Call;
use crate::negotiate::Shape;
use crate::respond::{self, ApiResponse};
use crate::status::ApiError;
use crate::table::{IncludeObject, Table, partial_metadata};

/// Objects read from the store at once when a page of the past needs more than it got.
const STORE_PAGE: usize = 500;

pub(super) async fn list(call: &Call) -> Result<ApiResponse, ApiError> {
    let filter =
        Filter::parse(call.info.kind.info, call.info.namespace.as_deref(), call.info.name.as_deref(), &call.query)?;
    let snapshot = selected(call, &filter).await?;
    let metadata = list_metadata(&filter, &snapshot);
    answer(call, &metadata, snapshot)
}

/// What a request selects: a page of it, if it asks for one.
pub(super) async fn selected(call: &Call, filter: &Filter) -> Result<Snapshot, ApiError> {
    let limit = match call.query.number("limit")? {
        None => usize::MAX,
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    // Whoever takes what is at hand gets all of it (`computeListLimit`).
    let is_first = call.query.get("continue").is_none();
    let limit =
        if is_first && Freshness::of(call.info.verb, &call.query)? == Freshness::Any { usize::MAX } else { limit };
    snapshot(call, filter, limit).await
}

async fn snapshot(call: &Call, filter: &Filter, limit: usize) -> Result<Snapshot, ApiError> {
    let cache = call.shared.cache.of(call.info.kind);
    if let Some(token) = call.query.get("continue") {
        let (revision, after) = parse_continue(token, &filter.prefix)?;
        if call.query.get("resourceVersion").is_some_and(|rv| rv != "0") {
            return Err(ApiError::BadRequest("specifying resource version is not allowed when using continue".into()));
        }
        let Some(revision) = revision else {
            let known = call.shared.reach(Freshness::Newest).await?;
            return Ok(cache.snapshot(filter, Some(&after), limit, known));
        };
        let goes_on = make_continue(INCONSISTENT, &filter.prefix, &after);
        return at(call, filter, Some(after), limit, revision).await.map_err(|error| match error {
            ApiError::Expired(_) => ApiError::ExpiredContinue(goes_on),
            other => other,
        });
    }
    let freshness = Freshness::of(call.info.verb, &call.query)?;
    let known = call.shared.reach(freshness).await?;
    match freshness {
        Freshness::Exact(revision) => at(call, filter, None, limit, revision).await,
        _ => Ok(cache.snapshot(filter, None, limit, known)),
    }
}

/// The selection as it was at `revision`.
async fn at(
    call: &Call,
    filter: &Filter,
    after: Option<String>,
    limit: usize,
    revision: Revision,
) -> Result<Snapshot, ApiError> {
    call.shared.cache.wait_for(revision).await?;
    let cache = call.shared.cache.of(call.info.kind);
    match cache.snapshot_at(filter, after.as_deref(), limit, revision) {
        Some(snapshot) => Ok(snapshot),
        None => from_store(call, filter, after, limit, revision).await,
    }
}

async fn from_store(
    call: &Call,
    filter: &Filter,
    after: Option<String>,
    limit: usize,
    revision: Revision,
) -> Result<Snapshot, ApiError> {
    let mut request = ListRequest { prefix: filter.prefix.clone(), after, revision: Some(revision), limit: None };
    let mut items: Vec<Arc<Entry>> = Vec::new();
    loop {
        let missing = limit.saturating_sub(items.len());
        request.limit = Some(if filter.is_everything() { missing.min(STORE_PAGE) } else { STORE_PAGE });
        let page = call.shared.store.list(request.clone()).await?;
        let read = page.items.len();
        let mut used = 0;
        for kv in page.items {
            used += 1;
            request.after = Some(kv.key.to_string());
            let revisions = (kv.create_revision, kv.mod_revision);
            let Ok(entry) = Entry::new(call.info.kind.stored(), kv.key, &kv.value, revisions, Change::Added) else {
                continue;
            };
            if filter.matches(&entry.key, &entry.select) {
                items.push(Arc::new(entry));
            }
            if items.len() >= limit {
                break;
            }
        }
        let left = page.remaining + (read - used);
        if items.len() >= limit || left == 0 || read == 0 {
            let remaining = filter.is_everything().then_some(left);
            return Ok(Snapshot { items, remaining, more: left > 0, revision });
        }
    }
}

/// The revision in a token that goes on with whatever there is now, given where the first page's revision is gone.
const INCONSISTENT: Revision = -1;

/// The version of a token.
const CONTINUE_VERSION: &str = "meta.k8s.io/v1";

/// What a token says (`continueToken` in `k8s.io/apiserver/pkg/storage/continue.go`).
#[derive(serde::Deserialize)]
struct ContinueToken {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: Revision,
    #[serde(default)]
    start: String,
}

/// A continue token names the revision of the first page and where the next one starts, as upstream's does.
fn make_continue(revision: Revision, prefix: &str, last: &str) -> String {
    let start = last.strip_prefix(prefix).unwrap_or(last);
    BASE64_URL_SAFE_NO_PAD.encode(json!({"v": CONTINUE_VERSION, "rv": revision, "start": start}).to_string())
}

/// No revision stands for now.
fn parse_continue(token: &str, prefix: &str) -> Result<(Option<Revision>, String), ApiError> {
    let invalid = |why: &str| ApiError::BadRequest(format!("invalid continue token: continue key is not valid: {why}"));
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| {
        let is_foreign = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_');
        invalid(&format!("illegal base64 data at input byte {}", token.find(is_foreign).unwrap_or(token.len())))
    })?;
    let token: ContinueToken =
        serde_json::from_slice(&bytes).map_err(|e| invalid(&api::decode::go_error(&bytes, &e)))?;
    if token.v != CONTINUE_VERSION {
        return Err(invalid(&format!("server does not recognize this encoded version {}", token.v)));
    }
    if token.rv == 0 {
        return Err(invalid(&format!("incorrect encoded start resourceVersion (version {CONTINUE_VERSION})")));
    }
    if token.start.is_empty() {
        return Err(invalid(&format!("encoded start key empty (version {CONTINUE_VERSION})")));
    }
    // Nobody gets out of what he may list by going up.
    if token.start.trim_start_matches('/').split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(invalid(&token.start));
    }
    Ok((Some(token.rv).filter(|r| *r > 0), format!("{prefix}{}", token.start.trim_start_matches('/'))))
}

pub(super) fn list_metadata(filter: &Filter, snapshot: &Snapshot) -> String {
    let mut metadata = json!({"resourceVersion": snapshot.revision.to_string()});
    if let Some(last) = snapshot.items.last().filter(|_| snapshot.more) {
        metadata["continue"] = json!(make_continue(snapshot.revision, &filter.prefix, &last.key));
        if let Some(remaining) = snapshot.remaining.filter(|r| *r > 0) {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    metadata.to_string()
}

pub(super) fn answer(call: &Call, metadata: &str, mut snapshot: Snapshot) -> Result<ApiResponse, ApiError> {
    let info = call.info.kind.info;
    if call.info.kind.view.is_some() {
        snapshot.items.iter_mut().for_each(|entry| *entry = entry.shown_as(call.info.kind));
    }
    if call.output.is_plain() {
        let body = ListBody::new(info, metadata, snapshot.items);
        return Ok(respond::json_body(axum::body::Body::new(body)));
    }
    let json = in_one_piece(call, metadata, snapshot.items.iter().map(|e| e.json()))?;
    Ok(respond::encoded(StatusCode::OK, json.into(), call.output.encoding))
}

/// A whole list in the shape asked for.
pub(crate) fn in_one_piece<'a>(
    call: &Call,
    metadata: &str,
    objects: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, ApiError> {
    let (kind, meta) = (call.info.kind, call.output.meta);
    match call.output.shape {
        Shape::Object => Ok(join_typed(kind.info, metadata, objects)),
        Shape::Metadata => Err(ApiError::NotOfThatShape(format!(
            "you requested PartialObjectMetadata, but the requested object is a list (*{}List)",
            api::decode::internal_name(kind.info)
        ))),
        Shape::MetadataList => {
            let items: Vec<Vec<u8>> = objects.map(|object| partial_metadata(object, meta)).collect();
            Ok(join("PartialObjectMetadataList", meta, metadata, items.iter().map(Vec::as_slice)))
        }
        Shape::Table => Ok(Table::new(kind, IncludeObject::parse(&call.query)?, meta).of(metadata, true, objects)),
    }
}

/// A whole list of objects of one kind, in one piece.
pub(crate) fn join_typed<'a>(info: &KindInfo, metadata: &str, objects: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let items: Vec<Vec<u8>> = objects.map(|json| [b"{", item(info, json)].concat()).collect();
    join(&format!("{}List", info.kind), &info.api_version(), metadata, items.iter().map(Vec::as_slice))
}

/// A whole list in one piece.
fn join<'a>(kind: &str, api_version: &str, metadata: &str, objects: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = super::list_body::start(kind, api_version, metadata);
    for (index, object) in objects.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(object);
    }
    out.extend_from_slice(super::list_body::END);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back_as_they_went() {
        let token = make_continue(42, "/registry/pods/", "/registry/pods/default/a");
        assert_eq!(parse_continue(&token, "/registry/pods/").unwrap(), (Some(42), "/registry/pods/default/a".into()));
        let token = make_continue(INCONSISTENT, "/registry/pods/", "/registry/pods/default/a");
        assert_eq!(parse_continue(&token, "/registry/pods/").unwrap().0, None);
        for (bad, why) in [
            ("", "unexpected end of JSON input"),
            ("!!", "illegal base64 data at input byte 0"),
            ("e30=", "illegal base64 data at input byte 3"),
            ("e30", "server does not recognize this encoded version "),
            ("bm90IGpzb24", "invalid character 'o' in literal null (expecting 'u')"),
        ] {
            let error = parse_continue(bad, "/registry/pods/").unwrap_err().to_string();
            assert_eq!(error, format!("invalid continue token: continue key is not valid: {why}"), "{bad}");
        }
        let up = make_continue(42, "/registry/pods/", "/registry/pods/../secrets/");
        let error = parse_continue(&up, "/registry/pods/").unwrap_err().to_string();
        assert_eq!(error, "invalid continue token: continue key is not valid: ../secrets/");
    }
}
