//! Clients that people manage (ID-16): an administrator all of them, a user their own.

use super::{ClientError, Origin, client_of, with_metadata};
use crate::models::clients::api::{Created, audiences, check_members, fault, is_client_id};
use crate::models::clients::{ClientKind, ClientStatus, OAuthClient};
use crate::models::oauth::ClientAuthMethod;
use crate::models::oauth::api::Page;
use crate::models::oauth::dynamic_registration::{ClientMetadata, Limits};
use crate::state::OAuthState;
use serde_json::{Map, Value};
use systemprompt_models::ids::{ClientId, UserId, uuid_v4};
use systemprompt_models::{Millis, Permission, RequestContext, Secret};

/// Longest overlap of two secrets, and the one where none is named.
pub const MAX_OVERLAP_SECONDS: i64 = 30 * 86_400;
pub const DEFAULT_OVERLAP_SECONDS: i64 = 86_400;
/// Most clients that a user may have.
pub const MAX_OWN: i64 = 50;

fn is_admin(by: &RequestContext) -> bool {
    by.principal.has(Permission::Admin)
}

fn limits(is_admin: bool) -> Limits {
    if is_admin { Limits::Full } else { Limits::Owner }
}

/// The client of this id that the caller may see: an administrator any, a user their own.
///
/// # Errors
/// [`ClientError::NotFound`], also for somebody else's.
pub async fn get(state: &OAuthState, by: &RequestContext, id: &str) -> Result<OAuthClient, ClientError> {
    let client = state.clients.find_client_by_id(id).await?;
    let is_theirs =
        |client: &OAuthClient| is_admin(by) || client.owner_user_id.as_ref() == Some(&by.principal.user_id);
    client.filter(is_theirs).ok_or(ClientError::NotFound)
}

/// At most `limit` clients behind `after` that the caller may see.
///
/// # Errors
/// When they cannot be read.
pub async fn page(
    state: &OAuthState,
    by: &RequestContext,
    page: Page<'_>,
) -> Result<Vec<OAuthClient>, ClientError> {
    let owner = (!is_admin(by)).then(|| by.principal.user_id.as_str());
    Ok(state.clients.page(page, owner).await?)
}

/// Makes a client.
///
/// # Errors
/// A member that is not valid or not the caller's to set, a taken id, or what could not be recorded or written.
pub async fn create(
    state: &OAuthState,
    by: &RequestContext,
    members: &Map<String, Value>,
) -> Result<Created, ClientError> {
    create_with(state, by, members, is_admin(by)).await
}

/// Makes a client of the installation's own accord, as the demo's.
///
/// # Errors
/// As [`create`].
pub async fn provide(
    state: &OAuthState,
    by: &RequestContext,
    members: &Map<String, Value>,
) -> Result<Created, ClientError> {
    create_with(state, by, members, true).await
}

async fn create_with(
    state: &OAuthState,
    by: &RequestContext,
    members: &Map<String, Value>,
    is_admin: bool,
) -> Result<Created, ClientError> {
    check_members(is_admin, members)?;
    let metadata = ClientMetadata::read(members, ClientAuthMethod::ClientSecretBasic, limits(is_admin))?;
    let id = match members.get("client_id") {
        None | Some(Value::Null) => ClientId::new(format!("app_{}", uuid_v4().simple())),
        Some(value) => value.as_str().filter(|id| is_client_id(id)).map(ClientId::from).ok_or_else(|| {
            fault("client_id", "[A-Za-z0-9][A-Za-z0-9._~-]{2,127} without a prefix of ours")
        })?,
    };
    let mut client = client_of(id, ClientKind::Managed, metadata, state.now());
    if is_admin {
        set_standing(state, &mut client, members).await?;
    } else {
        let owner = by.principal.user_id.as_str();
        let found = state.oauth.user_kind(owner).await?;
        if found.as_deref() != Some("person") {
            return Err(ClientError::Conflict("only a person can have clients"));
        }
        // What is refused here leaves no record of a client; what decides is the statement that writes it.
        if state.clients.ids(Page::first(MAX_OWN), Some(owner)).await?.len() >= MAX_OWN as usize {
            return Err(too_many());
        }
        client.owner_user_id = Some(by.principal.user_id.clone());
    }
    let origin = if is_admin { Origin::Provided } else { Origin::Owned };
    super::create(state, by, client, origin).await
}

pub(super) fn too_many() -> ClientError {
    ClientError::Conflict("a user has at most 50 clients")
}

/// Puts other metadata in the place of a client's. `version` is the one that the caller has seen.
///
/// # Errors
/// As [`create`], and another version.
pub async fn replace(
    state: &OAuthState,
    by: &RequestContext,
    id: &str,
    version: i64,
    members: &Map<String, Value>,
) -> Result<OAuthClient, ClientError> {
    let before = get(state, by, id).await?;
    if before.version != version {
        return Err(ClientError::Changed);
    }
    check_members(is_admin(by), members)?;
    if is_admin(by) && members.get("client_id").is_some_and(|value| value.as_str() != Some(id)) {
        return Err(fault("client_id", "the id of a client does not change").into());
    }
    let metadata = ClientMetadata::read(members, before.auth_method, limits(is_admin(by)))?;
    if has_secrets(metadata.auth_method) && !has_secrets(before.auth_method) {
        return Err(fault(
            "token_endpoint_auth_method",
            "a client without secrets gets none; make another one",
        )
        .into());
    }
    if !is_admin(by) {
        // What an administrator has given stays, and is not a user's to take over with another key or address.
        let reserved = before.relations.scopes.iter().any(|scope| {
            scope.parse::<Permission>().is_ok_and(|permission| {
                matches!(permission, Permission::Admin | Permission::Service) || permission.is_hook_scope()
            })
        });
        if reserved || before.kind == ClientKind::Bridge {
            return Err(ClientError::Conflict(
                "the client has scopes that an administrator gave it; ask one",
            ));
        }
    }
    let mut after = with_metadata(&before, metadata, state.now());
    if is_admin(by) {
        set_standing(state, &mut after, members).await?;
    }
    super::replace(state, by, &before, after).await
}

/// Deletes a client.
///
/// # Errors
/// A client that the caller may not see, another version, or what could not be recorded or written.
pub async fn delete(
    state: &OAuthState,
    by: &RequestContext,
    id: &str,
    version: Option<i64>,
) -> Result<(), ClientError> {
    let client = get(state, by, id).await?;
    super::delete(state, by, &client, version, "asked").await
}

/// A new secret; the one before counts for `overlap` seconds more.
///
/// # Errors
/// A client that the caller may not see or that has no secret, an overlap out of bounds, or what could not be recorded or written.
pub async fn rotate_secret(
    state: &OAuthState,
    by: &RequestContext,
    id: &str,
    overlap: Option<i64>,
) -> Result<(OAuthClient, Secret<String>), ClientError> {
    let overlap = overlap.unwrap_or(DEFAULT_OVERLAP_SECONDS);
    if !(0..=MAX_OVERLAP_SECONDS).contains(&overlap) {
        return Err(fault("overlap_seconds", "0 to 2592000").into());
    }
    let client = get(state, by, id).await?;
    let secret = super::rotate_secret(state, by, &client, Millis::from(overlap) * 1000).await?;
    Ok((get(state, by, id).await?, secret))
}

/// A new secret for a client that the installation provides; the ones before end at once.
///
/// # Errors
/// A client that is not there, or what could not be recorded or written.
pub async fn renew_secret(
    state: &OAuthState,
    by: &RequestContext,
    id: &str,
) -> Result<Secret<String>, ClientError> {
    let client = state.clients.find_client_by_id(id).await?.ok_or(ClientError::NotFound)?;
    super::rotate_secret(state, by, &client, 0).await
}

fn has_secrets(method: ClientAuthMethod) -> bool {
    matches!(method, ClientAuthMethod::ClientSecretBasic | ClientAuthMethod::ClientSecretPost)
}

/// What only an administrator sets; an absent member stays as it is.
async fn set_standing(
    state: &OAuthState,
    client: &mut OAuthClient,
    members: &Map<String, Value>,
) -> Result<(), ClientError> {
    if let Some(value) = members.get("first_party") {
        client.first_party = value.as_bool().ok_or_else(|| fault("first_party", "true or false"))?;
    }
    if let Some(value) = members.get("status") {
        let status = value.as_str().and_then(ClientStatus::parse);
        client.status = status.ok_or_else(|| fault("status", "active, disabled or expired"))?;
    }
    if let Some(value) = members.get("plugin_id") {
        let is_plugin = |text: &&str| {
            (1..=128).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        client.plugin_id = match value {
            Value::Null => None,
            value => Some(
                value
                    .as_str()
                    .filter(is_plugin)
                    .ok_or_else(|| fault("plugin_id", "[A-Za-z0-9._-]{1,128}"))?
                    .to_owned(),
            ),
        };
    }
    if let Some(value) = members.get("allowed_audiences") {
        client.allowed_audiences = audiences(value)
            .ok_or_else(|| fault("allowed_audiences", "at most 32 names of surfaces or absolute URIs"))?;
    }
    if let Some(value) = members.get("owner_user_id") {
        client.owner_user_id = match value {
            Value::Null => None,
            value => {
                let unknown = || fault("owner_user_id", "the id or name of a user");
                let named = value.as_str().ok_or_else(unknown)?;
                let found = state.users.find(named).await.map_err(|error| match error {
                    crate::IdentityError::Database(source) => ClientError::Database(source),
                    _ => unknown().into(),
                })?;
                let user = found.filter(|user| !user.username.starts_with("client:")).ok_or_else(unknown)?;
                Some(UserId::new(user.id.as_str()))
            }
        };
    }
    Ok(())
}
