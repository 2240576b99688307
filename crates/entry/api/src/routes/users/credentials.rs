//! `/api/v1/core/users/me/{passkeys,recovery-codes,password,api-keys}`.

use super::{missing, refused};
use crate::extract::{Context, Json as Body, Query};
use crate::routes::admin::page;
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_models::Secret;
use systemprompt_oauth::NewApiKey;
use systemprompt_oauth::models::oauth::api::Page;
use systemprompt_oauth::services::session::lookup;
use systemprompt_oauth::services::webauthn::service::credentials;
use systemprompt_oauth::services::{notices, password, recovery};
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/core/users/me/passkeys", passkeys)
            .in_person()
            .doc("identity", "The caller's passkeys"),
        Route::get("/api/v1/core/users/me/passkeys/{id}", passkey)
            .in_person()
            .doc("identity", "One of the caller's passkeys"),
        Route::patch("/api/v1/core/users/me/passkeys/{id}", rename)
            .in_person()
            .takes::<Rename>()
            .doc("identity", "Gives a passkey another name"),
        Route::delete("/api/v1/core/users/me/passkeys/{id}", remove)
            .in_person()
            .doc("identity", "Removes a passkey after a recent sign-in; the last way to sign in stays"),
        Route::post("/api/v1/core/users/me/recovery-codes", make_codes)
            .in_person()
            .doc("identity", "Makes a new set of recovery codes, shown in this answer and nowhere else"),
        Route::put("/api/v1/core/users/me/password", set_password).in_person().takes::<NewPassword>().doc(
            "identity",
            "Sets the caller's password, where passwords are switched on; every other session ends",
        ),
        Route::get("/api/v1/core/users/me/notices", list_notices)
            .in_person()
            .doc("identity", "What other sessions did to the caller's account, the newest first"),
        Route::delete("/api/v1/core/users/me/notices/{id}", dismiss)
            .in_person()
            .doc("identity", "Puts a notice away"),
        Route::get("/api/v1/core/users/me/api-keys", api_keys)
            .in_person()
            .query(&["limit", "cursor"])
            .doc("identity", "The caller's API keys, by id; never their values"),
        Route::post("/api/v1/core/users/me/api-keys", make_key)
            .in_person()
            .takes::<OwnKey>()
            .doc("identity", "Makes an API key; the value is in this answer and nowhere else"),
        Route::delete("/api/v1/core/users/me/api-keys/{id}", revoke_key)
            .in_person()
            .doc("identity", "Ends an API key of the caller"),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rename {
    /// 1 to 64 characters.
    name: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    /// The present one, if there is one.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    old: Option<Secret<String>>,
    #[schemars(with = "String")]
    new: Secret<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OwnKey {
    name: String,
    /// Space-separated; all that the caller has if absent.
    scope: Option<String>,
    /// Surfaces that it counts on: `api`, `a2a`, `bridge`; every one that takes keys if absent.
    #[serde(default)]
    audiences: Vec<String>,
    /// Networks that it may come from, as `10.0.0.0/8`; any if absent.
    #[serde(default)]
    allowed_cidrs: Vec<String>,
    /// 1 to 365; 90 if absent.
    expires_in_days: Option<i64>,
}

async fn passkeys(State(context): State<AppContext>, Context(caller): Context) -> crate::Result<Json<Value>> {
    let items = credentials::list(&context.oauth, &caller.principal.user_id).await.map_err(refused)?;
    Ok(Json(json!({"items": items, "next": null})))
}

async fn passkey(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Json<Value>> {
    let found = credentials::get(&context.oauth, &caller.principal.user_id, &id).await.map_err(refused)?;
    found.map(|passkey| Json(json!(passkey))).ok_or_else(|| missing("passkey"))
}

async fn rename(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    Body(asked): Body<Rename>,
) -> crate::Result<Json<Value>> {
    let renamed = credentials::rename(&context.oauth, &caller, &id, &asked.name).await.map_err(refused)?;
    renamed.map(|passkey| Json(json!(passkey))).ok_or_else(|| missing("passkey"))
}

async fn remove(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<StatusCode> {
    if credentials::remove(&context.oauth, &caller, &id).await.map_err(refused)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing("passkey"))
    }
}

async fn make_codes(State(context): State<AppContext>, Context(caller): Context) -> crate::Result<Response> {
    let codes = recovery::make(&context.oauth, &caller).await.map_err(refused)?;
    let codes: Vec<&str> = codes.iter().map(|code| code.expose().as_str()).collect();
    Ok((StatusCode::CREATED, Json(json!({"codes": codes}))).into_response())
}

async fn set_password(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(asked): Body<NewPassword>,
) -> crate::Result<StatusCode> {
    if !context.oauth.settings().identity.password.enabled {
        return Err(missing("password"));
    }
    password::change(&context.oauth, &caller, asked.old.as_ref(), &asked.new).await.map_err(refused)?;
    context.auth.forget();
    context.tell_revocation(caller.principal.user_id.as_str()).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_notices(
    State(context): State<AppContext>,
    Context(caller): Context,
) -> crate::Result<Json<Value>> {
    let items = notices::list(&context.oauth, &caller.principal).await.map_err(refused)?;
    Ok(Json(json!({"items": items, "next": null})))
}

async fn dismiss(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<StatusCode> {
    if notices::dismiss(&context.oauth, &caller.principal, &id).await.map_err(refused)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing("notice"))
    }
}

async fn api_keys(
    State(context): State<AppContext>,
    Context(caller): Context,
    query: Query,
) -> crate::Result<Json<Value>> {
    query.only(&["limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let user = caller.principal.user_id.as_str();
    let keys = context.api_keys.page(Page::with_next(&query.cursor()?, limit), Some(user)).await?;
    Ok(page(keys, limit, |key| key.id.to_string()))
}

async fn make_key(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(asked): Body<OwnKey>,
) -> crate::Result<Response> {
    lookup::need_recent_browser(&context.oauth, &caller.principal).await.map_err(refused)?;
    let OwnKey { name, scope, audiences, allowed_cidrs, expires_in_days } = asked;
    let user = caller.principal.user_id.to_string();
    let new =
        NewApiKey { user, name, scope, audiences, allowed_cidrs, expires_in_days, never_expires: false };
    let (key, value) = context.api_keys.create(&caller, new).await?;
    let mut body = json!(key);
    if let Some(members) = body.as_object_mut() {
        members.insert("key".to_owned(), value.expose().as_str().into());
    }
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

async fn revoke_key(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<StatusCode> {
    if !context.api_keys.is_of(&id, &caller.principal.user_id).await? {
        return Err(missing("API key"));
    }
    context.revoke_api_key(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
