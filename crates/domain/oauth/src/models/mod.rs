//! The types of the authorization server.

pub mod cimd;
pub mod clients;
pub mod oauth;
