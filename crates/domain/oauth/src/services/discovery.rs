//! What clients and resource servers read of this deployment (OpenID Connect Discovery 1.0, RFC 8414, RFC 9728).

use super::validation::audience::{SURFACES, is_named_surface};
use super::validation::client_keys::ALGORITHMS;
use crate::models::oauth::{ClientAuthMethod, GrantType, ResponseMode};
use crate::services::authorize::request::Prompt;
use crate::state::{OAuthState, Settings};
use serde_json::{Value, json};
use systemprompt_config::profile::identity::RegistrationPolicy;
use systemprompt_models::Permission;
use systemprompt_models::auth::OIDC_SCOPES;
use systemprompt_security::jwt::Surface;
use systemprompt_security::keys::SigningAlgorithm;

/// The metadata of this server, the same at both well-known addresses.
pub fn server_metadata(state: &OAuthState) -> Value {
    let settings = state.settings();
    let at = |path: &str| settings.endpoint(path);
    let confidential: Vec<&str> = ClientAuthMethod::ALL
        .iter()
        .filter(|method| **method != ClientAuthMethod::None)
        .map(|m| m.as_str())
        .collect();
    let all: Vec<&str> = ClientAuthMethod::ALL.iter().map(|method| method.as_str()).collect();
    let prompts: Vec<&str> = Prompt::ALL
        .iter()
        .filter(|prompt| **prompt != Prompt::Create || settings.allow_registration)
        .map(|prompt| prompt.as_str())
        .collect();
    let keys = state.keys.load();
    let id_token_algorithms: Vec<&str> = SigningAlgorithm::ALL
        .into_iter()
        .filter(|algorithm| keys.signs(*algorithm))
        .map(SigningAlgorithm::as_str)
        .collect();
    let mut metadata = json!({
        "issuer": settings.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "userinfo_endpoint": at("/userinfo"),
        "introspection_endpoint": at("/introspect"),
        "revocation_endpoint": at("/revoke"),
        "pushed_authorization_request_endpoint": at("/par"),
        "device_authorization_endpoint": at("/device_authorization"),
        "end_session_endpoint": at("/logout"),
        "jwks_uri": format!("{}/.well-known/jwks.json", settings.external_url),
        "scopes_supported": scopes(),
        "response_types_supported": ["code"],
        "response_modes_supported": ResponseMode::ALL.iter().map(|mode| mode.as_str()).collect::<Vec<_>>(),
        "grant_types_supported": GrantType::ALL.iter().map(|grant| grant.as_str()).collect::<Vec<_>>(),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": all,
        "introspection_endpoint_auth_methods_supported": confidential.clone(),
        "revocation_endpoint_auth_methods_supported": confidential,
        "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "revocation_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": settings.identity.cimd.enabled,
        "prompt_values_supported": prompts,
        "claim_types_supported": ["normal"],
        "claims_supported": CLAIMS,
        "claims_parameter_supported": true,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "require_request_uri_registration": false,
        "require_pushed_authorization_requests": false,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": id_token_algorithms,
        "acr_values_supported": acr_values(&settings),
        "ui_locales_supported": ["en", "de"],
        "display_values_supported": ["page"],
        "protected_resources": protected(&settings),
        "service_documentation": format!("{}/api/v1/docs/identity.md", settings.external_url),
        "gateway_protocol_version": 1,
    });
    if settings.identity.registration != RegistrationPolicy::Closed
        && let Some(map) = metadata.as_object_mut()
    {
        map.insert("registration_endpoint".to_owned(), at("/register").into());
    }
    metadata
}

const CLAIMS: [&str; 18] = [
    "iss",
    "sub",
    "aud",
    "azp",
    "exp",
    "iat",
    "auth_time",
    "nonce",
    "at_hash",
    "acr",
    "amr",
    "sid",
    "name",
    "preferred_username",
    "locale",
    "updated_at",
    "email",
    "email_verified",
];

fn acr_values(settings: &Settings) -> Vec<&'static str> {
    let mut values = vec!["phrh", "phr"];
    if settings.identity.password.enabled {
        values.push("pwd");
    }
    values
}

fn scopes() -> Vec<&'static str> {
    let permissions = Permission::ALL.into_iter().filter(|permission| *permission != Permission::Anonymous);
    OIDC_SCOPES.into_iter().chain(permissions.map(Permission::as_str)).collect()
}

fn protected(settings: &Settings) -> Vec<String> {
    SURFACES.iter().map(|path| format!("{}{path}", settings.external_url)).collect()
}

/// The path that the issuer has, by which its metadata is also found (RFC 8414 section 3.1).
pub fn issuer_path(settings: &Settings) -> Option<String> {
    let (_, rest) = settings.issuer.split_once("://")?;
    let path = rest.split_once('/')?.1;
    (!path.is_empty()).then(|| format!("/{path}"))
}

/// The metadata of a protected resource, by its path (RFC 9728); `None` where there is no such surface. Names of servers and agents
/// are not looked up, so that nobody learns which exist. Its scopes are those that a 401 there names; the whole deployment names what
/// people give.
pub fn resource_metadata(state: &OAuthState, path: &str) -> Option<Value> {
    let settings = state.settings();
    let path = path.trim_end_matches('/');
    let surface = if path.is_empty() { None } else { Some(surface_of(path)?) };
    let scopes = match surface {
        Some(surface) => surface.scopes().iter().map(|scope| scope.as_str()).collect(),
        None => vec!["openid", "profile", "email", "user", "mcp", "a2a", "admin"],
    };
    Some(json!({
        "resource": format!("{}{path}", settings.external_url),
        "resource_name": format!("{}{}", settings.display_name, surface_name(surface)),
        "authorization_servers": [settings.issuer],
        "jwks_uri": format!("{}/.well-known/jwks.json", settings.external_url),
        "scopes_supported": scopes,
        "bearer_methods_supported": ["header"],
        "resource_documentation": format!("{}/api/v1/openapi.json", settings.external_url),
    }))
}

/// The surface that a path is the resource of.
fn surface_of(path: &str) -> Option<Surface> {
    Some(match path {
        "/api/v1" => Surface::Api,
        "/v1" => Surface::Gateway,
        "/v1/bridge" => Surface::Bridge,
        "/api/v1/hooks" => Surface::Hooks,
        _ if !is_named_surface(path) => return None,
        _ if path.starts_with("/api/v1/mcp/") => Surface::Mcp,
        _ => Surface::A2a,
    })
}

fn surface_name(surface: Option<Surface>) -> &'static str {
    match surface {
        Some(Surface::Api | Surface::Govern | Surface::Webhook) => " API",
        Some(Surface::Gateway) => " model gateway",
        Some(Surface::Bridge) => " bridge",
        Some(Surface::Hooks) => " hooks",
        Some(Surface::Mcp) => " MCP server",
        Some(Surface::A2a) => " agent",
        Some(Surface::Site) | None => "",
    }
}
