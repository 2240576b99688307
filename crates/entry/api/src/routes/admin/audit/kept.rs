//! What is kept beside the records: bodies of payloads (AUD-60), their erasure (AUD-34), and retention (AUD-32).

use crate::extract::{Context, Json as Body, Query};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_audit::LedgerRow;
use systemprompt_audit::erase::Erasure;
use systemprompt_audit::payload::Class;
use systemprompt_models::clock::iso8601;
use systemprompt_models::ids::UserId;
use systemprompt_models::{Code, Refusal, RequestContext};
use systemprompt_runtime::AppContext;
use systemprompt_runtime::retention::RetentionStatus;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/admin/audit/erasures", erase)
            .takes::<NewErasure>()
            .doc("audit", "Erases bodies and salts of a person's payloads; records and proofs stay"),
        Route::get("/api/v1/admin/audit/retention", retention)
            .query(&[])
            .doc("audit", "For how long what is kept, and what the last run did"),
        Route::post("/api/v1/admin/audit/retention", retain).doc("audit", "Applies the retention now"),
    ]
}

/// Whose payloads are erased, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewErasure {
    /// Id of the user, `usr_…`, as records name their actor; no name and no address.
    subject_user: String,
    /// `inference`, `tool`, `change`, `client`, `note`; all if absent.
    #[serde(default)]
    #[schemars(length(max = 5))]
    classes: Vec<String>,
    /// At most 1000 characters; kept as a payload of the erasure's own record.
    reason: String,
}

async fn erase(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(new): Body<NewErasure>,
) -> crate::Result<Response> {
    let class = |name: &String| {
        let known = Class::ALL.map(Class::as_str).join(", ");
        let unknown =
            || Refusal::new(Code::Unprocessable, format!("classes: there is no `{name}`; allowed: {known}"));
        Class::parse(name).ok_or_else(unknown)
    };
    let classes = new.classes.iter().map(class).collect::<Result<_, _>>()?;
    let erasure = Erasure { subject_user: new.subject_user, classes, reason: new.reason };
    erasure.check()?;
    let user = &erasure.subject_user;
    let found = context.people.user(&UserId::new(user.as_str())).await.map_err(crate::Error::internal)?;
    let is_user = found.is_some();
    if !is_user && !context.ledger.keeps_of(user).await.map_err(crate::Error::internal)? {
        return Err(Refusal::new(Code::NotFound, "there is no such user, and nothing is kept of one").into());
    }
    let erased = context.ledger.erase(&caller, &erasure).await?;
    Ok((StatusCode::CREATED, Json(erased)).into_response())
}

async fn retention(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&[])?;
    let status = context.retention_status().await.map_err(crate::Error::internal)?;
    Ok(Json(rendered(&status)))
}

async fn retain(State(context): State<AppContext>, Context(caller): Context) -> crate::Result<Json<Value>> {
    let report = context.retain(&caller).await?;
    Ok(Json(json!(report)))
}

fn rendered(status: &RetentionStatus) -> Value {
    let state = &status.state;
    let is_running = state.held_until > 0 && state.finished_at < state.started_at;
    json!({
        "rules": status.rules,
        "next_due": status.next_due,
        "next_due_iso": iso8601(status.next_due),
        "holder": is_running.then_some(state.holder.as_ref()).flatten(),
        "started_at": state.started_at,
        "finished_at": state.finished_at,
        "last": status.last,
    })
}

/// The payloads that a record names, with what is left of each.
pub(super) async fn list(context: &AppContext, row: &LedgerRow) -> crate::Result<Vec<Value>> {
    let found = context.ledger.reader().payloads(row).await.map_err(crate::Error::internal)?;
    let one = |found: systemprompt_audit::payload::read::Found| {
        json!({
            "role": found.named.role,
            "class": found.named.class(),
            "size": found.named.size,
            "commitment": found.named.commitment,
            "state": found.state.as_str(),
            "media_type": found.row.as_ref().map(|row| row.media_type.as_str()),
            "erased_at": found.row.as_ref().and_then(|row| row.erased_at),
            "erased_by": found.row.as_ref().and_then(|row| row.erased_by.as_deref()),
        })
    };
    Ok(found.into_iter().map(one).collect())
}

/// One body. Reading it is recorded by itself, and so is being refused it.
pub(super) async fn body(
    context: &AppContext,
    caller: &RequestContext,
    id: &str,
    role: &str,
) -> crate::Result<Json<Value>> {
    let body = context.read_payload(caller, id, role).await?;
    let mut answer = json!({
        "id": id,
        "role": role,
        "media_type": body.media_type,
        "size": body.size,
        "is_excerpt": (body.bytes.len() as i64) < body.size,
    });
    let (name, text) = match String::from_utf8(body.bytes) {
        Ok(text) => ("text", text),
        Err(bytes) => ("base64", STANDARD.encode(bytes.as_bytes())),
    };
    if let Some(map) = answer.as_object_mut() {
        map.insert(name.to_owned(), text.into());
    }
    Ok(Json(answer))
}
