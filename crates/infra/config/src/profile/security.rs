//! `security`: tokens and the probe scanner.

use super::identity::IdentityConfig;
use super::values::Cidr;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use systemprompt_models::JwtAudience;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecurityConfig {
    /// `iss` of our tokens; the external URL if absent.
    #[schemars(length(min = 1, max = 512))]
    pub jwt_issuer: Option<String>,
    /// Seconds.
    #[schemars(range(min = 60, max = 86_400))]
    pub jwt_access_token_expiration: u32,
    /// Seconds.
    #[schemars(range(min = 300, max = 31_536_000))]
    pub jwt_refresh_token_expiration: u32,
    /// Audiences of a token that names none.
    #[schemars(with = "Vec<AudienceName>")]
    pub jwt_audiences: Vec<JwtAudience>,
    /// Resource URIs that a token may be asked for beside our own.
    pub allowed_resource_audiences: Vec<String>,
    /// Whether strangers may make themselves an account.
    pub allow_registration: bool,
    pub signing_algorithm: SigningAlgorithm,
    /// Signing keys as a JWK Set or PEM, 0600; the data folder's `keys` if absent.
    pub signing_key_path: Option<PathBuf>,
    pub trusted_issuers: Vec<TrustedIssuer>,
    pub identity: IdentityConfig,
    pub scanner: ScannerConfig,
    pub egress: EgressConfig,
}

/// What this deployment may fetch (SEC-103). A change waits for a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Hosts that outsiders' URLs may name: `docs.example.com`, `*.example.com`; every public host if empty.
    #[schemars(inner(length(min = 1, max = 255), pattern(r"^(\*\.)?[A-Za-z0-9_.:-]+$")))]
    pub allow_hosts: Vec<String>,
    /// Hosts that are never fetched from, whoever names them.
    #[schemars(inner(length(min = 1, max = 255), pattern(r"^(\*\.)?[A-Za-z0-9_.:-]+$")))]
    pub deny_hosts: Vec<String>,
    /// Networks and hosts that the configuration's own URLs may reach though they are private: `10.0.0.0/8`, `vault.internal`.
    /// Link-local addresses, where clouds keep their metadata, need an entry of their own.
    #[schemars(inner(length(min = 1, max = 255), pattern(r"^(\*\.)?[A-Za-z0-9_.:/-]+$")))]
    pub allow_private: Vec<String>,
}

/// Names of the surfaces that a token may count on.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
enum AudienceName {
    Web,
    Api,
    A2a,
    Mcp,
    Internal,
    Bridge,
    Hook,
}

/// Algorithm of the key ring's active key (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SigningAlgorithm {
    RS256,
    ES256,
    EdDSA,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedIssuer {
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    #[schemars(extend("format" = "http-url"))]
    pub jwks_uri: String,
    /// `aud` that its tokens must have.
    #[schemars(length(min = 1, max = 512))]
    pub audience: String,
    #[serde(default = "all_algorithms")]
    #[schemars(length(min = 1))]
    pub algorithms: Vec<SigningAlgorithm>,
    #[serde(default)]
    pub subject_mapping: SubjectMapping,
    /// Longest time since a token's `iat`, in seconds.
    #[serde(default = "default_max_age")]
    #[schemars(range(min = 10, max = 86_400))]
    pub max_age: u32,
}

fn all_algorithms() -> Vec<SigningAlgorithm> {
    vec![SigningAlgorithm::RS256, SigningAlgorithm::ES256, SigningAlgorithm::EdDSA]
}

fn default_max_age() -> u32 {
    3600
}

/// Which user a subject of a trusted issuer is (ID-60).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectMapping {
    /// The one that was linked to it.
    #[default]
    Linked,
    /// Also the one with the same mail address, if the issuer has verified it.
    VerifiedEmail,
    /// Also a new one, with the default roles.
    Provision,
}

/// Probe detection (SEC-22 to SEC-24).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScannerConfig {
    pub enabled: bool,
    /// Path prefixes that are not judged. They never re-allow `.env`, `.git` or a dot segment.
    pub allow_paths: Vec<String>,
    /// Parts of agent strings that are not judged, whatever their case.
    pub allow_agents: Vec<String>,
    /// Clients that are not judged at all.
    pub allow_cidrs: Vec<Cidr>,
    pub auto_ban: AutoBan,
}

/// Ban of an address after repeated path hits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AutoBan {
    pub enabled: bool,
    /// Hits of the path rule within the window.
    #[schemars(range(min = 1, max = 100_000))]
    pub hits: u32,
    /// Seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub window_s: u32,
    /// Seconds of the first ban; a /64 of IPv6 that comes again gets 24 and then 168 times as much.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub ban_s: u32,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            jwt_issuer: None,
            jwt_access_token_expiration: 3600,
            jwt_refresh_token_expiration: 2_592_000,
            jwt_audiences: vec![JwtAudience::Web, JwtAudience::Api, JwtAudience::A2a, JwtAudience::Mcp],
            allowed_resource_audiences: Vec::new(),
            allow_registration: false,
            signing_algorithm: SigningAlgorithm::RS256,
            signing_key_path: None,
            trusted_issuers: Vec::new(),
            identity: IdentityConfig::default(),
            scanner: ScannerConfig::default(),
            egress: EgressConfig::default(),
        }
    }
}

impl Default for ScannerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            allow_paths: Vec::new(),
            allow_agents: Vec::new(),
            allow_cidrs: Vec::new(),
            auto_ban: AutoBan::default(),
        }
    }
}

impl Default for AutoBan {
    fn default() -> Self {
        Self { enabled: true, hits: 20, window_s: 600, ban_s: 3600 }
    }
}
