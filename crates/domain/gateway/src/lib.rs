//! The model gateway.

pub mod parse;
pub mod pricing;
