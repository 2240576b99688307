//! Passkeys (Web Authentication; ID-82 to ID-89).

pub mod config;
pub mod registry;
pub mod service;
pub mod token;

pub use config::WebAuthnConfig;
pub use service::WebAuthnService;
pub use token::{Browser, Started};

#[cfg(test)]
mod tests;
