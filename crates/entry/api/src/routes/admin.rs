//! Administration: rules, entities, departments, users, keys, tokens, bans, the allow list, decisions, the ledger, reload. Permission
//! `admin` unless a route says
//! otherwise.

pub mod allowlist;
pub mod audit;
pub mod bans;
pub mod config;
pub mod decisions;
pub mod departments;
pub mod entities;
pub mod explain;
pub mod keys;
pub mod policy;
pub mod rules;
pub mod tokens;
pub mod users;

use crate::extract::cursor_of;
use crate::services::server::route::Route;
use axum::Json;
use serde::Serialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    let mut routes = rules::routes();
    routes.extend(policy::routes());
    routes.extend(entities::routes());
    routes.extend(departments::routes());
    routes.extend(users::routes());
    routes.extend(keys::routes());
    routes.extend(tokens::routes());
    routes.extend(bans::routes());
    routes.extend(allowlist::routes());
    routes.extend(decisions::routes());
    routes.extend(audit::routes());
    routes.extend(explain::routes());
    routes.extend(config::routes());
    routes
}

/// `{items, next}`: a page of at most `limit` of the `limit + 1` items that were read. `place` names where an item stands.
pub(crate) fn page<T: Serialize>(mut items: Vec<T>, limit: i64, place: impl Fn(&T) -> String) -> Json<Value> {
    let more = items.len() as i64 > limit;
    items.truncate(limit as usize);
    let next = if more { items.last().map(|item| cursor_of(&place(item))) } else { None };
    Json(json!({"items": items, "next": next}))
}
