//! Checks of what comes in.

pub mod audience;
pub mod client_assertion;
pub mod client_credentials;
pub mod client_keys;
pub mod jwt;
pub mod oauth_params;
pub mod redirect_uri;
