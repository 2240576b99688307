//! The model gateway.

pub mod parse;
