//! Why a boot failed: each variant names its step.

use systemprompt_audit::LedgerError;
use systemprompt_config::Diagnostic;
use systemprompt_config::data_dir::LocationError;
use systemprompt_database::{ClaimError, ConnectError, MigrationError};
use systemprompt_extension::RegistryError;
use systemprompt_oauth::IdentityError;
use systemprompt_security::authz::{AuthzBootstrapError, AuthzError};
use systemprompt_security::bans::BanError;
use systemprompt_security::governance::{AllowError, PipelineError};
use systemprompt_security::keys::KeyError;
use systemprompt_security::session::SessionError;

/// Which step failed, and why. The variants are the steps.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("config: {0}")]
    Location(#[from] LocationError),
    #[error("config: {} finding(s)", .0.len())]
    Config(Vec<Diagnostic>),
    #[error("config: the built-in secret rules cannot be used")]
    Rules(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("secrets: `{0}` is missing; `systemprompt up` makes it")]
    SecretMissing(&'static str),
    #[error("secrets: {0}")]
    Pepper(systemprompt_oauth::at_rest::PepperError),
    #[error("database: {0}")]
    Claim(#[from] ClaimError),
    #[error("database: {0}")]
    Database(#[from] ConnectError),
    #[error("migrate: {0}")]
    Migrate(#[from] MigrationError),
    #[error("keys: {0}")]
    Keys(#[from] KeyError),
    #[error("ledger: {0}")]
    Ledger(#[from] systemprompt_audit::StartError),
    #[error("ledger: {0}")]
    LedgerKey(#[from] systemprompt_audit::signing_key::SigningKeyError),
    #[error("ledger: the witness {0}: {1}")]
    Witness(String, #[source] systemprompt_net::EgressError),
    #[error("config: security.egress: {0}")]
    Egress(String),
    #[error("ledger: the sink {0}: {1}")]
    Sink(String, #[source] crate::sinks::SinkFault),
    #[error("ledger: the start could not be recorded: {0}")]
    Record(#[from] LedgerError),
    #[error("extensions: {0}")]
    Extensions(#[from] RegistryError),
    #[error("decision_plane: {0}")]
    Authz(#[from] AuthzError),
    #[error("decision_plane: {0}")]
    Hook(#[from] AuthzBootstrapError),
    #[error("decision_plane: {0}")]
    Pipeline(#[from] PipelineError),
    #[error("decision_plane: the call limit's parameters: {0}")]
    Limit(String),
    #[error("caches: {0}")]
    Sessions(#[from] SessionError),
    #[error("caches: {0}")]
    Bans(#[from] BanError),
    #[error("caches: {0}")]
    AllowList(#[from] AllowError),
    #[error("services: {0}")]
    Identity(#[from] IdentityError),
    #[error("clients: those of the installation could not be made: {0}")]
    Clients(#[from] systemprompt_oauth::services::clients::ClientError),
    #[error("services: {0}")]
    Gateway(#[from] systemprompt_gateway::service::GatewayError),
    #[error("recover: what an earlier process left open could not be closed: {0}")]
    Recover(String),
    #[error("recover: {0}")]
    Read(String),
}

impl BootError {
    /// Whether the profile itself is wrong (exit code 7).
    pub fn is_invalid_profile(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Pipeline(_) | Self::Hook(_) | Self::Limit(_) | Self::Egress(_))
    }

    /// Whether another process serves the database (exit code 6).
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Claim(ClaimError::Held { .. }))
    }
}
