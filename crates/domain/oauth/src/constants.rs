//! Numbers and names of the authorization server that the protocols or the documents fix.

use systemprompt_models::Millis;

/// Life of an authorization code (ID-43).
pub const AUTH_CODE_TTL_SECONDS: i64 = 600;
/// Life of a pushed authorization request (RFC 9126 section 2.2).
pub const PAR_TTL_SECONDS: i64 = 90;
/// How long a stored authorization request waits for the person.
pub const AUTHORIZE_REQUEST_TTL_SECONDS: i64 = 1800;
/// Life of a passkey ceremony.
pub const CHALLENGE_TTL_SECONDS: i64 = 300;
/// Life of a bridge's exchange code.
pub const EXCHANGE_CODE_TTL_SECONDS: i64 = 120;
/// Longest life of an ID token.
pub const ID_TOKEN_SECONDS: i64 = 3600;
/// Longest life of a token with a hook scope (SEC-60).
pub const MAX_HOOK_TOKEN_SECONDS: i64 = 3600;
/// How old a sign-in may be for what touches credentials.
pub const RECENT_SIGN_IN_SECONDS: i64 = 300;
/// Tolerance on times of tokens that others signed.
pub const FOREIGN_LEEWAY_SECONDS: i64 = 30;
/// How long a used code stays, so that a second use is seen.
pub const CODE_REUSE_MEMORY: Millis = 86_400_000;

pub const AUTH_CODE_PREFIX: &str = "ac_";
pub const REFRESH_TOKEN_PREFIX: &str = "rt_";
pub const DEVICE_CODE_PREFIX: &str = "dc_";
pub const CLIENT_SECRET_PREFIX: &str = "sps_";
pub const REGISTRATION_TOKEN_PREFIX: &str = "reg_";
pub const SETUP_TOKEN_PREFIX: &str = "su_";
pub const EXCHANGE_CODE_PREFIX: &str = "bx_";
pub const AUTHORIZE_REQUEST_PREFIX: &str = "ar_";
pub const FLOW_PREFIX: &str = "fl_";
/// `request_uri` of a pushed request.
pub const PAR_URN: &str = "urn:ietf:params:oauth:request_uri:";

/// Where the endpoints stand, below the external URL.
pub const OAUTH_BASE: &str = "/api/v1/core/oauth";

/// First-party clients, seeded at the start.
pub const SP_WEB: &str = "sp_web";
pub const SP_CLI: &str = "sp_cli";
pub const SP_BRIDGE: &str = "sp_bridge";
pub const SP_GATEWAY: &str = "sp_gateway";

/// Cookie that binds what a browser has begun to that browser.
pub const FLOW_COOKIE: &str = "sp_flow";
/// Cookie of a session.
pub const SESSION_COOKIE: &str = "access_token";
