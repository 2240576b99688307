//! Endpoints that clients call without a browser.

pub mod device_authorization;
pub mod introspect;
pub mod revoke;
pub mod token;

use crate::services::server::route::Route;

/// Their routes.
pub fn routes() -> Vec<Route> {
    let mut routes = token::routes();
    routes.extend(introspect::routes());
    routes.extend(revoke::routes());
    routes.extend(device_authorization::routes());
    routes
}
