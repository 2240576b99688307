//! The types of the authorization server.

pub mod clients;
pub mod oauth;
