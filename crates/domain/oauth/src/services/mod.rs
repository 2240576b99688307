//! What the endpoints do.

pub mod authorize;
pub mod cimd;
pub mod clients;
pub mod consent;
pub mod discovery;
pub mod generation;
pub mod http;
pub mod logout;
pub mod par;
pub mod refusals;
pub mod scopes;
pub mod templating;
pub mod token;
pub mod userinfo;
pub mod validation;
