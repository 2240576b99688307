//! The SQL of the identity tables.

pub mod api_keys;
pub mod attempts;
pub mod bridge_host_prefs;
pub mod bridge_session;
pub mod client;
pub mod exchange_code;
pub mod notices;
pub mod oauth;
pub mod passwords;
pub mod recovery_codes;
pub mod setup_token;
pub mod turns;
pub mod users;
pub mod webauthn;

#[cfg(test)]
pub(crate) mod testing;
