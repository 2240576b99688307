//! Checks of what comes in.

pub mod audience;
pub mod client_credentials;
