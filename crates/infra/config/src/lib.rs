//! The only place that reads files and environment for settings: the profile, the services folder, secrets, their
//! validation with file, line and column, and the reload that keeps the old configuration when the new one is bad.

pub mod bootstrap;
pub mod data_dir;
pub mod diagnostic;
mod document;
pub mod env;
mod interpolate;
pub mod origins;
mod overlay;
pub mod profile;
pub mod schema;
pub mod secrets;
pub mod services;

pub use bootstrap::SecretsBootstrap;
pub use data_dir::{DataPaths, ProfileLocation};
pub use diagnostic::{Diagnostic, Diagnostics, Origin, Severity};
pub use env::{Environment, ProcessEnvironment};
pub use profile::Profile;
pub use schema::profile_schema;
pub use secrets::{JWT_SECRET_MIN_LENGTH, Secrets, SecretsError};
pub use services::Services;
