//! `GET|PATCH /api/v1/core/users/me`.

use super::refused;
use crate::extract::{Context, Json as Body, etag, if_match};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::Permission;
use systemprompt_oauth::services::session::lookup;
use systemprompt_oauth::{User, UserChange};
use systemprompt_runtime::AppContext;
use systemprompt_security::jwt::Surface;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/core/users/me", get)
            .signed(Surface::Api, &[Permission::User, Permission::Admin], RateGroup::OauthAuth)
            .doc("identity", "The caller, with the ETag"),
        Route::patch("/api/v1/core/users/me", change).in_person().takes::<OwnChange>().doc(
            "identity",
            "Changes the caller's name, language or, after a recent sign-in, mail; needs If-Match",
        ),
    ]
}

/// What a person may change of themselves.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OwnChange {
    display_name: Option<String>,
    locale: Option<String>,
    email: Option<String>,
}

fn answer(user: &User) -> Response {
    (StatusCode::OK, [(header::ETAG, etag(user.version))], Json(json!(user))).into_response()
}

async fn get(State(context): State<AppContext>, Context(caller): Context) -> crate::Result<Response> {
    Ok(answer(&context.users.get(caller.principal.user_id.as_str()).await?))
}

async fn change(
    State(context): State<AppContext>,
    Context(caller): Context,
    headers: HeaderMap,
    Body(asked): Body<OwnChange>,
) -> crate::Result<Response> {
    if asked.email.is_some() {
        lookup::need_recent(&context.oauth, &caller.principal).await.map_err(refused)?;
    }
    let OwnChange { display_name, locale, email } = asked;
    let change = UserChange { display_name, locale, email, ..UserChange::default() };
    let id = caller.principal.user_id.clone();
    let user = context.change_user(&caller, id.as_str(), Some(if_match(&headers)?), change).await?;
    Ok(answer(&user))
}
