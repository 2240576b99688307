//! `POST /api/v1/core/oauth/register` (RFC 7591) and `GET|PUT|DELETE /register/{id}` (RFC 7592). No cookie is read here.

use super::answer::{Fault, json_answer, unstored};
use super::form::JSON_BODY;
use super::visitor::of_bearer;
use crate::extract::{Context, read};
use crate::services::server::route::Route;
use axum::extract::{FromRequest, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde_json::{Map, Value};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::json::check_object;
use systemprompt_models::{Permission, RequestContext};
use systemprompt_oauth::services::clients::registration;
use systemprompt_oauth::{ErrorCode, OauthError, OauthResult};
use systemprompt_runtime::AppContext;

/// Deepest nesting of metadata.
const MAX_DEPTH: usize = 8;

pub fn routes() -> Vec<Route> {
    let public =
        |route: Route| route.public(RateGroup::OauthPublic).envelope(Envelope::OAuth).body_limit(JSON_BODY);
    vec![
        public(Route::post("/api/v1/core/oauth/register", register)).takes::<MetadataDoc>().doc(
            "identity",
            "Registers a client; its secret and its management token are in this answer alone",
        ),
        public(Route::get("/api/v1/core/oauth/register/{id}", show))
            .doc("identity", "The metadata of a client, for who holds its management token"),
        public(Route::put("/api/v1/core/oauth/register/{id}", update))
            .takes::<MetadataDoc>()
            .doc("identity", "Replaces the metadata of a client and its management token"),
        public(Route::delete("/api/v1/core/oauth/register/{id}", deregister))
            .doc("identity", "Deletes a client with all that it was given"),
    ]
}

/// What the document says of metadata.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct MetadataDoc {
    client_name: Option<String>,
    redirect_uris: Option<Vec<String>>,
    post_logout_redirect_uris: Option<Vec<String>>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    /// Space-separated.
    scope: Option<String>,
    contacts: Option<Vec<String>>,
    /// `none`, `client_secret_basic`, `client_secret_post` or `private_key_jwt`.
    token_endpoint_auth_method: Option<String>,
    /// `web` or `native`.
    application_type: Option<String>,
    id_token_signed_response_alg: Option<String>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
    client_uri: Option<String>,
    logo_uri: Option<String>,
    policy_uri: Option<String>,
    tos_uri: Option<String>,
    software_id: Option<String>,
    software_version: Option<String>,
}

/// A request with the JSON object in it.
struct Metadata {
    caller: RequestContext,
    headers: HeaderMap,
    members: Map<String, Value>,
}

impl<S: Sync> FromRequest<S> for Metadata {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        use axum::extract::FromRequestParts as _;
        let (mut parts, body) = request.into_parts();
        let Context(caller) =
            Context::from_request_parts(&mut parts, state).await.map_err(IntoResponse::into_response)?;
        let refuse = |status: StatusCode, text: &'static str| {
            let mut response =
                Fault::new(&caller, OauthError::new(ErrorCode::InvalidClientMetadata, text)).into_response();
            *response.status_mut() = status;
            response
        };
        let media = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json"));
        }
        let body = read(body).await.map_err(|refusal| {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            refuse(status, "the body cannot be read")
        })?;
        let wrong =
            || refuse(StatusCode::BAD_REQUEST, "the body is not one JSON object without repeated names");
        check_object(&body, MAX_DEPTH).map_err(|_| wrong())?;
        // A character that PostgreSQL does not store.
        if body.windows(6).any(|part| part == b"\\u0000") {
            return Err(refuse(StatusCode::BAD_REQUEST, "a member holds a NUL character"));
        }
        let members = serde_json::from_slice(&body).map_err(|_| wrong())?;
        Ok(Self { caller, headers: parts.headers, members })
    }
}

async fn register(State(context): State<AppContext>, asked: Metadata) -> Response {
    let answer = async {
        let caller = signed_in(&context, asked.caller.clone(), &asked.headers).await?;
        let made = registration::register(&context.oauth, &caller, &asked.members).await?;
        let (secret, token) = (made.secret.as_ref(), made.registration_token.as_ref());
        Ok(registration::answer(&context.oauth, &made.client, secret, token))
    };
    match answer.await {
        Ok(body) => json_answer(StatusCode::CREATED, &body),
        Err(error) => Fault::new(&asked.caller, error).into_response(),
    }
}

/// Who registers: whom a bearer token says, if one is sent. The cookie of a browser is no consent to a registration.
async fn signed_in(
    context: &AppContext,
    caller: RequestContext,
    headers: &HeaderMap,
) -> OauthResult<RequestContext> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(caller);
    }
    let principal = of_bearer(context, headers, caller.client_ip).await?;
    // What a person lent a client makes no client of its own in their name.
    if !principal.is_in_person() && !principal.has(Permission::Admin) {
        return Err(OauthError::new(ErrorCode::InvalidToken, "the token is not valid here"));
    }
    Ok(RequestContext { principal, ..caller })
}

async fn show(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let token = bearer(&headers);
    match registration::manage(&context.oauth, &id, token).await {
        Ok((client, _)) => {
            let mut body = registration::answer(&context.oauth, &client, None, None);
            body.insert("registration_access_token".into(), token.into());
            json_answer(StatusCode::OK, &body)
        }
        Err(error) => Fault::new(&caller, error).into_response(),
    }
}

async fn update(State(context): State<AppContext>, Path(id): Path<String>, asked: Metadata) -> Response {
    let token = bearer(&asked.headers);
    match registration::update(&context.oauth, &asked.caller, &id, token, &asked.members).await {
        Ok(made) => {
            let token = made.registration_token.as_ref();
            json_answer(StatusCode::OK, &registration::answer(&context.oauth, &made.client, None, token))
        }
        Err(error) => Fault::new(&asked.caller, error).into_response(),
    }
}

async fn deregister(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match registration::deregister(&context.oauth, &caller, &id, bearer(&headers)).await {
        Ok(()) => {
            context.tell_revocation(&id).await;
            let mut response = StatusCode::NO_CONTENT.into_response();
            unstored(response.headers_mut());
            response
        }
        Err(error) => Fault::new(&caller, error).into_response(),
    }
}

/// The token of an `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
