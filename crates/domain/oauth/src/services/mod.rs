//! What the endpoints do.

pub mod attempts;
pub mod authorize;
pub mod bridge;
pub mod cimd;
pub mod claims;
pub mod cleanup;
pub mod clients;
pub mod consent;
pub mod device;
pub mod device_page;
pub mod discovery;
pub mod exchange;
pub mod explain;
pub mod generation;
pub mod grants;
pub mod http;
pub mod id_token;
pub mod introspection;
pub mod issuer_keys;
pub mod jwt;
pub mod logout;
pub mod meter;
pub mod notices;
pub mod pages;
pub mod par;
pub mod password;
pub mod providers;
pub mod recovery;
pub mod refusals;
pub mod revocation;
pub mod scopes;
pub mod session;
pub mod setup;
pub mod templating;
pub mod token;
pub mod userinfo;
pub mod validation;
pub mod webauthn;

#[cfg(test)]
mod tests;
