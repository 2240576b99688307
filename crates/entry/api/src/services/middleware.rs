//! The layers of the edge, one file each. Their order stands in `services/server/builder.rs`.

pub mod assertion;
pub mod auth;
pub mod body;
pub mod cors;
pub mod host;
pub mod ip_ban;
pub mod negotiation;
pub mod policy_version;
pub mod rate_limit;
pub mod request_shape;
pub mod scanner;
pub mod security_headers;
pub mod throttle;
pub mod trace;
pub mod trailing_slash;
