//! `/api/v1/core/oauth/clients` and `/api/v1/admin/clients`: the clients that a user or an administrator manages (ID-16), and the
//! pictures of clients (ID-26).

use super::register::MetadataDoc;
use crate::extract::{Context, Json as Body, Query, etag, if_match};
use crate::routes::admin::page;
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::{Code, Refusal, Secret};
use systemprompt_oauth::models::clients::OAuthClient;
use systemprompt_oauth::models::clients::api::shown;
use systemprompt_oauth::models::oauth::api::Page;
use systemprompt_oauth::services::cimd::logo;
use systemprompt_oauth::services::clients::{ClientError, managed};
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/core/oauth/clients", list)
            .in_person()
            .query(&["limit", "cursor"])
            .doc("identity", "Clients, by id: an administrator sees all, a user their own"),
        Route::post("/api/v1/core/oauth/clients", create)
            .in_person()
            .takes::<ClientDoc>()
            .doc("identity", "Makes a client; its secret is in this answer and nowhere else"),
        Route::get("/api/v1/core/oauth/clients/{id}", get)
            .in_person()
            .doc("identity", "One client, with its ETag"),
        Route::put("/api/v1/core/oauth/clients/{id}", replace)
            .in_person()
            .takes::<ClientDoc>()
            .doc("identity", "Replaces the metadata of a client; needs If-Match"),
        Route::delete("/api/v1/core/oauth/clients/{id}", delete)
            .in_person()
            .doc("identity", "Deletes a client with all that it was given; needs If-Match"),
        Route::post("/api/v1/core/oauth/clients/{id}/secret", rotate)
            .in_person()
            .takes::<RotateSecret>()
            .doc("identity", "A new secret beside the present one, which ends after a while"),
        Route::get("/api/v1/admin/clients", list)
            .query(&["limit", "cursor"])
            .doc("admin", "OAuth clients, by id"),
        Route::post("/api/v1/admin/clients", create)
            .takes::<ClientDoc>()
            .doc("admin", "Makes an OAuth client; its secret is in this answer and nowhere else"),
        Route::get("/api/v1/admin/clients/{id}", get).doc("admin", "One OAuth client, with its ETag"),
        Route::put("/api/v1/admin/clients/{id}", replace)
            .takes::<ClientDoc>()
            .doc("admin", "Replaces the metadata of an OAuth client; needs If-Match"),
        Route::delete("/api/v1/admin/clients/{id}", delete)
            .doc("admin", "Deletes an OAuth client with all that it was given; needs If-Match"),
        Route::post("/api/v1/admin/clients/{id}/secret", rotate)
            .takes::<RotateSecret>()
            .doc("admin", "A new secret beside the present one, which ends after a while"),
        Route::get("/api/v1/core/oauth/logo", picture)
            .query(&["client_id"])
            .public(RateGroup::Content)
            .doc("identity", "The picture of a client, as it was fetched with its metadata document"),
    ]
}

/// What the document says of a client.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct ClientDoc {
    #[serde(flatten)]
    metadata: MetadataDoc,
    /// Of a new client; made up if absent.
    client_id: Option<String>,
    /// Only from an administrator, as what follows.
    owner_user_id: Option<String>,
    plugin_id: Option<String>,
    allowed_audiences: Option<Vec<String>>,
    /// `active`, `disabled` or `expired`.
    status: Option<String>,
    first_party: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RotateSecret {
    /// How long the present secret still counts, 0 to 2592000; a day if absent.
    #[serde(default)]
    overlap_seconds: Option<i64>,
}

fn refused(error: ClientError) -> crate::Error {
    crate::Error(error.into())
}

/// The one answer that shows a secret has it beside the client.
fn answer(status: StatusCode, client: &OAuthClient, secret: Option<&Secret<String>>) -> Response {
    let mut body = shown(client);
    if let Some(secret) = secret {
        body.insert("client_secret".into(), secret.expose().as_str().into());
        body.insert("client_secret_expires_at".into(), 0.into());
    }
    (status, [(header::ETAG, etag(client.version))], Json(body)).into_response()
}

async fn list(
    State(context): State<AppContext>,
    Context(caller): Context,
    query: Query,
) -> crate::Result<Json<Value>> {
    query.only(&["limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let clients = managed::page(&context.oauth, &caller, Page::with_next(&query.cursor()?, limit))
        .await
        .map_err(refused)?;
    let shown: Vec<Map<String, Value>> = clients.iter().map(shown).collect();
    let place = |client: &Map<String, Value>| {
        client.get("client_id").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    Ok(page(shown, limit, place))
}

async fn create(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(members): Body<Map<String, Value>>,
) -> crate::Result<Response> {
    let made = managed::create(&context.oauth, &caller, &members).await.map_err(refused)?;
    Ok(answer(StatusCode::CREATED, &made.client, made.secret.as_ref()))
}

async fn get(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Response> {
    let client = managed::get(&context.oauth, &caller, &id).await.map_err(refused)?;
    Ok(answer(StatusCode::OK, &client, None))
}

async fn replace(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(members): Body<Map<String, Value>>,
) -> crate::Result<Response> {
    let version = if_match(&headers)?;
    let client = managed::replace(&context.oauth, &caller, &id, version, &members).await.map_err(refused)?;
    context.tell_revocation(&id).await;
    Ok(answer(StatusCode::OK, &client, None))
}

async fn delete(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> crate::Result<StatusCode> {
    let version = if_match(&headers)?;
    managed::delete(&context.oauth, &caller, &id, Some(version)).await.map_err(refused)?;
    context.tell_revocation(&id).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn rotate(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    Body(asked): Body<RotateSecret>,
) -> crate::Result<Response> {
    let (client, secret) =
        managed::rotate_secret(&context.oauth, &caller, &id, asked.overlap_seconds).await.map_err(refused)?;
    Ok(answer(StatusCode::OK, &client, Some(&secret)))
}

async fn picture(State(context): State<AppContext>, query: Query) -> crate::Result<Response> {
    query.only(&["client_id"])?;
    let missing = || Refusal::new(Code::NotFound, "there is no picture of this client");
    let id = query.get("client_id").ok_or_else(missing)?;
    let found = logo::find(&context.oauth, id).await.map_err(crate::Error::internal)?;
    let logo = found.ok_or_else(missing)?;
    let media_type = HeaderValue::from_str(&logo.media_type).map_err(crate::Error::internal)?;
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // Somebody else's bytes on our origin: they are shown and never run.
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    Ok((headers, logo.bytes).into_response())
}
