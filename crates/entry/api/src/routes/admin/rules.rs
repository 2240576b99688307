//! `/api/v1/admin/rules`: who may use what. A change is in force on this node when its answer arrives.

use super::page;
use crate::extract::{Context, Json as Body, Query, etag, idempotency_key, if_match};
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
use systemprompt_security::authz::types::entity_kind;
use systemprompt_security::authz::{
    Access, AccessRule, EntityKind, EntityRef, RuleSet, RuleType, UpsertRuleParams,
};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/rules", list)
            .query(&["entity_type", "entity_id", "limit", "cursor"])
            .doc("admin", "Rules, by id"),
        Route::post("/api/v1/admin/rules", create)
            .takes::<NewRule>()
            .doc("admin", "Makes a rule; with Idempotency-Key once, however often it is asked for"),
        Route::get("/api/v1/admin/rules/{id}", get).doc("admin", "One rule, with its ETag"),
        Route::patch("/api/v1/admin/rules/{id}", change)
            .takes::<RuleChange>()
            .doc("admin", "Changes a rule; needs If-Match"),
        Route::delete("/api/v1/admin/rules/{id}", delete).doc("admin", "Deletes a rule; needs If-Match"),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewRule {
    /// `gateway_route`, `mcp_server`, `mcp_tool`, `plugin`, `agent`, `marketplace`, `skill` or `hook`.
    entity_type: String,
    /// An id, or a pattern with `*`.
    entity_id: String,
    /// `user`, `role` or `department`.
    rule_type: String,
    rule_value: String,
    /// `allow` or `deny`.
    access: String,
    #[serde(default)]
    justification: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleChange {
    /// `allow` or `deny`.
    access: String,
    #[serde(default)]
    justification: Option<String>,
}

fn wrong(field: &'static str, allowed: &'static str) -> Refusal {
    Refusal::new(Code::Unprocessable, "a field is not valid")
        .with_validation(field, format!("allowed: {allowed}"))
}

pub(super) fn kind_of(word: &str) -> Result<EntityKind, Refusal> {
    let allowed = "gateway_route, mcp_server, mcp_tool, plugin, agent, marketplace, skill, hook";
    entity_kind(word).ok_or_else(|| wrong("entity_type", allowed))
}

fn access_of(word: &str) -> Result<Access, Refusal> {
    word.parse().map_err(|()| wrong("access", "allow, deny"))
}

/// The epoch of the rules that an answer depends on.
pub(super) use crate::services::middleware::policy_version::HEADER as POLICY_VERSION;

pub(super) fn version_of(context: &AppContext) -> String {
    context.rules.rules().epoch().to_string()
}

fn with_etag(context: &AppContext, status: StatusCode, rule: &AccessRule) -> Response {
    let headers = [(header::ETAG, etag(rule.version)), (POLICY_VERSION, version_of(context))];
    (status, headers, Json(json!(rule))).into_response()
}

async fn list(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["entity_type", "entity_id", "limit", "cursor"])?;
    let kind = query.get("entity_type").map(kind_of).transpose()?;
    let limit = query.limit(50, 200)?;
    let rules = context.rules.page(&query.cursor()?, kind, query.get("entity_id"), limit + 1).await?;
    Ok(page(rules, limit, |rule| rule.id.to_string()))
}

async fn create(
    State(context): State<AppContext>,
    Context(caller): Context,
    headers: HeaderMap,
    Body(new): Body<NewRule>,
) -> crate::Result<Response> {
    let key = idempotency_key(&headers)?;
    let params = UpsertRuleParams {
        entity_type: kind_of(&new.entity_type)?,
        is_pattern: new.entity_id.contains('*'),
        entity_id: new.entity_id,
        rule_type: new
            .rule_type
            .parse::<RuleType>()
            .map_err(|()| wrong("rule_type", "user, role, department"))?,
        rule_value: new.rule_value,
        access: access_of(&new.access)?,
        justification: new.justification,
        source: "api",
        created_by: caller.principal.user_id.to_string(),
    };
    let rule = match key {
        Some(key) => context.rules.create_rule_once(&caller, &params, key).await?,
        None => context.rules.create_rule(&caller, &params).await?,
    };
    let headers = [(header::ETAG, etag(rule.version)), (POLICY_VERSION, version_of(&context))];
    let mut body = json!(rule);
    let warning =
        speaks_of_nothing(&context.rules.rules(), rule.entity_type, &rule.entity_id, rule.is_pattern);
    if let (Some(warning), Some(map)) = (warning, body.as_object_mut()) {
        map.insert("warnings".into(), json!([warning]));
    }
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

/// What to say of a rule that decides nothing as yet.
pub(super) fn speaks_of_nothing(
    rules: &RuleSet,
    kind: EntityKind,
    id: &str,
    is_pattern: bool,
) -> Option<String> {
    let of = format!("{}:{id}", kind.as_str());
    if is_pattern {
        // A server's tools are not registered one by one; a pattern over them is asked when a tool is called.
        (kind != EntityKind::McpTool && !rules.covers_anything(kind, id))
            .then(|| format!("no registered entity fits {of}: the rule decides nothing until one does"))
    } else {
        (!rules.knows(&EntityRef::new(kind, id)))
            .then(|| format!("{of} is not registered: it stays denied as unknown, whatever rules say"))
    }
}

async fn get(State(context): State<AppContext>, Path(id): Path<String>) -> crate::Result<Response> {
    Ok(with_etag(&context, StatusCode::OK, &context.rules.rule(&id).await?))
}

async fn change(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(change): Body<RuleChange>,
) -> crate::Result<Response> {
    let version = if_match(&headers)?;
    let access = access_of(&change.access)?;
    let rule =
        context.rules.change_rule(&caller, &id, version, access, change.justification.as_deref()).await?;
    Ok(with_etag(&context, StatusCode::OK, &rule))
}

async fn delete(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> crate::Result<Response> {
    context.rules.delete_rule(&caller, &id, Some(if_match(&headers)?)).await?;
    Ok((StatusCode::NO_CONTENT, [(POLICY_VERSION, version_of(&context))]).into_response())
}
