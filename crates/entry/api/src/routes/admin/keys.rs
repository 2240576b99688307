//! `/api/v1/admin/api-keys`: API keys, whose value is shown once; `/api/v1/admin/keys`: the ring of signing keys.

use super::page;
use crate::extract::{Context, Json as Body, Query};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_audit::CheckpointError;
use systemprompt_audit::signing_key::SigningKeyError;
use systemprompt_models::{Code, Refusal};
use systemprompt_oauth::NewApiKey;
use systemprompt_runtime::AppContext;
use systemprompt_security::keys::SigningAlgorithm;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/api-keys", list)
            .query(&["user_id", "limit", "cursor"])
            .doc("admin", "API keys, by id; never their values"),
        Route::post("/api/v1/admin/api-keys", create)
            .takes::<NewApiKeyDoc>()
            .doc("admin", "Makes an API key; the value is in this answer and nowhere else"),
        Route::delete("/api/v1/admin/api-keys/{id}", revoke).doc("admin", "Ends an API key"),
        Route::get("/api/v1/admin/keys", signing).doc("admin", "The key ring: ids, algorithms, states"),
        Route::post("/api/v1/admin/keys", generate)
            .takes::<NewSigningKey>()
            .doc("admin", "Makes a signing key that is published and not used yet"),
        Route::post("/api/v1/admin/keys/ledger/rotate", rotate_ledger)
            .doc("admin", "Puts a new key in the place of the one that signs checkpoints"),
    ]
}

/// What the document says of a new key.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct NewApiKeyDoc {
    /// User id or name of the owner.
    user: String,
    name: String,
    /// Space-separated; all that the owner has if absent.
    scope: Option<String>,
    /// 1 to 365; 90 if absent.
    expires_in_days: Option<i64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSigningKey {
    /// `RS256`, `ES256` or `EdDSA`.
    algorithm: String,
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["user_id", "limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let keys = context.api_keys.page(&query.cursor()?, query.get("user_id"), limit + 1).await?;
    Ok(page(keys, limit, |key| key.id.to_string()))
}

async fn create(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(new): Body<NewApiKey>,
) -> crate::Result<Response> {
    let (key, value) = context.api_keys.create(&caller, new).await?;
    let mut body = json!(key);
    if let Some(map) = body.as_object_mut() {
        // The one answer that shows it; `no-store` comes with every signed-in answer.
        map.insert("key".into(), value.expose().as_str().into());
    }
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

async fn revoke(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<StatusCode> {
    context.api_keys.revoke(&caller, &id).await?;
    context.auth.forget();
    Ok(StatusCode::NO_CONTENT)
}

async fn signing(State(context): State<AppContext>) -> Json<Value> {
    Json(json!({"items": context.key_list(), "next": null}))
}

async fn rotate_ledger(
    State(context): State<AppContext>,
    Context(caller): Context,
) -> crate::Result<Json<Value>> {
    let old = context.ledger.vkey();
    let new = context.ledger.rotate_key(&caller).await.map_err(|error| match error {
        CheckpointError::Ledger(error) => crate::Error(error.into()),
        CheckpointError::Key(SigningKeyError::NoFile(_)) => {
            crate::Error(Refusal::new(Code::Conflict, error.to_string()))
        }
        other => crate::Error::internal(other),
    })?;
    Ok(Json(json!({"vkey": new.to_string(), "replaced": old.map(|key| key.to_string())})))
}

async fn generate(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(new): Body<NewSigningKey>,
) -> crate::Result<Response> {
    let algorithm = SigningAlgorithm::parse(&new.algorithm).ok_or_else(|| {
        let refusal = Refusal::new(Code::Unprocessable, "a field is not valid");
        refusal.with_validation("algorithm", "allowed: RS256, ES256, EdDSA")
    })?;
    let key = context.generate_key(algorithm, &caller).await.map_err(crate::Error::internal)?;
    Ok((StatusCode::CREATED, Json(key)).into_response())
}
