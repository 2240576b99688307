//! The SQL of the security plane, and nothing else.

pub mod bans;
pub mod hook_events;
pub mod keys;
pub mod nodes;
pub mod rates;
pub mod tokens;
pub mod webhooks;
