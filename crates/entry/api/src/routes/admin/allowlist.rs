//! `/api/v1/admin/allowlist`: findings of the governance scan that somebody answers for.

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
use systemprompt_security::governance::NewAllowance;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/allowlist", list)
            .query(&["limit", "cursor"])
            .doc("admin", "Entries of the allow list in force, the oldest first"),
        Route::post("/api/v1/admin/allowlist", add)
            .takes::<NewAllowanceDoc>()
            .doc("admin", "Lets findings of a rule pass, narrowed by value, tool, place or time"),
        Route::delete("/api/v1/admin/allowlist/{id}", remove).doc("admin", "Ends an entry"),
    ]
}

/// What the document says of a new entry.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct NewAllowanceDoc {
    /// The rule whose findings pass.
    rule_id: String,
    /// The `hmac` of a finding: only that value passes. The value itself is never given.
    hmac: Option<String>,
    /// Tools; `*` stands for any text.
    tool: Option<String>,
    /// JSON pointers; `*` stands for any text.
    pointer: Option<String>,
    /// Why; 1 to 200 characters.
    reason: String,
    /// Who answers for it; 1 to 200 characters.
    owner: String,
    /// Seconds; until it is removed if absent.
    expires_in_s: Option<u64>,
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let entries = context.allowed.page(&query.cursor()?, limit + 1).await?;
    Ok(page(entries, limit, |entry| entry.id.to_string()))
}

async fn add(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(new): Body<NewAllowance>,
) -> crate::Result<Response> {
    let entry = context.allowed.add(&caller, new, &|id| context.knows_rule(id)).await?;
    Ok((StatusCode::CREATED, Json(entry)).into_response())
}

async fn remove(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<StatusCode> {
    context.allowed.remove(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
