//! `security.identity`: how people and clients sign in (ID-7). Times are seconds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use systemprompt_models::Permission;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    pub registration: RegistrationPolicy,
    /// Most clients that registration makes; with more it is refused.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub registration_max_clients: u32,
    /// A registered client that nobody used for so many days is deleted.
    #[schemars(range(min = 1, max = 3650))]
    pub registration_unused_days: u32,
    pub cimd: CimdConfig,
    pub webauthn: WebauthnSettings,
    pub password: PasswordConfig,
    pub session: SessionConfig,
    pub refresh: RefreshConfig,
    /// Roles of a user who registers, or whom a trusted issuer brings.
    #[schemars(inner(pattern(r"^[a-z][a-z0-9_-]{0,63}$")))]
    pub default_roles: Vec<String>,
    /// What a role permits; a role that is not named here permits nothing by itself.
    #[schemars(with = "BTreeMap<String, Vec<PermissionName>>")]
    pub role_permissions: BTreeMap<String, Vec<Permission>>,
    pub client_assertion_audience: AssertionAudience,
    pub device: DeviceConfig,
}

/// Who may register a client (RFC 7591).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationPolicy {
    /// Anyone; what such a client may have is limited.
    Open,
    /// Who shows a token of a user.
    Authenticated,
    /// Nobody.
    Closed,
}

/// What `aud` of a client assertion must be (RFC 7523).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssertionAudience {
    Issuer,
    IssuerOrTokenEndpoint,
}

/// Clients that are named by the address of their metadata document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CimdConfig {
    pub enabled: bool,
    /// Hosts whose documents count: `app.example.com`, `*.example.com`; every public host if empty.
    #[schemars(inner(length(min = 1, max = 255), pattern(r"^(\*\.)?[A-Za-z0-9_.-]+$")))]
    pub allow_hosts: Vec<String>,
    /// Hosts whose documents never count.
    #[schemars(inner(length(min = 1, max = 255), pattern(r"^(\*\.)?[A-Za-z0-9_.-]+$")))]
    pub deny_hosts: Vec<String>,
    /// Largest document, in bytes.
    #[schemars(range(min = 512, max = 65_536))]
    pub max_bytes: u32,
    /// Shortest time that a document is kept.
    #[schemars(range(min = 1, max = 86_400))]
    pub cache_min: u32,
    /// Longest time that a document is kept.
    #[schemars(range(min = 1, max = 604_800))]
    pub cache_max: u32,
    /// How long a document is kept whose answer does not say.
    #[schemars(range(min = 1, max = 604_800))]
    pub cache_default: u32,
}

/// Passkeys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebauthnSettings {
    /// The external host, or a parent domain of it; the host if absent. No IP address.
    #[schemars(length(min = 1, max = 253))]
    pub rp_id: Option<String>,
    /// The name that an authenticator shows; the installation's display name if absent.
    #[schemars(length(min = 1, max = 64))]
    pub rp_name: Option<String>,
    pub resident_key: Wanted,
    /// `preferred` needs `password.enabled`.
    pub user_verification: Wanted,
    pub counter_policy: CounterPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Preferred,
    Required,
}

/// What follows when a passkey's counter does not rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CounterPolicy {
    Deny,
    Warn,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PasswordConfig {
    pub enabled: bool,
    #[schemars(range(min = 12, max = 256))]
    pub min_length: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// A session that is not used for so long ends.
    #[schemars(range(min = 300, max = 31_536_000))]
    pub idle: u32,
    /// The end of every session.
    #[schemars(range(min = 300, max = 31_536_000))]
    pub absolute: u32,
    /// Life of the cookie and of the token in it, which are renewed meanwhile.
    #[schemars(range(min = 60, max = 3600))]
    pub cookie_max_age: u32,
    #[schemars(range(min = 60, max = 86_400))]
    pub anonymous: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RefreshConfig {
    /// How long a refresh token that was used gives the same child again.
    #[schemars(range(min = 0, max = 60))]
    pub grace: u32,
    /// The end of a family of refresh tokens.
    #[schemars(range(min = 300, max = 63_072_000))]
    pub absolute: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// Life of a device code.
    #[schemars(range(min = 60, max = 3600))]
    pub ttl: u32,
    /// How long a device waits between two questions.
    #[schemars(range(min = 1, max = 60))]
    pub interval: u32,
}

/// The words of a permission, for the schema.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
enum PermissionName {
    #[schemars(rename = "admin")]
    Admin,
    #[schemars(rename = "user")]
    User,
    #[schemars(rename = "service")]
    Service,
    #[schemars(rename = "a2a")]
    A2a,
    #[schemars(rename = "mcp")]
    Mcp,
    #[schemars(rename = "hook:govern")]
    HookGovern,
    #[schemars(rename = "hook:track")]
    HookTrack,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        use Permission::{A2a, Admin, HookGovern, HookTrack, Mcp, Service, User};
        Self {
            registration: RegistrationPolicy::Open,
            registration_max_clients: 10_000,
            registration_unused_days: 90,
            cimd: CimdConfig::default(),
            webauthn: WebauthnSettings::default(),
            password: PasswordConfig::default(),
            session: SessionConfig::default(),
            refresh: RefreshConfig::default(),
            default_roles: vec!["user".to_owned()],
            role_permissions: BTreeMap::from([
                ("admin".to_owned(), vec![Admin, User, Service, A2a, Mcp, HookGovern, HookTrack]),
                ("user".to_owned(), vec![User, A2a, Mcp, HookGovern, HookTrack]),
                ("service".to_owned(), vec![Service]),
            ]),
            client_assertion_audience: AssertionAudience::Issuer,
            device: DeviceConfig::default(),
        }
    }
}

impl Default for CimdConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            allow_hosts: Vec::new(),
            deny_hosts: Vec::new(),
            max_bytes: 5120,
            cache_min: 60,
            cache_max: 86_400,
            cache_default: 3600,
        }
    }
}

impl Default for WebauthnSettings {
    fn default() -> Self {
        Self {
            rp_id: None,
            rp_name: None,
            resident_key: Wanted::Preferred,
            user_verification: Wanted::Required,
            counter_policy: CounterPolicy::Deny,
        }
    }
}

impl Default for PasswordConfig {
    fn default() -> Self {
        Self { enabled: false, min_length: 12 }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { idle: 604_800, absolute: 2_592_000, cookie_max_age: 3600, anonymous: 86_400 }
    }
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self { grace: 10, absolute: 7_776_000 }
    }
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self { ttl: 900, interval: 5 }
    }
}
