//! Authentication and route authorisation at the edge.

use crate::services::server::route::Access;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, header};
use std::net::IpAddr;
use std::sync::Arc;
use systemprompt_models::auth::scope_of;
use systemprompt_models::{Code, Principal, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::{AuthMode, CredentialSource, Shown, csrf};
use systemprompt_security::error::AuthError;
use systemprompt_security::jwt::{Surface, Target};

/// Name of the session cookie.
const COOKIE: &str = "access_token";

/// The principal of what a request shows.
pub async fn authenticate(
    context: &AppContext,
    shown: Shown<'_>,
    (method, headers): (&Method, &HeaderMap),
    target: Target<'_>,
    mode: AuthMode,
    address: IpAddr,
) -> Result<Arc<Principal>, Refusal> {
    let found = context.auth.settle(shown, target, mode).await;
    let found = found.map_err(|error| refusal(&error, address))?;
    if found.source == CredentialSource::Cookie {
        let origin = context.config().profile.api_external_url();
        if !csrf::is_allowed(method, headers, &origin) {
            let reason = "a request with a cookie must come from this origin";
            return Err(Refusal::new(Code::CsrfRejected, reason));
        }
    }
    Ok(found.principal)
}

/// The URI by which a token may name what a path belongs to (RFC 8707), where that is not a surface's own name.
pub fn resource_of(surface: Surface, path: &str, external_url: &str) -> Option<String> {
    resource_path(surface, path).map(|path| format!("{external_url}{path}"))
}

/// Whether a token for the whole deployment counts at a surface (ID-29): where tokens of the audience `api` do that stand for a person
/// or a service, and nowhere that has a resource for each server, agent or plugin.
pub fn is_of_the_whole(surface: Surface) -> bool {
    matches!(surface, Surface::Api | Surface::Gateway)
}

/// The path of the protected resource that a path belongs to, by which its metadata is found (RFC 9728).
fn resource_path(surface: Surface, path: &str) -> Option<String> {
    match surface {
        Surface::Site => None,
        Surface::Api | Surface::Govern | Surface::Webhook => Some("/api/v1".to_owned()),
        Surface::Gateway => Some("/v1".to_owned()),
        Surface::Bridge => Some("/v1/bridge".to_owned()),
        Surface::Hooks => Some("/api/v1/hooks".to_owned()),
        Surface::Mcp => Some(path.trim_end_matches('/').to_owned()),
        Surface::A2a => {
            let name = path.strip_prefix("/api/v1/agents/")?.split('/').next()?;
            Some(format!("/api/v1/agents/{name}"))
        }
    }
}

/// What tells a client without a credential that counts where to get one (RFC 9728 section 5.1): the metadata of the resource and
/// the scopes that it names.
pub fn challenge(access: Access, path: &str, external_url: &str, is_invalid: bool) -> Option<HeaderValue> {
    let Access::Signed { surface, .. } = access else { return None };
    let resource = resource_path(surface, path)?;
    let error = if is_invalid { "error=\"invalid_token\", " } else { "" };
    let scope = scope_of(surface.scopes());
    let text = format!(
        "Bearer {error}resource_metadata=\"{external_url}/.well-known/oauth-protected-resource{resource}\", scope=\"{scope}\""
    );
    HeaderValue::from_str(&text).ok()
}

/// Whether a principal may call a route.
pub fn authorize(principal: &Principal, access: Access) -> Result<(), Refusal> {
    let Access::Signed { any_of, in_person, .. } = access else { return Ok(()) };
    if in_person && !principal.is_in_person() {
        let reason = "this needs a session of the person: no token of a client, and no API key";
        return Err(Refusal::new(Code::Denied, reason));
    }
    if any_of.is_empty() || any_of.iter().any(|permission| principal.has(*permission)) {
        return Ok(());
    }
    let names: Vec<&str> = any_of.iter().map(|p| p.as_str()).collect();
    let reason = format!("the permission `{}` is missing", names.join("` or `"));
    Err(Refusal::new(Code::InsufficientScope, reason))
}

/// What the client is told of a credential that does not count: that, and whether it expired. The log has the rest.
pub(super) fn refusal(error: &AuthError, address: IpAddr) -> Refusal {
    use systemprompt_security::error::JwtError;
    let kid = match error {
        AuthError::InvalidToken { kid, .. } => kid.as_deref(),
        _ => None,
    };
    if let AuthError::Missing(_) = error {
        tracing::debug!(label = error.label(), %address, "no credential");
    } else {
        tracing::info!(label = error.label(), cause = %error, kid, %address, "a credential was refused");
    }
    match error {
        AuthError::Missing(_) => {
            Refusal::new(Code::Unauthenticated, "send a credential as `Authorization: Bearer` or `x-api-key`")
        }
        AuthError::InvalidToken { error: JwtError::Expired, .. } => {
            Refusal::new(Code::InvalidToken, "the token has expired")
        }
        AuthError::InvalidToken { .. } | AuthError::InvalidApiKey => {
            Refusal::new(Code::InvalidToken, "the credential does not count here")
        }
        AuthError::ConflictingCredentials => Refusal::new(Code::InvalidToken, "conflicting credentials"),
        AuthError::SessionMismatch(_) => {
            Refusal::new(Code::SessionMismatch, "x-session-id is not the session of the token")
        }
        AuthError::RevocationUnavailable(_) => {
            let reason = "whether the credential was revoked cannot be told at the moment";
            Refusal::new(Code::RevocationUnavailable, reason).with_retry_after(1)
        }
        AuthError::DisabledNotAcknowledged => Refusal::internal(),
    }
}

/// Takes a cookie that did not count away, so that the browser reaches a sign-in.
pub fn clear_bad_cookie(response: &mut Response) {
    let refused = response.extensions().get::<crate::error::Refused>();
    if refused.is_some_and(|r| r.0.code == Code::InvalidToken) {
        let value = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header::SET_COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_29_a_challenge_of_an_agent_names_that_agents_metadata() {
        let access =
            Access::Signed { surface: Surface::A2a, mode: AuthMode::Required, any_of: &[], in_person: false };
        let told = challenge(access, "/api/v1/agents/x/anything", "https://here.example", false).unwrap();
        let told = told.to_str().unwrap();
        let metadata = "https://here.example/.well-known/oauth-protected-resource/api/v1/agents/x";
        assert!(told.contains(&format!("resource_metadata=\"{metadata}\"")), "{told}");
        assert!(told.contains("scope=\"") && !told.contains("error="), "{told}");
    }
}
