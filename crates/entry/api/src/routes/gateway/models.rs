//! `GET /v1/models` and `GET /v1/models/{id}`: from the catalog, filtered by what the caller may use.

use crate::extract::{Context, Query};
use axum::Json;
use axum::extract::{Path, State};
use systemprompt_gateway::registry::{ModelInfo, ModelPage, PageQuery};
use systemprompt_models::{Code, Refusal};
use systemprompt_runtime::AppContext;

pub async fn list(
    State(context): State<AppContext>,
    Context(caller): Context,
    query: Query,
) -> crate::Result<Json<ModelPage>> {
    let limit = match query.get("limit").map(str::parse) {
        None => None,
        Some(Ok(limit)) => Some(limit),
        Some(Err(_)) => return Err(Refusal::new(Code::BadRequest, "limit: a number from 1 to 1000").into()),
    };
    let page = PageQuery {
        limit,
        after_id: query.get("after_id").map(str::to_owned),
        before_id: query.get("before_id").map(str::to_owned),
    };
    Ok(Json(context.gateway.models(&caller, &page).await?))
}

pub async fn get(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Json<ModelInfo>> {
    Ok(Json(context.gateway.model(&caller, &id).await?))
}
