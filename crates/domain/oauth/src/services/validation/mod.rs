//! Checks of what comes in.

pub mod client_credentials;
