//! The profile: every setting of one deployment, with the defaults of the documents. Unknown keys are refused; the JSON
//! Schema that `config schema` prints is derived from these types.

pub mod audit;
pub mod check;
pub mod database;
pub mod gateway;
pub mod governance;
pub mod identity;
pub mod listen;
pub mod paths;
pub mod rate_limits;
pub mod runtime;
pub mod secrets;
pub mod security;
pub mod server;
pub mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One `profile.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Name of the deployment, as it appears in logs and in the ledger's origin.
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub name: String,
    /// Name shown to people; the name itself if absent.
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,
    /// User name of the administrator that the installation belongs to.
    #[schemars(length(min = 1, max = 128))]
    pub system_admin: Option<String>,
    pub database: database::DatabaseConfig,
    pub server: server::ServerConfig,
    pub paths: paths::PathsConfig,
    pub security: security::SecurityConfig,
    pub rate_limits: rate_limits::RateLimits,
    pub runtime: runtime::RuntimeConfig,
    pub secrets: secrets::SecretsConfig,
    pub extensions: runtime::ExtensionsConfig,
    pub gateway: gateway::GatewayConfig,
    pub governance: governance::GovernanceProfile,
    pub audit: audit::AuditConfig,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            name: "default".into(),
            display_name: None,
            system_admin: None,
            database: database::DatabaseConfig::default(),
            server: server::ServerConfig::default(),
            paths: paths::PathsConfig::default(),
            security: security::SecurityConfig::default(),
            rate_limits: rate_limits::RateLimits::default(),
            runtime: runtime::RuntimeConfig::default(),
            secrets: secrets::SecretsConfig::default(),
            extensions: runtime::ExtensionsConfig::default(),
            gateway: gateway::GatewayConfig::default(),
            governance: governance::GovernanceProfile::default(),
            audit: audit::AuditConfig::default(),
        }
    }
}

impl Profile {
    /// The address that clients are told: `server.api_external_url`, else `http://localhost:<port>`.
    pub fn api_external_url(&self) -> String {
        self.server.api_external_url.as_deref().map_or_else(
            || format!("http://localhost:{}", self.server.port),
            |url| url.trim_end_matches('/').to_owned(),
        )
    }

    /// `security.jwt_issuer`, else the external URL.
    pub fn jwt_issuer(&self) -> String {
        let issuer =
            self.security.jwt_issuer.as_deref().map(|issuer| issuer.trim_end_matches('/').to_owned());
        issuer.unwrap_or_else(|| self.api_external_url())
    }
}
