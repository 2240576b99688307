//! `POST /api/v1/admin/tokens`: a session token for the command line of a user, at most 24 hours.

use crate::extract::{Context, Json as Body};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use systemprompt_models::{Code, Refusal, parse_permissions};
use systemprompt_runtime::AppContext;

/// Longest life, in seconds.
const MAX_TTL: u64 = 24 * 3600;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/admin/tokens", issue)
            .takes::<NewToken>()
            .doc("admin", "Issues a session token; the value is in this answer and nowhere else"),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// User id or name.
    user: String,
    /// Space-separated permissions; all that the user has if absent.
    #[serde(default)]
    scope: Option<String>,
    /// Seconds, 60 to 86400; 3600 if absent.
    #[serde(default)]
    ttl_s: Option<u64>,
}

async fn issue(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(new): Body<NewToken>,
) -> crate::Result<Response> {
    let invalid = |field: &'static str, message: String| {
        Refusal::new(Code::Unprocessable, "a field is not valid").with_validation(field, message)
    };
    let ttl = new.ttl_s.unwrap_or(3600);
    if !(60..=MAX_TTL).contains(&ttl) {
        return Err(invalid("ttl_s", format!("60 to {MAX_TTL}")).into());
    }
    let user = context.users.get(&new.user).await?;
    let owned = user.permissions();
    let permissions = match &new.scope {
        None => owned.clone(),
        Some(scope) => parse_permissions(scope).map_err(|e| invalid("scope", e.to_string()))?,
    };
    if permissions.is_empty() || !permissions.iter().all(|p| owned.contains(p)) {
        return Err(invalid("scope", "a subset of what the user has, and not nothing".to_owned()).into());
    }
    let token = context.issue_token(&caller, &user, &permissions, Duration::from_secs(ttl)).await;
    let token = token.map_err(crate::Error::internal)?;
    let body = json!({"token": token.expose().as_str(), "token_type": "Bearer", "expires_in": ttl});
    Ok((StatusCode::CREATED, Json(body)).into_response())
}
