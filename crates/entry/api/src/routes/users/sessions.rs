//! `/api/v1/core/users/me/sessions` (ID-81).

use super::{missing, refused};
use crate::extract::{Context, Json as Body};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_oauth::services::session::lookup;
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/core/users/me/sessions", list)
            .in_person()
            .doc("identity", "The caller's live sessions, the newest first"),
        Route::delete("/api/v1/core/users/me/sessions/{id}", end)
            .in_person()
            .doc("identity", "Ends a session of the caller with every token of it"),
        Route::post("/api/v1/core/users/me/sessions/revoke_all", end_all)
            .in_person()
            .takes::<EndAll>()
            .doc("identity", "Ends all sessions of the caller, or all others"),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndAll {
    /// Whether the session that asks goes on.
    #[serde(default)]
    keep_current: bool,
}

async fn list(State(context): State<AppContext>, Context(caller): Context) -> crate::Result<Json<Value>> {
    let items = lookup::own(&context.oauth, &caller.principal).await.map_err(refused)?;
    Ok(Json(json!({"items": items, "next": null})))
}

async fn end(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<StatusCode> {
    if !lookup::end_own(&context.oauth, &caller, &id).await.map_err(refused)? {
        return Err(missing("session"));
    }
    context.auth.forget();
    context.tell_revocation(&id).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn end_all(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(asked): Body<EndAll>,
) -> crate::Result<Json<Value>> {
    let ended = lookup::end_all_own(&context.oauth, &caller, asked.keep_current).await.map_err(refused)?;
    context.auth.forget();
    context.tell_revocation(caller.principal.user_id.as_str()).await;
    Ok(Json(json!({"ended": ended})))
}
