//! `/api/v1/admin/users`.

use super::page;
use crate::extract::{Context, Json as Body, Query, etag, idempotency_key, if_match, seen_version};
use crate::routes::users::refused;
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_models::{Code, Refusal, RequestContext};
use systemprompt_oauth::models::oauth::api::Page;
use systemprompt_oauth::services::setup::{self, Purpose};
use systemprompt_oauth::{NewUser, User, UserChange, UserFilter, UserKind, UserStatus};
use systemprompt_runtime::AppContext;
use systemprompt_security::session::CutoffKind;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/users", list)
            .query(&["q", "status", "role", "department", "limit", "cursor"])
            .doc("admin", "Users, by id; `q` is the beginning of a name, a mail or an id"),
        Route::post("/api/v1/admin/users", create)
            .takes::<NewUserDoc>()
            .doc("admin", "Makes a user; with Idempotency-Key once, however often it is asked for"),
        Route::get("/api/v1/admin/users/{id}", get).doc("admin", "One user, by id or name, with the ETag"),
        Route::patch("/api/v1/admin/users/{id}", change)
            .takes::<UserChangeDoc>()
            .doc("admin", "Changes a user; needs If-Match"),
        Route::delete("/api/v1/admin/users/{id}", delete).doc("admin", "Deletes a user; needs If-Match"),
        Route::put("/api/v1/admin/users/{id}/roles", roles)
            .takes::<Roles>()
            .doc("admin", "Puts other roles in the place of a user's"),
        Route::post("/api/v1/admin/users/{id}/suspend", suspend)
            .doc("admin", "Takes a user's right to act; sessions and grants end"),
        Route::post("/api/v1/admin/users/{id}/activate", activate).doc("admin", "Lets a user act again"),
        Route::post("/api/v1/admin/users/{id}/revoke-all", revoke_all)
            .doc("admin", "Ends every session, grant and token of a user, and API keys, consents, recovery codes and open links"),
        Route::post("/api/v1/admin/users/{id}/merge", merge).takes::<Merge>().doc(
            "admin",
            "Merges a user into another: identities elsewhere and clients change hands, the rest ends; takes If-Match",
        ),
        Route::post("/api/v1/admin/users/{id}/setup-link", setup_link)
            .takes::<SetupLink>()
            .doc("admin", "A one-time link under which the user adds a passkey, or comes back in"),
        Route::post("/api/v1/admin/setup-link", invite)
            .takes::<Invitation>()
            .doc("admin", "A one-time link under which somebody becomes a user"),
    ]
}

/// What the document says of a new user.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct NewUserDoc {
    username: String,
    email: Option<String>,
    display_name: Option<String>,
    roles: Option<Vec<String>>,
    department: Option<String>,
    /// `person` (absent), or `service` for what acts by keys and tokens alone.
    kind: Option<String>,
    /// A password as another system hashed it: bcrypt of cost 4 to 14, or Argon2id in PHC form. Replaced at the first sign-in.
    password_hash: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Merge {
    /// Id or name of the user who stays.
    into: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Roles {
    roles: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetupLink {
    /// `credential_link` (absent) adds a passkey; `recovery` also ends every other session.
    #[serde(default)]
    purpose: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Invitation {
    /// The mail that the user must have.
    #[serde(default)]
    email: Option<String>,
    /// The default roles if absent.
    #[serde(default)]
    roles: Vec<String>,
}

/// What the document says of a change.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct UserChangeDoc {
    email: Option<String>,
    display_name: Option<String>,
    roles: Option<Vec<String>>,
    department: Option<String>,
    /// `active`, `inactive`, `suspended`, `pending`, `temporary` or `deleted`.
    status: Option<String>,
}

fn with_etag(status: StatusCode, user: &User) -> Response {
    (status, [(header::ETAG, etag(user.version))], Json(json!(user))).into_response()
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["q", "status", "role", "department", "limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let status = match query.get("status") {
        None => None,
        Some(word) => Some(UserStatus::parse(word).ok_or_else(|| {
            let allowed = "status: active, inactive, suspended, pending, deleted or temporary";
            Refusal::new(Code::InvalidFilter, allowed)
        })?),
    };
    let filter = UserFilter {
        query: query.get("q"),
        status,
        role: query.get("role"),
        department: query.get("department"),
    };
    let users = context.users.page(Page::with_next(&query.cursor()?, limit), &filter).await?;
    Ok(page(users, limit, |user| user.id.to_string()))
}

async fn create(
    State(context): State<AppContext>,
    Context(caller): Context,
    headers: HeaderMap,
    Body(new): Body<NewUser>,
) -> crate::Result<Response> {
    let key = idempotency_key(&headers)?;
    if new.kind == UserKind::Client {
        let refusal = Refusal::new(Code::Unprocessable, "a field is not valid");
        return Err(refusal.with_validation("kind", "person or service").into());
    }
    if new.password_hash.is_some() && !context.oauth.settings().identity.password.enabled {
        let refusal = Refusal::new(Code::Unprocessable, "a field is not valid");
        return Err(refusal.with_validation("password_hash", "passwords are switched off").into());
    }
    let user = match key {
        Some(key) => context.users.create_once(&caller, new, key).await?,
        None => context.users.create(&caller, new).await?,
    };
    Ok(with_etag(StatusCode::CREATED, &user))
}

async fn get(State(context): State<AppContext>, Path(id): Path<String>) -> crate::Result<Response> {
    Ok(with_etag(StatusCode::OK, &context.users.get(&id).await?))
}

async fn change(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(change): Body<UserChange>,
) -> crate::Result<Response> {
    let user = context.change_user(&caller, &id, Some(if_match(&headers)?), change).await?;
    Ok(with_etag(StatusCode::OK, &user))
}

async fn delete(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> crate::Result<StatusCode> {
    let change = UserChange { status: Some(UserStatus::Deleted), ..UserChange::default() };
    context.change_user(&caller, &id, Some(if_match(&headers)?), change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn roles(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    Body(asked): Body<Roles>,
) -> crate::Result<Response> {
    let change = UserChange { roles: Some(asked.roles), ..UserChange::default() };
    Ok(with_etag(StatusCode::OK, &context.change_user(&caller, &id, None, change).await?))
}

async fn suspend(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Response> {
    set_status(&context, &caller, &id, UserStatus::Suspended).await
}

async fn activate(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Response> {
    set_status(&context, &caller, &id, UserStatus::Active).await
}

async fn set_status(
    context: &AppContext,
    caller: &RequestContext,
    id: &str,
    status: UserStatus,
) -> crate::Result<Response> {
    let change = UserChange { status: Some(status), ..UserChange::default() };
    Ok(with_etag(StatusCode::OK, &context.change_user(caller, id, None, change).await?))
}

async fn merge(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(asked): Body<Merge>,
) -> crate::Result<Response> {
    let version = seen_version(&headers)?;
    Ok(with_etag(StatusCode::OK, &context.merge_users(&caller, &id, version, &asked.into).await?))
}

async fn revoke_all(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Response> {
    let user = context.users.get(&id).await?;
    let done = context.revoke_all(&caller, CutoffKind::User, user.id.as_str(), "revoked").await;
    Ok(Json(json!(done.map_err(super::tokens::refused)?)).into_response())
}

async fn setup_link(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    Body(asked): Body<SetupLink>,
) -> crate::Result<Response> {
    let user = context.users.get(&id).await?;
    let purpose = match asked.purpose.as_deref() {
        None => Purpose::CredentialLink,
        Some(word) => Purpose::parse(word).filter(|purpose| !purpose.registers()).ok_or_else(|| {
            Refusal::new(Code::Unprocessable, "a field is not valid")
                .with_validation("purpose", "credential_link or recovery")
        })?,
    };
    let link = setup::for_user(&context.oauth, &caller, &user, purpose).await.map_err(refused)?;
    Ok(shown(&link))
}

async fn invite(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(asked): Body<Invitation>,
) -> crate::Result<Response> {
    let Invitation { email, roles } = asked;
    let link = setup::invitation(&context.oauth, &caller, email, roles).await.map_err(refused)?;
    Ok(shown(&link))
}

/// The one answer that shows a link.
fn shown(link: &setup::SetupLink) -> Response {
    let body = json!({"setup_url": link.url.expose().as_str(), "expires_in": link.expires_in});
    (StatusCode::CREATED, Json(body)).into_response()
}
