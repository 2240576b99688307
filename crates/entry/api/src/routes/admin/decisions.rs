//! `/api/v1/admin/decisions`: the rows of decided calls, newest first.

use super::page;
use crate::extract::Query;
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::Value;
use systemprompt_models::{Code, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_security::authz::GovernanceDecision;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/decisions", list)
            .query(&["decision", "limit", "cursor"])
            .doc("admin", "Decisions, newest first"),
        Route::get("/api/v1/admin/decisions/{id}", get).doc("admin", "One decision"),
    ]
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["decision", "limit", "cursor"])?;
    let decision = query.get("decision");
    if decision.is_some_and(|word| !matches!(word, "allow" | "deny" | "redact")) {
        return Err(Refusal::new(Code::InvalidFilter, "decision: allowed: allow, deny, redact").into());
    }
    let limit = query.limit(50, 200)?;
    let cursor = query.cursor()?;
    let before = (!cursor.is_empty()).then_some(cursor.as_str());
    let rows = context.decisions.latest(before, decision, limit + 1).await.map_err(crate::Error::internal)?;
    Ok(page(rows, limit, |row| row.id.clone()))
}

async fn get(
    State(context): State<AppContext>,
    Path(id): Path<String>,
) -> crate::Result<Json<GovernanceDecision>> {
    let row = context.decisions.by_id(&id).await.map_err(crate::Error::internal)?;
    let row = row.ok_or_else(|| Refusal::new(Code::NotFound, "there is no such decision"))?;
    Ok(Json(row))
}
