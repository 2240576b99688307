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
use systemprompt_models::{Code, Refusal, Secret};
use systemprompt_oauth::NewApiKey;
use systemprompt_oauth::api_keys::Leaked;
use systemprompt_oauth::models::oauth::api::Page;
use systemprompt_runtime::AppContext;
use systemprompt_security::keys::{KeyError, KeyInfo, KeyUse, Rotation, SigningAlgorithm};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/api-keys", list)
            .query(&["user_id", "limit", "cursor"])
            .doc("admin", "API keys, by id; never their values"),
        Route::post("/api/v1/admin/api-keys", create)
            .takes::<NewApiKeyDoc>()
            .doc("admin", "Makes an API key; the value is in this answer and nowhere else"),
        Route::delete("/api/v1/admin/api-keys/{id}", revoke).doc("admin", "Ends an API key"),
        Route::post("/api/v1/admin/keys/report", report).takes::<ReportDoc>().body_limit(REPORT_BODY).doc(
            "admin",
            "Ends the live API keys among at most 100 values that were found where they must not be",
        ),
        Route::get("/api/v1/admin/keys", signing).doc("admin", "The key ring: ids, algorithms, states"),
        Route::post("/api/v1/admin/keys", generate)
            .takes::<NewSigningKey>()
            .doc("admin", "Makes a signing key that is published and not used yet"),
        Route::post("/api/v1/admin/keys/ledger/rotate", rotate_ledger)
            .doc("admin", "Puts a new key in the place of the one that signs checkpoints"),
        Route::post("/api/v1/admin/keys/rotate", rotate)
            .takes::<RotateKeys>()
            .doc("admin", "Lets the next key sign, ten minutes after it was published at the earliest"),
        Route::post("/api/v1/admin/keys/{kid}/retire", retire)
            .doc("admin", "Takes a key out of use; what it signed goes on counting"),
        Route::post("/api/v1/admin/keys/{kid}/revoke", revoke_key)
            .doc("admin", "Rejects a key at once, with every token that it signed"),
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
    /// Surfaces that it counts on: `api`, `a2a`, `bridge`; every one that takes keys if absent.
    audiences: Option<Vec<String>>,
    /// Networks that it may come from, as `10.0.0.0/8`; any if absent.
    allowed_cidrs: Option<Vec<String>>,
    /// That it does not expire; without `expires_in_days`.
    never_expires: Option<bool>,
}

/// Most values of one report, and the largest body with them.
const MAX_REPORTED: usize = 100;
const REPORT_BODY: usize = 16 * 1024;

/// What the document says of a report.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct ReportDoc {
    /// At most 100 values.
    candidates: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    candidates: Vec<Secret<String>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSigningKey {
    /// `RS256`, `ES256` or `EdDSA`.
    algorithm: String,
    /// `sig` for tokens, the default, or `internal` for assertions between this deployment and its tool servers.
    #[serde(default, rename = "use")]
    key_use: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RotateKeys {
    /// That of `security.signing_algorithm` if absent.
    #[serde(default)]
    algorithm: Option<String>,
    /// `sig`, the default, or `internal`.
    #[serde(default, rename = "use")]
    key_use: Option<String>,
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["user_id", "limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let keys = context.api_keys.page(Page::with_next(&query.cursor()?, limit), query.get("user_id")).await?;
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
    context.revoke_api_key(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Values are told by their place, never repeated.
async fn report(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(report): Body<Report>,
) -> crate::Result<Json<Value>> {
    if report.candidates.len() > MAX_REPORTED {
        let refusal = Refusal::new(Code::Unprocessable, "fields are not valid");
        return Err(refusal.with_validation("candidates", "at most 100".to_owned()).into());
    }
    let outcomes = context.report_leaked_keys(&caller, &report.candidates).await?;
    let items = outcomes.iter().enumerate().map(|(place, outcome)| match outcome {
        Leaked::Revoked(key) => {
            json!({"candidate": place + 1, "outcome": "revoked", "id": key.id, "user_id": key.user_id, "name": key.name})
        }
        Leaked::NotLive => json!({"candidate": place + 1, "outcome": "not_live"}),
        Leaked::NoKey => json!({"candidate": place + 1, "outcome": "no_key"}),
    });
    Ok(Json(json!({"items": items.collect::<Vec<_>>(), "next": null})))
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
    let (key_use, algorithm) = (use_of(new.key_use.as_deref())?, algorithm_of(&new.algorithm)?);
    let key = context.generate_key(key_use, algorithm, &caller).await.map_err(refused)?;
    Ok((StatusCode::CREATED, Json(key)).into_response())
}

async fn rotate(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(asked): Body<RotateKeys>,
) -> crate::Result<Json<Rotation>> {
    let key_use = use_of(asked.key_use.as_deref())?;
    let algorithm = asked.algorithm.as_deref().map(algorithm_of).transpose()?;
    let done = context.rotate_key(key_use, algorithm, &caller).await;
    Ok(Json(done.map_err(refused)?))
}

async fn retire(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(kid): Path<String>,
) -> crate::Result<Json<KeyInfo>> {
    Ok(Json(context.retire_key(&kid, &caller).await.map_err(refused)?))
}

async fn revoke_key(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(kid): Path<String>,
) -> crate::Result<Json<KeyInfo>> {
    Ok(Json(context.revoke_key(&kid, &caller).await.map_err(refused)?))
}

fn algorithm_of(name: &str) -> Result<SigningAlgorithm, Refusal> {
    SigningAlgorithm::parse(name).ok_or_else(|| {
        let refusal = Refusal::new(Code::Unprocessable, "a field is not valid");
        refusal.with_validation("algorithm", "allowed: RS256, ES256, EdDSA")
    })
}

fn use_of(name: Option<&str>) -> Result<KeyUse, Refusal> {
    KeyUse::parse(name.unwrap_or(KeyUse::Sig.as_str())).ok_or_else(|| {
        let refusal = Refusal::new(Code::Unprocessable, "a field is not valid");
        refusal.with_validation("use", "allowed: sig, internal")
    })
}

/// What an administrator can mend is told; anything else is an error of ours.
fn refused(error: KeyError) -> crate::Error {
    let code = match &error {
        KeyError::Unknown(_) => Code::NotFound,
        KeyError::NoNext(_)
        | KeyError::TooYoung { .. }
        | KeyError::StillNeeded { .. }
        | KeyError::ClientsNeed { .. }
        | KeyError::Ended { .. }
        | KeyError::NoSigner(_)
        | KeyError::Changed => Code::Conflict,
        KeyError::Unsupported => {
            let refusal = Refusal::new(Code::Unprocessable, "a field is not valid");
            return refusal.with_validation("algorithm", "internal keys are EdDSA").into();
        }
        _ => {
            return match error {
                KeyError::Ledger(error) => error.into(),
                error => crate::Error::internal(error),
            };
        }
    };
    let refusal = Refusal::new(code, error.to_string());
    // The id of a key that exists is public, as the key set is. What is none may be anything.
    let refusal = match &error {
        KeyError::TooYoung { kid, .. } | KeyError::StillNeeded { kid, .. } | KeyError::Ended { kid, .. } => {
            refusal.with_public_part(kid.as_str())
        }
        _ => refusal,
    };
    match error {
        KeyError::TooYoung { wait_s, .. } => {
            refusal.with_retry_after(u32::try_from(wait_s).unwrap_or(u32::MAX)).into()
        }
        _ => refusal.into(),
    }
}
