//! `GET /api/v1/explain/{id}`: why a request, a decision or a tool call came out as it did. Administrators ask about anything,
//! others about what they did themselves.

use super::audit::item;
use crate::extract::Context;
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::{Code, Permission, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_security::jwt::Surface;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/explain/{id}", explain)
            .signed(Surface::Api, &[Permission::Admin, Permission::User], RateGroup::Admin)
            .doc("audit", "All records of the call that an id (decision, entry, request, trace) belongs to"),
    ]
}

async fn explain(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Json<Value>> {
    let own = (!caller.principal.has(Permission::Admin)).then(|| caller.principal.user_id.as_str());
    let found = context.explain(&id, own).await?;
    if found.entries.is_empty() {
        return Err(Refusal::new(Code::NotFound, "nothing is recorded under this id").into());
    }
    Ok(Json(json!({
        "id": id,
        "trace_id": found.trace_id,
        "decision": found.decision,
        "entries": found.entries.iter().map(item).collect::<Vec<_>>(),
        "intact": found.intact,
    })))
}
