//! Passkeys (Web Authentication; ID-82 to ID-89).

pub mod config;
pub mod jwt;
pub mod registry;
pub mod service;
pub mod token;
pub mod user_service;

pub use config::WebAuthnConfig;
pub use jwt::JwtTokenValidator;
pub use service::WebAuthnService;
pub use token::{Browser, Started};
pub use user_service::{Newcomer, UserCreationService};

#[cfg(test)]
mod tests;
