//! Endpoints that clients call without a browser.

pub mod token;

use crate::services::server::route::Route;

/// Their routes.
pub fn routes() -> Vec<Route> {
    token::routes()
}
