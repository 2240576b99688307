//! Checks of what comes in.

pub mod audience;
pub mod client_credentials;
pub mod oauth_params;
pub mod redirect_uri;
