//! The SQL of the identity tables.

pub mod api_keys;
pub mod attempts;
pub mod client;
pub mod oauth;
pub mod passwords;
pub mod recovery_codes;
pub mod setup_token;
pub mod users;
pub mod webauthn;
