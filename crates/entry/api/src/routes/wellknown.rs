//! `GET /.well-known/jwks.json`: the public keys of access and ID tokens (RFC 7517).

use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::IntoResponse;
use http::header;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/.well-known/jwks.json", jwks)
            .public(RateGroup::Wellknown)
            .doc("discovery", "Public keys, as a JWK Set"),
    ]
}

/// Read from memory; verifiers may keep it for as long as a key is published before it signs.
async fn jwks(State(context): State<AppContext>) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/jwk-set+json"),
        (header::CACHE_CONTROL, "public, max-age=300"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, context.keys.jwks().to_string())
}
