//! `/api/v1/admin/entities`: what rules may speak of. What is not registered is denied.

use super::page;
use super::rules::{POLICY_VERSION, kind_of, version_of};
use crate::extract::{Context, Json as Body, Query, etag, seen_version};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_models::{Code, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_security::authz::{Entity, EntityKind};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/entities", list)
            .query(&["type", "limit", "cursor"])
            .doc("admin", "Registered entities, by kind and id"),
        Route::get("/api/v1/admin/entities/{kind}/{id}", get).doc("admin", "One entity, with its ETag"),
        Route::put("/api/v1/admin/entities/{kind}/{id}", put)
            .takes::<EntityBody>()
            .doc("admin", "Registers an entity of any kind but mcp_tool, which needs none; with If-Match, changes it"),
        Route::delete("/api/v1/admin/entities/{kind}/{id}", delete).doc(
            "admin",
            "Forgets an entity that the configuration does not declare, so that it is denied as unknown; needs If-Match",
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EntityBody {
    #[serde(default)]
    display_name: Option<String>,
    /// Whether everyone whom no rule names may use it.
    #[serde(default)]
    default_included: bool,
}

fn with_etag(context: &AppContext, status: StatusCode, entity: &Entity) -> Response {
    let headers = [(header::ETAG, etag(entity.version)), (POLICY_VERSION, version_of(context))];
    (status, headers, Json(json!(entity))).into_response()
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["type", "limit", "cursor"])?;
    let kind = query.get("type").map(kind_of).transpose()?;
    let limit = query.limit(50, 200)?;
    let cursor = query.cursor()?;
    let after = cursor.split_once(':').unwrap_or_default();
    let entities = context.rules.entities_page(after, kind, limit + 1).await?;
    Ok(page(entities, limit, |entity| format!("{}:{}", entity.kind.as_str(), entity.id)))
}

async fn get(
    State(context): State<AppContext>,
    Path((kind, id)): Path<(String, String)>,
) -> crate::Result<Response> {
    let found = context.rules.entity(kind_of(&kind)?, &id).await?;
    let missing = || Refusal::new(Code::NotFound, format!("there is no entity `{kind}:{id}`"));
    Ok(with_etag(&context, StatusCode::OK, &found.ok_or_else(missing)?))
}

async fn put(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body<EntityBody>,
) -> crate::Result<Response> {
    let kind: EntityKind = kind_of(&kind)?;
    if kind == EntityKind::McpTool {
        let sentence = "a tool needs no registration: a rule that names it counts by itself";
        return Err(Refusal::new(Code::Unprocessable, sentence).with_validation("kind", sentence).into());
    }
    let version = seen_version(&headers)?;
    let wanted = (body.display_name.as_deref(), body.default_included);
    let entity = context.rules.put_entity_version(&caller, (kind, &id), wanted, version).await?;
    let status = if version.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok(with_etag(&context, status, &entity))
}

async fn delete(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> crate::Result<Response> {
    let version = crate::extract::if_match(&headers)?;
    context.rules.delete_entity(&caller, kind_of(&kind)?, &id, Some(version)).await?;
    Ok((StatusCode::NO_CONTENT, [(POLICY_VERSION, version_of(&context))]).into_response())
}
