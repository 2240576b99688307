//! The SQL of the identity tables.

pub mod api_keys;
pub mod client;
pub mod oauth;
pub mod users;
