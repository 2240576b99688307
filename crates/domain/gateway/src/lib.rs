//! The model gateway.

pub mod demo;
pub mod parse;
pub mod pricing;
pub mod stream_tap;
