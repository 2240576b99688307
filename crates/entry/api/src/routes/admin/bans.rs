//! `/api/v1/admin/bans`: addresses and networks that are refused before anything else is looked at.

use super::page;
use crate::extract::{Context, Json as Body, Query};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde_json::Value;
use systemprompt_runtime::AppContext;
use systemprompt_security::bans::NewBan;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/bans", list)
            .query(&["limit", "cursor"])
            .doc("admin", "Bans in force, the oldest first"),
        Route::post("/api/v1/admin/bans", add)
            .takes::<NewBanDoc>()
            .doc("admin", "Bans an address or a network; 409 if that would lock out the caller, loopback or a trusted proxy"),
        Route::delete("/api/v1/admin/bans/{id}", remove).doc("admin", "Ends a ban before its time"),
    ]
}

/// What the document says of a new ban.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct NewBanDoc {
    /// `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/48`; at most a /8, or a /32 of IPv6.
    network: String,
    /// At most 200 characters.
    reason: Option<String>,
    /// Seconds; until it is removed if absent.
    expires_in_s: Option<u64>,
    /// Bans even the caller, loopback or a trusted proxy.
    force: Option<bool>,
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let bans = context.bans.page(&query.cursor()?, limit + 1).await?;
    Ok(page(bans, limit, |ban| ban.id.to_string()))
}

async fn add(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(new): Body<NewBan>,
) -> crate::Result<Response> {
    let config = context.config();
    let ban = context.bans.add(&caller, &new, &config.profile.server.trusted_proxies).await?;
    Ok((StatusCode::CREATED, Json(ban)).into_response())
}

async fn remove(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<StatusCode> {
    context.bans.remove(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
