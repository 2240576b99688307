//! What the endpoints do.

pub mod authorize;
pub mod cimd;
pub mod cleanup;
pub mod clients;
pub mod consent;
pub mod device;
pub mod discovery;
pub mod exchange;
pub mod generation;
pub mod grants;
pub mod http;
pub mod id_token;
pub mod introspection;
pub mod issuer_keys;
pub mod logout;
pub mod meter;
pub mod par;
pub mod refusals;
pub mod revocation;
pub mod scopes;
pub mod templating;
pub mod token;
pub mod userinfo;
pub mod validation;

#[cfg(test)]
mod tests;
