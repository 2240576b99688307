//! What the endpoints do.

pub mod http;
pub mod templating;
pub mod validation;
