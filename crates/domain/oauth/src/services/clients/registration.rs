//! Dynamic registration (RFC 7591) and its management (RFC 7592). The management token is the only credential of the latter;
//! cookies and tokens of users count for nothing there.

use super::{ClientError, Origin, client_of, with_metadata};
use crate::at_rest::Label;
use crate::constants::REGISTRATION_TOKEN_PREFIX;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::api::Created;
use crate::models::clients::{ClientKind, OAuthClient};
use crate::models::oauth::ClientAuthMethod;
use crate::models::oauth::dynamic_registration::{ClientMetadata, Limits, document};
use crate::state::OAuthState;
use crate::users::UserKind;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use subtle::ConstantTimeEq as _;
use systemprompt_config::profile::identity::RegistrationPolicy;
use systemprompt_models::ids::{ClientId, uuid_v4};
use systemprompt_models::{Millis, Permission, RequestContext, Secret};
use systemprompt_security::opaque;

/// Most registrations from one network in an hour (ID-21).
pub const MAX_AN_HOUR: i64 = 20;
const HOUR: Millis = 3_600_000;
/// What is compared where there is nothing to compare with.
const DUMMY_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Registers a client. The caller of `by` counts if they are signed in.
///
/// # Errors
/// A closed door, too many, metadata that is not valid, or what could not be recorded or written.
pub async fn register(
    state: &OAuthState,
    by: &RequestContext,
    members: &Map<String, Value>,
) -> OauthResult<Created> {
    let registered = admit(state, by, members).await;
    if let Err(error) = &registered {
        state.meter.refused("register", error.code().as_str());
    }
    registered
}

async fn admit(
    state: &OAuthState,
    by: &RequestContext,
    members: &Map<String, Value>,
) -> OauthResult<Created> {
    let settings = state.settings();
    let is_user = by.principal.has(Permission::User) || by.principal.has(Permission::Admin);
    let is_signed_in = !by.principal.is_anonymous() && is_user;
    match settings.identity.registration {
        RegistrationPolicy::Closed => {
            return Err(OauthError::new(ErrorCode::AccessDenied, "clients are not registered here"));
        }
        RegistrationPolicy::Authenticated if !is_signed_in => {
            return Err(OauthError::new(ErrorCode::InvalidToken, "registration needs the token of a user"));
        }
        RegistrationPolicy::Authenticated | RegistrationPolicy::Open => {}
    }
    throttle(state, by.client_ip).await?;
    let is_admin = is_signed_in && by.principal.has(Permission::Admin);
    let limits = if is_admin { Limits::Full } else { Limits::Open };
    let metadata = ClientMetadata::read(members, ClientAuthMethod::ClientSecretBasic, limits)
        .map_err(ClientError::from)?;
    let id = ClientId::new(format!("client_{}", uuid_v4().simple()));
    let mut client = client_of(id, ClientKind::Registered, metadata, state.now());
    if is_signed_in && !is_admin {
        let kind = state.oauth.user_kind(by.principal.user_id.as_str()).await?;
        if kind.as_deref() != Some(UserKind::Person.as_str()) {
            return Err(OauthError::new(ErrorCode::AccessDenied, "only a person can have clients"));
        }
        client.owner_user_id = Some(by.principal.user_id.clone());
    }
    Ok(super::create(state, by, client, Origin::Registered).await?)
}

/// Counts in a table that all nodes share, under a digest: the addresses themselves are nobody's business here.
async fn throttle(state: &OAuthState, address: Option<IpAddr>) -> OauthResult<()> {
    let Some(address) = address else { return Ok(()) };
    let now = state.now();
    let hour = now - now.rem_euclid(HOUR);
    let key = state.at_rest.digest(Label::AuthAttempt, &format!("register {}", network(address))).hex;
    if state.clients.count_registration(&key, hour, MAX_AN_HOUR).await? {
        return Ok(());
    }
    let left = u32::try_from((hour + HOUR - now) / 1000 + 1).unwrap_or(u32::MAX);
    Err(OauthError::Throttled { retry_after: left })
}

/// An address of version 4, or the /64 of one of version 6: what one subscriber has.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// The client that a management token is of.
///
/// # Errors
/// `invalid_token`, the same for an unknown client and for a wrong, a foreign or no token.
pub async fn manage(state: &OAuthState, id: &str, token: Option<&str>) -> OauthResult<(OAuthClient, String)> {
    let refused = || OauthError::new(ErrorCode::InvalidToken, "the token is not valid here");
    let token = token.filter(|token| opaque::has_form(REGISTRATION_TOKEN_PREFIX, token)).unwrap_or_default();
    let (present, previous) = state.at_rest.candidates(Label::RegistrationToken, token);
    let client = state.clients.find_client_by_id(id).await?;
    let stored = state.clients.registration_digests(id, state.now()).await?;
    let mut matched = None;
    for digest in stored.iter().map(String::as_str).chain([DUMMY_DIGEST]) {
        let is_same =
            digest.as_bytes().ct_eq(present.as_bytes()) | digest.as_bytes().ct_eq(previous.as_bytes());
        if bool::from(is_same) {
            matched = Some(digest.to_owned());
        }
    }
    let (Some(client), Some(digest)) = (client.filter(OAuthClient::is_active), matched) else {
        return Err(refused());
    };
    if digest == present {
        return Ok((client, digest));
    }
    // The pepper was replaced: the row moves to the present one (ID-103).
    let now_digest = state.at_rest.digest(Label::RegistrationToken, token);
    state.clients.redigest_registration(id, &digest, &now_digest).await?;
    Ok((client, present))
}

/// Puts other metadata in the place of a client's, and another management token in the place of the one that was shown.
///
/// # Errors
/// As [`manage`], metadata that is not valid, or what could not be recorded or written.
pub async fn update(
    state: &OAuthState,
    by: &RequestContext,
    id: &str,
    token: Option<&str>,
    members: &Map<String, Value>,
) -> OauthResult<Created> {
    let (before, digest) = manage(state, id, token).await?;
    if members.get("client_id").and_then(Value::as_str) != Some(id) {
        return Err(OauthError::invalid_request("client_id must be the one of the address"));
    }
    for name in [
        "registration_access_token",
        "registration_client_uri",
        "client_secret_expires_at",
        "client_id_issued_at",
    ] {
        if members.contains_key(name) {
            return Err(OauthError::invalid_request(format!("{name} must not be sent")));
        }
    }
    if let Some(secret) = members.get("client_secret") {
        let shown = secret.as_str().unwrap_or_default();
        let (present, previous) = state.at_rest.candidates(Label::ClientSecret, shown);
        let stored = state.clients.live_secrets(id, state.now()).await?;
        if !stored.iter().any(|digest| *digest == present || *digest == previous) {
            return Err(OauthError::invalid_request("client_secret is not the present one"));
        }
    }
    // What an administrator registered keeps the scopes that only an administrator gives. Whoever asks for more than the client has
    // gets what anybody may have.
    let metadata =
        ClientMetadata::read(members, before.auth_method, Limits::Full).map_err(ClientError::from)?;
    let metadata = within(&before, metadata, members)?;
    let after = with_metadata(&before, metadata, state.now());
    let rotated = opaque::generate(REGISTRATION_TOKEN_PREFIX)?;
    let next = state.at_rest.digest(Label::RegistrationToken, rotated.expose());
    let client = super::replace(state, by, &before, after).await?;
    let is_rotated = state.clients.rotate_registration(id, &digest, &next, state.now()).await?;
    let registration_token = is_rotated.then_some(rotated);
    Ok(Created { client, secret: None, registration_token })
}

/// Metadata that asks for no more than anybody may have and than the client has.
fn within(
    before: &OAuthClient,
    metadata: ClientMetadata,
    members: &Map<String, Value>,
) -> OauthResult<ClientMetadata> {
    let has_secrets = |method: ClientAuthMethod| {
        matches!(method, ClientAuthMethod::ClientSecretBasic | ClientAuthMethod::ClientSecretPost)
    };
    if has_secrets(metadata.auth_method) && !has_secrets(before.auth_method) {
        return Err(OauthError::new(
            ErrorCode::InvalidClientMetadata,
            "token_endpoint_auth_method: a client without secrets gets none; register another one",
        ));
    }
    let widened_grant = metadata.relations.grant_types.iter().any(|grant| !before.has_grant(*grant));
    if !widened_grant && metadata.relations.scopes.iter().all(|scope| before.has_scope(scope)) {
        return Ok(metadata);
    }
    let open = ClientMetadata::read(members, before.auth_method, Limits::Open).map_err(ClientError::from)?;
    Ok(open)
}

/// Deletes a client by its management token.
///
/// # Errors
/// As [`manage`], or what could not be recorded or written.
pub async fn deregister(
    state: &OAuthState,
    by: &RequestContext,
    id: &str,
    token: Option<&str>,
) -> OauthResult<()> {
    let (client, _) = manage(state, id, token).await?;
    Ok(super::delete(state, by, &client, None, "deregistered").await?)
}

/// The answer of RFC 7591 section 3.2.1. The secrets are shown here and nowhere else.
pub fn answer(
    state: &OAuthState,
    client: &OAuthClient,
    secret: Option<&Secret<String>>,
    token: Option<&Secret<String>>,
) -> Map<String, Value> {
    let mut members = document(client);
    members.insert("client_id".into(), json!(client.client_id));
    members.insert("client_id_issued_at".into(), (client.created_at / 1000).into());
    if let Some(secret) = secret {
        members.insert("client_secret".into(), secret.expose().as_str().into());
        members.insert("client_secret_expires_at".into(), 0.into());
    }
    if let Some(token) = token {
        members.insert("registration_access_token".into(), token.expose().as_str().into());
    }
    let address = state.settings().endpoint(&format!("/register/{}", client.client_id));
    members.insert("registration_client_uri".into(), address.into());
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_21_registrations_are_counted_by_network() {
        for (address, want) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(network(address.parse().unwrap()), want);
        }
    }
}
