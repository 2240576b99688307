//! The authorization server: `/api/v1/core/oauth`, its pages, and its part of `/.well-known`. A file is named after its endpoint:
//! it extracts, calls one function of `systemprompt_oauth`, and renders.

pub mod answer;
pub mod authorize;
pub mod clients;
pub mod consent;
pub mod device;
pub mod endpoints;
pub mod first_password;
pub mod flow;
pub mod form;
pub mod health;
pub mod home;
pub mod json;
pub mod login;
pub mod logout;
pub mod page;
pub mod par;
pub mod protocols;
pub mod register;
pub mod session;
pub mod userinfo;
pub mod visitor;
pub mod webauthn;

use crate::services::server::route::Route;

/// Every route of the authorization server.
pub fn routes() -> Vec<Route> {
    let mut routes = health::routes();
    routes.extend(home::routes());
    routes.extend(endpoints::routes());
    routes.extend(page::routes());
    routes.extend(authorize::routes());
    routes.extend(par::routes());
    routes.extend(consent::routes());
    routes.extend(userinfo::routes());
    routes.extend(logout::routes());
    routes.extend(register::routes());
    routes.extend(clients::routes());
    routes.extend(session::routes());
    routes.extend(webauthn::routes());
    routes.extend(login::routes());
    routes.extend(device::routes());
    routes.extend(first_password::routes());
    for route in &mut routes {
        route.spec.protocol = protocols::of(&route.spec.method, route.spec.path);
    }
    routes
}
