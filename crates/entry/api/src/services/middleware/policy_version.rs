//! `x-policy-version`: the version of the rules that an answer depends on, and the one that a client has seen (SEC-67).
//!
//! The version of an answer is the one in force when its handler began, so what was decided was decided by it or by a newer one.
//! A client that sends a version on to another node is served there by rules at least as new.

use crate::services::server::route::RouteSpec;
use http::{HeaderMap, HeaderName, HeaderValue};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::{Code, Refusal};
use systemprompt_security::authz::RuleStore;

pub const HEADER: HeaderName = HeaderName::from_static("x-policy-version");

/// Whether rules decide what a route answers.
fn depends(route: &RouteSpec) -> bool {
    matches!(
        route.group,
        Some(
            RateGroup::Gateway
                | RateGroup::Mcp
                | RateGroup::McpRegistry
                | RateGroup::Hooks
                | RateGroup::Agents
                | RateGroup::AgentRegistry
                | RateGroup::Marketplace
                | RateGroup::Admin
        )
    )
}

/// Waits for the version that the request names.
///
/// # Errors
/// 400 for what is no version, 503 when none that new is to be had in a second.
pub async fn settle(rules: &RuleStore, headers: &HeaderMap, route: &RouteSpec) -> Result<(), Refusal> {
    let Some(wanted) = headers.get(HEADER).filter(|_| depends(route)) else { return Ok(()) };
    let wanted = wanted.to_str().ok().and_then(|text| text.parse::<i64>().ok()).filter(|epoch| *epoch >= 0);
    let wrong = || Refusal::new(Code::BadRequest, "x-policy-version: the number that an answer carried");
    if rules.at_least(wanted.ok_or_else(wrong)?).await {
        return Ok(());
    }
    let reason = "this node has no rules as new as the version that you have seen";
    Err(Refusal::new(Code::PolicyVersionUnavailable, reason).with_retry_after(1))
}

/// The version in force, where the route depends on it.
pub fn of(rules: &RuleStore, route: Option<&RouteSpec>) -> Option<i64> {
    route.filter(|route| depends(route)).map(|_| rules.rules().epoch())
}

/// Tells the version, unless the handler knows better: after a change it tells the new one.
pub fn apply(headers: &mut HeaderMap, version: Option<i64>) {
    if let Some(version) = version {
        headers.entry(HEADER).or_insert_with(|| HeaderValue::from(version));
    }
}
