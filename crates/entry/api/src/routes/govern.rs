//! `POST /api/v1/govern/authz`: decides for other installations (SEC-72). They sign their question (Standard Webhooks), or show a
//! token of a service with audience `internal`.

use crate::extract::{Context, RawBody};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use systemprompt_models::{Code, Permission, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_security::authz::webhook_server::MessageError;
use systemprompt_security::jwt::Surface;
use systemprompt_security::standard_webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};

/// Largest question.
const MAX_BODY: usize = 1024 * 1024;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/govern/authz", decide)
            .signed_or_public(Surface::Govern)
            .body_limit(MAX_BODY)
            .takes::<QuestionDoc>()
            .doc("govern", "Decides for another installation, by the rules of this one"),
    ]
}

/// What the document says of a question.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct QuestionDoc {
    /// 1.
    version: Option<u32>,
    request_id: Option<String>,
    /// `gateway_route`, `mcp_server`, `mcp_tool`, `plugin`, `agent`, `marketplace`, `skill` or `hook`.
    entity_type: Option<String>,
    entity_id: Option<String>,
    /// `{kind, id}`, in place of the two.
    entity: Option<Value>,
    user_id: String,
    roles: Option<Vec<String>>,
    department: Option<String>,
    trace_id: Option<String>,
    session_id: Option<String>,
    client_id: Option<String>,
    /// The person whom the client serves that `user_id` stands for; what is denied to them is denied to it.
    owner_id: Option<String>,
    context_id: Option<String>,
    task_id: Option<String>,
    act_chain: Option<Vec<String>>,
}

async fn decide(
    State(context): State<AppContext>,
    Context(caller): Context,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> crate::Result<Response> {
    let asked_by = if caller.principal.is_anonymous() {
        signed(&context, &headers, &body).await?;
        "signature".to_owned()
    } else if caller.principal.has(Permission::Service) {
        caller.principal.user_id.to_string()
    } else {
        return Err(Refusal::new(Code::Unauthenticated, "only services may ask with a token").into());
    };
    let answered = context.decisions_for_others.decide(&caller.trace_id, &asked_by, &body).await?;
    let decision = &answered.decision;
    let mut answer = Map::new();
    answer.insert("decision".into(), decision.decision().as_str().into());
    answer.insert("reason".into(), decision.reason().into());
    answer.insert("policy".into(), decision.policy().into());
    answer.insert("matched_by".into(), decision.policy().into());
    answer.insert("rule_id".into(), json!(decision.rule.as_ref().map(|rule| rule.id.as_str())));
    answer.insert("epoch".into(), decision.epoch.into());
    if let Some(request_id) = answered.request_id {
        answer.insert("request_id".into(), request_id.into());
    }
    let id = [("x-decision-id", answered.id.to_string())];
    Ok((id, Json(Value::Object(answer))).into_response())
}

/// Whether the message is signed with the shared secret, fresh, and new.
async fn signed(context: &AppContext, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let config = context.config();
    let secret = config.secrets.authz_webhook_secret();
    let taken = context.decisions_for_others.accept(secret, headers, body).await;
    taken.map_err(|error| match error {
        MessageError::Database(error) => {
            tracing::error!(%error, "whether a signed message came before cannot be told");
            Refusal::internal()
        }
        error => {
            tracing::info!(%error, "a question of another installation was refused");
            Refusal::new(Code::Unauthenticated, not_taken(&error, headers))
        }
    })
}

/// What whoever asks is told. Each cause can be told: an old time needs no secret to be seen, and that an id came before is only said
/// of a message whose signature fits.
fn not_taken(error: &MessageError, headers: &HeaderMap) -> Cow<'static, str> {
    let is_signed =
        [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER].iter().any(|name| headers.contains_key(*name));
    if is_signed {
        format!("the question does not count as signed: {error}").into()
    } else {
        "sign the request (webhook-id, webhook-timestamp, webhook-signature) or send a token of a service"
            .into()
    }
}
