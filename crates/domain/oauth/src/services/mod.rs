//! What the endpoints do.

pub mod http;
pub mod validation;
