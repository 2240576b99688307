//! Security: who is calling (extraction, tokens, keys, sessions), what they may do (rules, the decision plane), what is in the
//! payload (governance), and what may leave (redaction). It decides; routing and rendering live elsewhere.

pub mod auth;
pub mod authz;
pub mod bans;
pub mod error;
pub mod extraction;
pub mod governance;
pub mod jwt;
pub mod keys;
pub mod manifest_signing;
pub mod nodes;
pub mod opaque;
pub mod plane;
pub mod redaction;
mod repository;
pub mod services;
pub mod session;
pub mod standard_webhooks;
