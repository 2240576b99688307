//! What the endpoints do.

pub mod generation;
pub mod http;
pub mod refusals;
pub mod scopes;
pub mod token;
pub mod templating;
pub mod validation;
