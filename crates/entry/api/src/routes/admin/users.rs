//! `/api/v1/admin/users`.

use super::page;
use crate::extract::{Context, Json as Body, Query, etag, if_match};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde_json::{Value, json};
use systemprompt_oauth::{NewUser, User, UserChange, UserStatus};
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/users", list)
            .query(&["q", "limit", "cursor"])
            .doc("admin", "Users, by id; `q` is the beginning of a name, a mail or an id"),
        Route::post("/api/v1/admin/users", create).takes::<NewUserDoc>().doc("admin", "Makes a user"),
        Route::get("/api/v1/admin/users/{id}", get).doc("admin", "One user, by id or name, with the ETag"),
        Route::patch("/api/v1/admin/users/{id}", change)
            .takes::<UserChangeDoc>()
            .doc("admin", "Changes a user; needs If-Match"),
        Route::delete("/api/v1/admin/users/{id}", delete).doc("admin", "Deletes a user; needs If-Match"),
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
}

/// What the document says of a change.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct UserChangeDoc {
    email: Option<String>,
    display_name: Option<String>,
    roles: Option<Vec<String>>,
    department: Option<String>,
    /// `active`, `inactive`, `suspended`, `pending` or `deleted`.
    status: Option<String>,
}

fn with_etag(status: StatusCode, user: &User) -> Response {
    (status, [(header::ETAG, etag(user.version))], Json(json!(user))).into_response()
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["q", "limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let users = context.users.page(&query.cursor()?, query.get("q"), limit + 1).await?;
    Ok(page(users, limit, |user| user.id.to_string()))
}

async fn create(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(new): Body<NewUser>,
) -> crate::Result<Response> {
    Ok(with_etag(StatusCode::CREATED, &context.users.create(&caller, new).await?))
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
