//! The SQL of users and API keys.

pub mod api_keys;
pub mod users;
