//! `/.well-known`: the metadata of the authorization server and of protected resources, and the public keys.

use crate::services::server::route::Route;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::Value;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::{Code, Refusal};
use systemprompt_oauth::services::discovery;
use systemprompt_runtime::AppContext;

/// How long a document may be kept, in seconds: never longer than a key is published before it signs.
const KEPT: &str = "public, max-age=300";

pub fn routes() -> Vec<Route> {
    let document =
        |path, summary| Route::get(path, server).public(RateGroup::Wellknown).doc("discovery", summary);
    vec![
        Route::get("/.well-known/jwks.json", jwks)
            .public(RateGroup::Wellknown)
            .doc("discovery", "Public keys, as a JWK Set"),
        document(
            "/.well-known/openid-configuration",
            "Metadata of the authorization server (OpenID Connect Discovery)",
        ),
        document("/.well-known/oauth-authorization-server", "The same metadata (RFC 8414)"),
        Route::get("/.well-known/openid-configuration/{*path}", server_at)
            .public(RateGroup::Wellknown)
            .doc("discovery", "The same, for an issuer with a path"),
        Route::get("/.well-known/oauth-authorization-server/{*path}", server_at)
            .public(RateGroup::Wellknown)
            .doc("discovery", "The same, for an issuer with a path"),
        Route::get("/.well-known/oauth-protected-resource", resource)
            .public(RateGroup::Wellknown)
            .doc("discovery", "Metadata of this deployment as a protected resource (RFC 9728)"),
        Route::get("/.well-known/oauth-protected-resource/{*path}", resource_at)
            .public(RateGroup::Wellknown)
            .doc("discovery", "Metadata of one surface, by its path"),
    ]
}

/// Read from memory; verifiers may keep it for as long as a key is published before it signs.
async fn jwks(State(context): State<AppContext>, headers: HeaderMap) -> Response {
    kept(&headers, "application/jwk-set+json", &context.keys.jwks())
}

async fn server(State(context): State<AppContext>, headers: HeaderMap) -> Response {
    kept(&headers, "application/json", &discovery::server_metadata(&context.oauth))
}

/// An issuer with a path is looked for behind the well-known part (RFC 8414 section 3.1).
async fn server_at(
    State(context): State<AppContext>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> crate::Result<Response> {
    let known = discovery::issuer_path(&context.oauth.settings());
    if known.is_some_and(|known| known.trim_matches('/') == path.trim_matches('/')) {
        Ok(server(State(context), headers).await)
    } else {
        Err(missing().into())
    }
}

/// OpenID Connect Discovery looks behind an issuer's path, where no route is: that path is only known by the configuration. The
/// request is read as one for the same document (section 4.1).
pub fn appended(context: &AppContext, request: &mut Request) {
    const DOCUMENT: &str = "/.well-known/openid-configuration";
    let path = request.uri().path().strip_suffix(DOCUMENT).filter(|path| !path.is_empty());
    if path.is_some() && path == discovery::issuer_path(&context.oauth.settings()).as_deref() {
        *request.uri_mut() = Uri::from_static(DOCUMENT);
    }
}

async fn resource(State(context): State<AppContext>, headers: HeaderMap) -> crate::Result<Response> {
    of_resource(&context, &headers, "")
}

async fn resource_at(
    State(context): State<AppContext>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> crate::Result<Response> {
    of_resource(&context, &headers, &format!("/{path}"))
}

fn of_resource(context: &AppContext, headers: &HeaderMap, path: &str) -> crate::Result<Response> {
    let metadata = discovery::resource_metadata(&context.oauth, path).ok_or_else(missing)?;
    Ok(kept(headers, "application/json", &metadata))
}

fn missing() -> Refusal {
    Refusal::new(Code::NotFound, "there is nothing of this kind here")
}

/// A document that may be kept, or word that the one which the client has is still the same.
fn kept(asked: &HeaderMap, media_type: &'static str, document: &Value) -> Response {
    let body = document.to_string();
    let digest = hex::encode(digest(&SHA256, body.as_bytes()));
    let etag = format!("\"{}\"", digest.get(..16).unwrap_or_default());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(KEPT)),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (header::ETAG, HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""))),
    ];
    let has = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_same =
        has.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    if is_same {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, body).into_response()
    }
}
