//! The only place that reads files and environment for settings: the profile, the services folder, secrets, their
//! validation with file, line and column, and the reload that keeps the old configuration when the new one is bad.

pub mod profile;
pub mod services;

pub use profile::Profile;
pub use services::Services;
