//! `/v1/auth/bridge/*` and `/v1/bridge/*`: credentials of the desktop bridge, and what it tells of itself (ID-99 to ID-102).

use super::oauth::answer::{Fault, json_answer};
use super::oauth::form::JSON_BODY;
use super::users::refused;
use crate::extract::{Context, Json as Body};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::{Code, Permission, Refusal, RequestContext, Secret};
use systemprompt_oauth::constants::SP_BRIDGE;
use systemprompt_oauth::services::bridge::{self, BridgeToken, Heartbeat};
use systemprompt_oauth::services::session::lookup;
use systemprompt_oauth::{ErrorCode, OauthError, OauthResult};
use systemprompt_runtime::AppContext;
use systemprompt_security::jwt::Surface;

const PEOPLE: &[Permission] = &[Permission::User, Permission::Admin];

pub fn routes() -> Vec<Route> {
    let bridge =
        |route: Route| route.signed(Surface::Bridge, PEOPLE, RateGroup::Bridge).body_limit(JSON_BODY);
    vec![
        Route::get("/v1/auth/bridge/capabilities", capabilities)
            .public(RateGroup::OauthPublic)
            .doc("bridge", "How a bridge may sign in"),
        Route::post("/v1/auth/bridge/pat", pat)
            .signed_or_public(Surface::Bridge)
            .envelope(Envelope::OAuth)
            .doc("bridge", "Takes an API key for a bridge's token"),
        Route::post("/v1/auth/bridge/session", session)
            .public(RateGroup::OauthPublic)
            .envelope(Envelope::OAuth)
            .body_limit(JSON_BODY)
            .takes::<CodeShown>()
            .doc("bridge", "Takes an exchange code for a bridge's token"),
        bridge(Route::post("/v1/auth/bridge/oauth-client", oauth_client)).envelope(Envelope::OAuth).doc(
            "bridge",
            "Makes the client by which the caller's bridge asks for hook tokens, or rotates its secret",
        ),
        Route::post("/api/v1/core/users/me/bridge-codes", make_code).in_person().doc(
            "bridge",
            "Makes an exchange code for the caller after a recent sign-in, shown in this answer",
        ),
        Route::post("/api/v1/admin/users/{id}/bridge-codes", make_code_for)
            .doc("admin", "Makes an exchange code for a user's bridge, shown in this answer"),
        bridge(Route::get("/v1/bridge/whoami", whoami)).doc("bridge", "Who the bridge acts for"),
        bridge(Route::post("/v1/bridge/heartbeat", heartbeat)).doc("bridge", "Notes that a bridge is there"),
        bridge(Route::post("/v1/bridge/profile/enabled_hosts", enabled_hosts))
            .takes::<Host>()
            .doc("bridge", "Notes whether the bridge serves a host"),
    ]
}

#[derive(Deserialize, JsonSchema)]
struct CodeShown {
    #[schemars(with = "String")]
    code: Secret<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Host {
    host: String,
    enabled: bool,
}

async fn capabilities() -> Json<Value> {
    Json(json!({"modes": ["pat", "session", "oauth-client"]}))
}

async fn pat(State(context): State<AppContext>, Context(caller): Context) -> Response {
    answer(&caller, bridge::by_key(&context.oauth, &caller).await)
}

async fn session(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(shown): Body<CodeShown>,
) -> Response {
    answer(&caller, bridge::exchange(&context.oauth, &caller, &shown.code).await)
}

async fn oauth_client(State(context): State<AppContext>, Context(caller): Context) -> Response {
    match bridge::provision(&context.oauth, &caller).await {
        Ok(made) => json_answer(
            StatusCode::OK,
            &json!({
                "client_id": made.client_id,
                "client_secret": made.secret.expose().as_str(),
                "token_endpoint": made.token_endpoint,
                "scope": made.scope,
            }),
        ),
        Err(error) => unproven(&caller, error),
    }
}

/// The one answer that shows a token.
fn answer(caller: &RequestContext, token: OauthResult<BridgeToken>) -> Response {
    match token {
        Ok(token) => json_answer(
            StatusCode::OK,
            &json!({
                "token": token.token.expose().as_str(),
                "ttl": token.ttl,
                "headers": {
                    "x-user-id": token.user_id.as_str(),
                    "x-session-id": token.session_id.as_str(),
                    "x-client-id": SP_BRIDGE,
                },
            }),
        ),
        Err(error) => unproven(caller, error),
    }
}

/// A credential that was not accepted is 401 here, as for everything that only asks for a credential (ID-99).
fn unproven(caller: &RequestContext, error: OauthError) -> Response {
    let is_refusal = error.code() == ErrorCode::InvalidGrant;
    let mut response = Fault::new(caller, error).into_response();
    if is_refusal {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    response
}

async fn make_code(State(context): State<AppContext>, Context(caller): Context) -> crate::Result<Response> {
    lookup::need_recent(&context.oauth, &caller.principal).await.map_err(refused)?;
    code_for(&context, &caller, caller.principal.user_id.as_str()).await
}

async fn make_code_for(
    State(context): State<AppContext>,
    Context(caller): Context,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> crate::Result<Response> {
    code_for(&context, &caller, &id).await
}

async fn code_for(context: &AppContext, caller: &RequestContext, user: &str) -> crate::Result<Response> {
    let user = context.users.get(user).await?;
    let code = bridge::make_code(&context.oauth, caller, &user).await.map_err(refused)?;
    let body = json!({"code": code.expose().as_str(), "expires_in": 120});
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

async fn whoami(State(context): State<AppContext>, Context(caller): Context) -> crate::Result<Json<Value>> {
    let user = context.users.get(caller.principal.user_id.as_str()).await?;
    let mut body = json!({"user_id": user.id, "email": user.email, "roles": user.roles});
    if let Some(members) = body.as_object_mut() {
        let optional = [("display_name", user.display_name), ("department", user.department)];
        members.extend(optional.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))));
    }
    Ok(Json(body))
}

async fn heartbeat(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(told): Body<Heartbeat>,
) -> crate::Result<StatusCode> {
    let known = bridge::heartbeat(&context.oauth, &caller.principal.user_id, &told).await.map_err(refused)?;
    if known {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::new(Code::NotFound, "you have no such session").into())
    }
}

async fn enabled_hosts(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(asked): Body<Host>,
) -> crate::Result<StatusCode> {
    let user = &caller.principal.user_id;
    bridge::enable_host(&context.oauth, user, &asked.host, asked.enabled).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}
