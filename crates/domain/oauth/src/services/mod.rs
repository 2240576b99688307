//! What the endpoints do.

pub mod authorize;
pub mod consent;
pub mod discovery;
pub mod http;
pub mod logout;
pub mod par;
pub mod templating;
pub mod userinfo;
pub mod validation;
