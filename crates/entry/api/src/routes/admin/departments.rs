//! `/api/v1/admin/departments`: names that rules of departments use. A department decides nothing by itself.

use super::page;
use super::rules::{POLICY_VERSION, version_of};
use crate::extract::{Context, Json as Body, Query, etag, if_match, seen_version};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_runtime::AppContext;
use systemprompt_security::authz::Department;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/departments", list)
            .query(&["limit", "cursor"])
            .doc("admin", "Departments, by name"),
        Route::get("/api/v1/admin/departments/{name}", get).doc("admin", "One department, with its ETag"),
        Route::put("/api/v1/admin/departments/{name}", put)
            .takes::<DepartmentBody>()
            .doc("admin", "Makes a department; with If-Match, changes it"),
        Route::delete("/api/v1/admin/departments/{name}", delete)
            .doc("admin", "Deletes a department that no rule names; needs If-Match"),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DepartmentBody {
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    manager_email: Option<String>,
}

fn with_etag(context: &AppContext, status: StatusCode, department: &Department) -> Response {
    let headers = [(header::ETAG, etag(department.version)), (POLICY_VERSION, version_of(context))];
    (status, headers, Json(json!(department))).into_response()
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["limit", "cursor"])?;
    let limit = query.limit(50, 200)?;
    let departments = context.rules.departments(&query.cursor()?, limit + 1).await?;
    Ok(page(departments, limit, |department| department.name.clone()))
}

async fn get(State(context): State<AppContext>, Path(name): Path<String>) -> crate::Result<Response> {
    Ok(with_etag(&context, StatusCode::OK, &context.rules.department(&name).await?))
}

async fn put(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(body): Body<DepartmentBody>,
) -> crate::Result<Response> {
    let version = seen_version(&headers)?;
    let wanted = (body.description.as_deref(), body.manager_email.as_deref());
    let department = context.rules.put_department(&caller, &name, wanted, version).await?;
    let status = if version.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok(with_etag(&context, status, &department))
}

async fn delete(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> crate::Result<Response> {
    context.rules.delete_department(&caller, &name, if_match(&headers)?).await?;
    Ok((StatusCode::NO_CONTENT, [(POLICY_VERSION, version_of(&context))]).into_response())
}
