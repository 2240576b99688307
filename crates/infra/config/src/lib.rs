//! The only place that reads files and environment for settings: the profile, the services folder, secrets, their
//! validation with file, line and column, and the reload that keeps the old configuration when the new one is bad.

pub mod bootstrap;
pub mod data_dir;
pub mod diagnostic;
mod document;
pub mod env;
pub mod init;
mod interpolate;
pub mod load;
pub mod origins;
mod overlay;
pub mod profile;
mod reload;
pub mod schema;
pub mod secrets;
pub mod services;
#[cfg(test)]
mod testing;
pub mod watch;

pub use bootstrap::SecretsBootstrap;
pub use data_dir::{DataPaths, ProfileLocation};
pub use diagnostic::{Diagnostic, Diagnostics, Origin, Severity};
pub use env::{Environment, ProcessEnvironment};
pub use init::{NewProfile, init_profile};
pub use load::{LoadOptions, Loaded, validate};
pub use profile::Profile;
pub use schema::profile_schema;
pub use secrets::{JWT_SECRET_MIN_LENGTH, Secrets, SecretsError};
pub use services::Services;
pub use services::access_control::{AccessControlConfig, AccessControlReader};
pub use services::governance::{GovernanceConfig, PolicyConfig};
pub use services::mcp::McpServerConfig;
pub use watch::{Reload, Watch};
