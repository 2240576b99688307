//! The types of the authorization server.

pub mod analytics;
pub mod cimd;
pub mod clients;
pub mod oauth;
