//! `GET /api/v1/openapi.json`.

use crate::services::server::route::{Route, RouteSpec};
use axum::response::IntoResponse;
use bytes::Bytes;
use http::header;
use systemprompt_config::profile::rate_limits::RateGroup;

/// The route; `document` was made from all routes, this one among them.
pub fn route(document: String) -> Route {
    let document = Bytes::from(document);
    let handler = move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], document).into_response() }
    };
    Route::get("/api/v1/openapi.json", handler)
        .public(RateGroup::Wellknown)
        .doc("discovery", "This document, OpenAPI 3.1")
}

/// What the document says of itself.
pub fn spec() -> RouteSpec {
    route(String::new()).spec
}
