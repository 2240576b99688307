//! The SQL of the security plane, and nothing else.

pub mod bans;
pub mod tokens;
