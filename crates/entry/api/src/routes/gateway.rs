//! The model gateway: Anthropic's endpoints, and the probes that its clients send.

pub mod messages;
pub mod models;
pub mod probe;

use crate::services::server::route::{GATEWAY_BODY, Route};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::Permission;
use systemprompt_models::envelope::Envelope;
use systemprompt_security::jwt::Surface;

/// Who may ask a model: an explicit set (GW-15).
const CALLERS: &[Permission] = Surface::Gateway.scopes();

pub fn routes() -> Vec<Route> {
    let signed = |route: Route| {
        route.signed(Surface::Gateway, CALLERS, RateGroup::Gateway).envelope(Envelope::Anthropic)
    };
    vec![
        signed(Route::post("/v1/messages", messages::create))
            .body_limit(GATEWAY_BODY)
            .doc("gateway", "A model request, answered as JSON or as an event stream"),
        signed(Route::post("/v1/messages/count_tokens", messages::count_tokens))
            .body_limit(GATEWAY_BODY)
            .doc("gateway", "Tokens that a model request would take"),
        signed(Route::get("/v1/models", models::list))
            .query(&["limit", "after_id", "before_id"])
            .doc("gateway", "Models that the caller may use"),
        signed(Route::get("/v1/models/{id}", models::get)).doc("gateway", "One model"),
        Route::head("/", probe::hello).probe().doc("gateway", "Whether somebody is here"),
        Route::head("/api/hello", probe::hello).probe().doc("gateway", "Whether somebody is here"),
    ]
}
