//! The SQL of the security plane, and nothing else.

pub(crate) mod allow;
pub mod bans;
pub mod hook_events;
pub mod keys;
mod late;
pub mod nodes;
pub mod rates;
pub(crate) mod seen;
pub mod tokens;
pub mod webhooks;
