//! `POST /api/v1/hooks/inference`: a model provider asks before it runs a model (SEC-95). The signature of Standard Webhooks is
//! the credential; without a good one the answer is 401, in every other case 200 with a verdict.

use crate::extract::{Context, RawBody};
use crate::services::server::route::{INFERENCE_HOOK_BODY, Route};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_audit::Unit;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::envelope::{Envelope, inference_denial};
use systemprompt_models::ids::{CallId, UserId};
use systemprompt_models::{Code, Permission, Principal, Refusal, RequestContext, UserType};
use systemprompt_runtime::AppContext;
use systemprompt_security::governance::InferenceRequest;
use systemprompt_security::plane::{Call, Origin};
use systemprompt_security::standard_webhooks::{WebhookError, WebhookSecrets};

/// Own deadline, inside the five seconds that the provider waits.
const DEADLINE: Duration = Duration::from_secs(4);
/// What the principal of these requests is called; the provider's own user follows, as a digest.
const PRINCIPAL: &str = "inference_hook";

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/hooks/inference", verdict)
            .public(RateGroup::Hooks)
            .envelope(Envelope::InferenceHook)
            .body_limit(INFERENCE_HOOK_BODY)
            .takes::<Value>()
            .returns::<VerdictDoc>()
            .doc("hooks", "Whether a model provider may go on with a request"),
    ]
}

/// What the document says of a verdict.
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct VerdictDoc {
    /// `allow` or `deny`.
    action: String,
    deny_reason: Option<String>,
    /// Id of the ledger entry.
    reference_id: Option<String>,
}

async fn verdict(
    State(context): State<AppContext>,
    Context(caller): Context,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> crate::Result<Response> {
    let judged = async {
        let message = verify(&context, &headers, &body).await?;
        judge(&context, caller, &message, &body).await
    };
    let judged = tokio::time::timeout(DEADLINE, judged).await;
    judged.unwrap_or_else(|_| Err(Refusal::new(Code::Timeout, "the decision took too long").into()))
}

/// Takes a message whose signature is good, once; returns its id.
async fn verify(context: &AppContext, headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
    let unsigned = |reason: String| Refusal::new(Code::Unauthenticated, reason);
    let config = context.config();
    let secret = config.secrets.inference_hook_secret();
    let secrets = secret.and_then(|secret| WebhookSecrets::parse(secret).ok());
    let secrets = secrets.ok_or_else(|| unsigned("no usable `inference_hook_secret` is set".to_owned()))?;
    let signed = secrets.verify(headers, body, context.clock.now_seconds());
    let message = signed.map_err(|error| unsigned(error.to_string()))?;
    match context.replays.take(&message, context.clock.now()).await {
        Ok(true) => Ok(message.id),
        Ok(false) => Err(unsigned(WebhookError::Replay.to_string())),
        Err(error) => {
            tracing::error!(%error, "whether a signed message came before could not be told");
            Err(Refusal::internal())
        }
    }
}

/// Decides, and answers once the decision is on record.
async fn judge(
    context: &AppContext,
    caller: RequestContext,
    message: &str,
    body: &[u8],
) -> crate::Result<Response> {
    let request =
        InferenceRequest::read(body).map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))?;
    let caller = RequestContext { principal: Arc::new(principal(&request)), ..caller };
    let segments = request.segments();
    let judgement = context
        .plane
        .judge(Call {
            call_id: CallId::from(message),
            origin: Origin::InferenceHook,
            counted: true,
            context: &caller,
            entities: Vec::new(),
            tool: None,
            server: None,
            plugin: None,
            agent: None,
            agent_scope: None,
            content: &segments,
        })
        .await;
    let mut unit = Unit::new();
    let decision = judgement.record(&mut unit);
    context.ledger.append(unit).await?;
    let reference = decision.entry();
    let body = match judgement.refusal() {
        Some(refusal) => inference_denial(&refusal.sentence(), Some(reference.as_str())),
        None => json!({"action": "allow", "reference_id": reference.as_str()}),
    };
    Ok(Json(body).into_response())
}

/// Whom the decision is made for: the provider, and for each of its users and conversations limits of their own. The names are
/// the provider's; ours are digests of them.
fn principal(request: &InferenceRequest<'_>) -> Principal {
    Principal {
        user_id: match request.user() {
            Some(user) => UserId::new(format!("{PRINCIPAL}:{}", digest(&user))),
            None => UserId::new(PRINCIPAL),
        },
        session_id: request.conversation().map_or_else(|| PRINCIPAL.to_owned(), |name| digest(&name)).into(),
        permissions: vec![Permission::Service],
        user_type: UserType::Service,
        ..Principal::anonymous()
    }
}

fn digest(name: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    hex::encode(digest.as_ref().get(..16).unwrap_or_default())
}
