//! Every route of the surface. The router, the edge and the OpenAPI document are made from this list.

pub mod admin;
pub mod bridge;
pub mod gateway;
pub mod govern;
pub mod health;
pub mod hooks;
pub mod mcp;
pub mod oauth;
pub mod openapi;
pub mod stream;
pub mod users;
pub mod wellknown;

use crate::services::server::metrics::Metrics;
use crate::services::server::route::Route;
use std::sync::Arc;

/// All routes but the OpenAPI document, which is made from them.
pub fn all(metrics: &Arc<Metrics>) -> Vec<Route> {
    let mut routes = health::routes(metrics);
    routes.extend(wellknown::routes());
    routes.extend(oauth::routes());
    routes.extend(users::routes());
    routes.extend(bridge::routes());
    routes.extend(gateway::routes());
    routes.extend(mcp::routes());
    routes.extend(hooks::routes());
    routes.extend(govern::routes());
    routes.extend(stream::routes());
    routes.extend(admin::routes());
    routes
}
