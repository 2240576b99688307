//! `/api/v1/admin/entities`: what rules may speak of. What is not registered is denied.

use super::rules::kind_of;
use crate::extract::{Context, Json as Body, Query};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_runtime::AppContext;
use systemprompt_security::authz::Entity;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/entities", list)
            .query(&["type"])
            .doc("admin", "Registered entities, by kind and id"),
        Route::put("/api/v1/admin/entities/{kind}/{id}", put)
            .takes::<EntityBody>()
            .doc("admin", "Registers an entity, or changes it"),
        Route::delete("/api/v1/admin/entities/{kind}/{id}", delete).doc(
            "admin",
            "Forgets an entity that the configuration does not declare; it is denied as unknown from then on",
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

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["type"])?;
    let kind = query.get("type").map(kind_of).transpose()?;
    let entities = context.rules.entities().await?;
    let items: Vec<Entity> = entities.into_iter().filter(|e| kind.is_none_or(|k| k == e.kind)).collect();
    Ok(Json(json!({"items": items, "next": null})))
}

async fn put(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path((kind, id)): Path<(String, String)>,
    Body(body): Body<EntityBody>,
) -> crate::Result<Json<Entity>> {
    let (kind, name) = (kind_of(&kind)?, body.display_name.as_deref());
    Ok(Json(context.rules.put_entity(&caller, kind, &id, name, body.default_included, "api").await?))
}

async fn delete(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path((kind, id)): Path<(String, String)>,
) -> crate::Result<StatusCode> {
    context.rules.delete_entity(&caller, kind_of(&kind)?, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
