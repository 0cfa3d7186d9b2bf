//! `/swagger-ui`: the schema of `/openapi/v2` for a person with a browser, without anything from outside.

use std::sync::LazyLock;

use axum::body::Body;
use http::Request;
use swagger_ui_dist::{ApiDefinition, OpenApiSource, generate_routes};
use tower::ServiceExt;

use crate::respond::ApiResponse;

/// Where the page is; its scripts and styles lie below.
const PREFIX: &str = "/swagger-ui";

static PAGES: LazyLock<axum::Router> = LazyLock::new(|| {
    let source = OpenApiSource::Uri("/openapi/v2");
    generate_routes(ApiDefinition { uri_prefix: PREFIX, api_definition: source, title: Some("Coracle") })
});

/// The page, or a part of it.
pub(crate) async fn respond(path: &str) -> ApiResponse {
    // The page names its parts relative to how it was asked for: without the slash at the end.
    let path = if path.trim_end_matches('/') == PREFIX { PREFIX } else { path };
    let request = Request::get(path).body(Body::empty()).expect("the path was a request's before");
    match PAGES.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
