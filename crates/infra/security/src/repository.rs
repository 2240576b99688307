//! The SQL of the security plane, and nothing else.

pub(crate) mod allow;
pub mod bans;
pub mod ends;
pub mod hook_events;
pub mod keys;
pub mod nodes;
pub mod rates;
pub(crate) mod seen;
pub mod sessions;
pub mod tokens;
pub mod tree;
pub mod webhooks;
