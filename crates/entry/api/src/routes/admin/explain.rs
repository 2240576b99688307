//! `GET /api/v1/explain/{id}`: why a request, a decision or a tool call came out as it did. Administrators and auditors ask about
//! anything, others about what they did themselves.

use super::audit::access::is_reader;
use super::audit::item;
use crate::extract::{Context, Query};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::{Code, Permission, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_runtime::explain::ActorCall;
use systemprompt_security::jwt::Surface;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/explain/{id}", explain)
            .signed(Surface::Api, &[Permission::Admin, Permission::User], RateGroup::Admin)
            .query(&["actor"])
            .doc(
                "audit",
                "All records of the call that an id (decision, entry, request, trace, token) belongs to, apart by actor",
            ),
    ]
}

async fn explain(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    query: Query,
) -> crate::Result<Json<Value>> {
    query.only(&["actor"])?;
    let actor = if is_reader(&caller.principal) {
        query.get("actor")
    } else {
        Some(caller.principal.user_id.as_str())
    };
    let found = context.explain(&id, actor).await?;
    if found.entries.is_empty() {
        return Err(Refusal::new(Code::NotFound, "nothing is recorded under this id").into());
    }
    let actors: Vec<Value> = found.actors.iter().map(actor_item).collect();
    // With several actors there is no one decision of the id.
    let decision = match found.actors.as_slice() {
        [only] => only.decision.as_ref(),
        _ => None,
    };
    Ok(Json(json!({
        "id": id,
        "trace_id": found.trace_id,
        "decision": decision,
        "actors": actors,
        "entries": found.entries.iter().map(item).collect::<Vec<_>>(),
        "token": found.token,
        "more": found.more,
        "intact": found.intact,
    })))
}

fn actor_item(call: &ActorCall) -> Value {
    json!({
        "kind": call.kind,
        "id": call.id,
        "name": call.name,
        "decision": call.decision,
        "entries": call.entries,
    })
}
