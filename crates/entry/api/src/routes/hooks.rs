//! The endpoints that hooks call: coding agents ask before they act (`govern`) and tell what they did (`track`), a model provider
//! asks before it runs a model (`inference`).

mod govern;
mod inference;
mod rewrite;
mod track;

use crate::extract::Query;
use crate::services::server::route::Route;
use http::HeaderMap;
use std::sync::Arc;
use systemprompt_models::ids::ContextId;
use systemprompt_models::{Permission, Refusal, RequestContext};
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::HookTokenValidator;
use systemprompt_security::extraction::token::{api_key_header, authorization};

pub fn routes() -> Vec<Route> {
    [govern::routes(), track::routes(), inference::routes()].into_iter().flatten().collect()
}

/// The plugin of `?plugin_id=`.
fn plugin(query: &Query) -> Option<&str> {
    query.get("plugin_id").filter(|id| !id.is_empty())
}

/// Whether the token may ask here for the plugin that it names (SEC-60). The edge has verified it; a session of a browser has no
/// scope of its own.
async fn check_token(
    context: &AppContext,
    headers: &HeaderMap,
    scope: Permission,
    query: &Query,
) -> Result<(), Refusal> {
    let shown = authorization(headers).ok().or_else(|| api_key_header(headers).ok().flatten());
    let Some(token) = shown else { return Ok(()) };
    let validator = HookTokenValidator::new(Arc::clone(&context.auth));
    let checked = validator.validate(token, scope, plugin(query).unwrap_or_default()).await;
    checked.map(drop).map_err(|error| Refusal::from(&error))
}

/// A context id that nobody but this principal can arrive at.
fn conversation(caller: &RequestContext, session: &str) -> ContextId {
    use aws_lc_rs::digest::{Context as Digest, SHA256};
    let mut digest = Digest::new(&SHA256);
    digest.update(caller.principal.user_id.as_str().as_bytes());
    digest.update(b"\0hook\0");
    digest.update(session.as_bytes());
    let hex = hex::encode(digest.finish());
    ContextId::new(format!("{}{}", ContextId::PREFIX, hex.get(..32).unwrap_or_default()))
}
