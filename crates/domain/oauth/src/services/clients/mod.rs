//! Clients that have a row: making, changing, ending them. What is done is recorded first; whoever asks, by whichever door, comes
//! through here.

pub mod cleanup;
pub mod managed;
pub mod registration;
pub mod seed;

use crate::at_rest::Label;
use crate::constants::{CLIENT_SECRET_PREFIX, REGISTRATION_TOKEN_PREFIX};
use crate::error::{ErrorCode, OauthError};
use crate::models::clients::api::{Created, shown};
use crate::models::clients::{ClientKind, ClientStatus, OAuthClient};
use crate::models::oauth::ClientAuthMethod;
use crate::models::oauth::dynamic_registration::{ClientMetadata, MetadataFault};
use crate::repository::client::mutations::{Bound, CLIENT_DISABLED, Credentials, Cut, Inserted, end_issued};
use crate::services::generation::client_user_id;
use crate::state::OAuthState;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;
use systemprompt_audit::{Draft, EntryKind, LedgerError, Payload, Role, Unit};
use systemprompt_database::{WriteTx, is_contended, retry_contended};
use systemprompt_models::ids::{ClientId, EntryId};
use systemprompt_models::{Code, Millis, Refusal, RequestContext, Secret};
use systemprompt_security::keys::SigningAlgorithm;
use systemprompt_security::opaque::{self, NoRandomness};
use systemprompt_security::session::SessionError;

/// Why what a client was given ended.
const CLIENT_DELETED: &str = "client_deleted";

/// Why a client was not made, changed or read.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Metadata(#[from] MetadataFault),
    #[error("there is no such client")]
    NotFound,
    #[error("the client id is taken")]
    Taken,
    #[error("the client was changed meanwhile")]
    Changed,
    #[error("there are as many registered clients as there may be")]
    Full,
    #[error("{0}")]
    Conflict(&'static str),
    #[error("clients cannot be read or written")]
    Database(#[from] sqlx::Error),
    #[error("the change could not be recorded")]
    Ledger(#[from] LedgerError),
    #[error("what the client was given could not be ended")]
    Session(#[from] SessionError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl From<ClientError> for OauthError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Metadata(fault) => {
                Self::new(fault.code, format!("{}: {}", fault.member, ascii(&fault.rule)))
            }
            ClientError::NotFound => Self::new(ErrorCode::InvalidToken, "the token is not valid here"),
            ClientError::Taken | ClientError::Changed | ClientError::Conflict(_) => {
                Self::new(ErrorCode::Conflict, error.to_string())
            }
            ClientError::Full => {
                Self::new(ErrorCode::TemporarilyUnavailable, "no more clients can be registered")
            }
            ClientError::Database(source) => Self::Database(source),
            ClientError::Ledger(source) => Self::Ledger(source),
            ClientError::Session(source) => Self::Session(source),
            ClientError::Random(source) => Self::Random(source),
        }
    }
}

/// Descriptions are ASCII (RFC 6749 section 5.2).
fn ascii(text: &str) -> String {
    text.chars().filter(|c| (' '..='~').contains(c) && *c != '"' && *c != '\\').collect()
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Metadata(fault) => Self::new(Code::Unprocessable, "fields are not valid")
                .with_validation(fault.member, fault.rule.into_owned()),
            ClientError::NotFound => Self::new(Code::NotFound, error.to_string()),
            ClientError::Taken | ClientError::Conflict(_) | ClientError::Full => {
                Self::new(Code::Conflict, error.to_string())
            }
            ClientError::Changed => Self::new(Code::PreconditionFailed, error.to_string()),
            ClientError::Ledger(source) => source.into(),
            error if is_contended(&error) => Self::contended(),
            ClientError::Database(_) | ClientError::Session(_) | ClientError::Random(_) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "a client could not be managed");
                Self::internal()
            }
        }
    }
}

/// Digest of what a person is shown of a client and of what proves it: a consent is given for one.
pub(crate) fn metadata_digest(metadata: &ClientMetadata) -> String {
    let relations = &metadata.relations;
    // serde_json writes objects sorted by name and without spaces, and the lists are sorted.
    let shown = json!({
        "redirect_uris": relations.redirect_uris,
        "scopes": relations.scopes,
        "auth_method": metadata.auth_method.as_str(),
        "jwks": metadata.jwks,
        "jwks_uri": metadata.jwks_uri,
        "name": metadata.name,
        "logo_uri": metadata.logo_uri,
    });
    hex::encode(digest(&SHA256, shown.to_string().as_bytes()))
}

/// The client of this metadata, active and nobody's.
pub(crate) fn client_of(
    id: ClientId,
    kind: ClientKind,
    metadata: ClientMetadata,
    now: Millis,
) -> OAuthClient {
    OAuthClient {
        user_id: client_user_id(id.as_str()),
        metadata_digest: metadata_digest(&metadata),
        client_id: id,
        name: metadata.name,
        kind,
        auth_method: metadata.auth_method,
        application_type: metadata.application_type,
        first_party: kind == ClientKind::FirstParty,
        status: ClientStatus::Active,
        owner_user_id: None,
        plugin_id: None,
        allowed_audiences: Vec::new(),
        relations: metadata.relations,
        jwks: metadata.jwks,
        jwks_uri: metadata.jwks_uri,
        client_uri: metadata.client_uri,
        logo_uri: metadata.logo_uri,
        policy_uri: metadata.policy_uri,
        tos_uri: metadata.tos_uri,
        software_id: metadata.software_id,
        software_version: metadata.software_version,
        id_token_signed_response_alg: metadata.id_token_signed_response_alg,
        created_at: now,
        updated_at: now,
        last_used_at: None,
        version: 1,
    }
}

/// `before` with other metadata.
pub(crate) fn with_metadata(before: &OAuthClient, metadata: ClientMetadata, now: Millis) -> OAuthClient {
    OAuthClient {
        first_party: before.first_party,
        status: before.status,
        owner_user_id: before.owner_user_id.clone(),
        plugin_id: before.plugin_id.clone(),
        allowed_audiences: before.allowed_audiences.clone(),
        created_at: before.created_at,
        last_used_at: before.last_used_at,
        version: before.version + 1,
        ..client_of(before.client_id.clone(), before.kind, metadata, now)
    }
}

/// Whether an ID token can be signed as a client wishes (ID-28). Keys are an operator's to make, not whoever's registers.
pub(crate) fn can_sign(state: &OAuthState, algorithm: SigningAlgorithm) -> Result<(), MetadataFault> {
    let keys = state.keys.load();
    if keys.signs(algorithm) {
        return Ok(());
    }
    let signable = SigningAlgorithm::ALL.into_iter().filter(|known| keys.signs(*known));
    let words: Vec<&str> = signable.map(SigningAlgorithm::as_str).collect();
    Err(MetadataFault {
        code: ErrorCode::InvalidClientMetadata,
        member: "id_token_signed_response_alg",
        rule: format!("{}, for which there is a key", words.join(" or ")).into(),
    })
}

/// Why a client is made, by which others are counted with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It registers, and gets a management token.
    Registered,
    /// A user makes one of their own.
    Owned,
    /// An administrator or the installation makes it.
    Provided,
}

/// Makes a client: a secret for one that proves itself by it, and a management token for one that registers.
///
/// # Errors
/// A taken id, the bound of registered clients, or what could not be recorded or written.
pub(crate) async fn create(
    state: &OAuthState,
    by: &RequestContext,
    client: OAuthClient,
    origin: Origin,
) -> Result<Created, ClientError> {
    can_sign(state, client.id_token_signed_response_alg)?;
    let has_secret = matches!(
        client.auth_method,
        ClientAuthMethod::ClientSecretBasic | ClientAuthMethod::ClientSecretPost
    );
    let mut secret = None;
    let mut registration_token = None;
    let mut credentials = Credentials::default();
    if has_secret {
        let value = opaque::generate(CLIENT_SECRET_PREFIX)?;
        credentials.secret = Some(state.at_rest.digest(Label::ClientSecret, value.expose()));
        secret = Some(value);
    }
    if origin == Origin::Registered {
        let value = opaque::generate(REGISTRATION_TOKEN_PREFIX)?;
        credentials.registration = Some(state.at_rest.digest(Label::RegistrationToken, value.expose()));
        registration_token = Some(value);
    }
    if state.clients.find_client_by_id(client.client_id.as_str()).await?.is_some() {
        return Err(ClientError::Taken);
    }
    let bound = match origin {
        Origin::Registered => Bound::Kind(i64::from(state.settings().identity.registration_max_clients)),
        Origin::Owned => Bound::Owner(managed::MAX_OWN),
        Origin::Provided => Bound::None,
    };
    let draft = draft(EntryKind::OauthClientCreated, by, &client)
        .with("kind", client.kind.as_str())
        .with("auth_method", client.auth_method.as_str())
        .with_payload(Payload::of(Role::After, &shown(&client)));
    state.record(draft).await?;
    let mut inserted = state.clients.insert(&client, &credentials, bound).await?;
    if inserted == Inserted::Full && origin == Origin::Registered && cleanup::make_room(state).await? {
        inserted = state.clients.insert(&client, &credentials, bound).await?;
    }
    match inserted {
        Inserted::Done => Ok(Created { client, secret, registration_token }),
        Inserted::Taken => Err(ClientError::Taken),
        Inserted::Full if origin == Origin::Owned => Err(managed::too_many()),
        Inserted::Full => {
            tracing::warn!(?bound, "registration_max_clients is reached; nobody can register a client");
            Err(ClientError::Full)
        }
    }
}

/// Puts `after` in the place of `before`. Cut redirect URIs, scopes or keys end the consents, another status than active all that
/// the client was given.
///
/// # Errors
/// Another version, or what could not be recorded, written or ended.
pub(crate) async fn replace(
    state: &OAuthState,
    by: &RequestContext,
    before: &OAuthClient,
    after: OAuthClient,
) -> Result<OAuthClient, ClientError> {
    if after.id_token_signed_response_alg != before.id_token_signed_response_alg {
        can_sign(state, after.id_token_signed_response_alg)?;
    }
    let cut = cut(before, &after);
    let names = changed(before, &after);
    let mut unit = Unit::new();
    let entry = unit.record(
        draft(EntryKind::OauthClientUpdated, by, &after)
            .with("changed", names)
            .with("ends", ends(cut))
            .with_payload(Payload::of(Role::Before, &shown(before)))
            .with_payload(Payload::of(Role::After, &shown(&after))),
    );
    state.ledger.append(unit).await?;
    retry_contended(|| async {
        let Some(tx) = state.clients.update(&after, before.version, cut).await? else {
            return Err(ClientError::Changed);
        };
        match cut {
            Cut::Everything => end_tokens(state, tx, &after.client_id, CLIENT_DISABLED, &entry).await,
            Cut::Consents | Cut::Nothing => Ok(tx.commit().await?),
        }
    })
    .await?;
    Ok(after)
}

/// Deletes a client with every grant, consent and token of it.
///
/// # Errors
/// A client that is gone or has another version, or what could not be recorded, written or ended.
pub(crate) async fn delete(
    state: &OAuthState,
    by: &RequestContext,
    client: &OAuthClient,
    version: Option<i64>,
    reason: &'static str,
) -> Result<(), ClientError> {
    if client.first_party && client.kind == ClientKind::FirstParty {
        return Err(ClientError::Conflict("a client of this installation cannot be deleted; disable it"));
    }
    if version.is_some_and(|seen| seen != client.version) {
        return Err(ClientError::Changed);
    }
    let mut unit = Unit::new();
    let entry = unit.record(
        draft(EntryKind::OauthClientDeleted, by, client)
            .with_reason(reason)
            .with_payload(Payload::of(Role::Before, &shown(client))),
    );
    state.ledger.append(unit).await?;
    let id = &client.client_id;
    retry_contended(|| async {
        let gone = state.clients.delete(id.as_str(), version, CLIENT_DELETED, state.now()).await?;
        let Some(tx) = gone else { return Err(ClientError::Changed) };
        end_tokens(state, tx, id, CLIENT_DELETED, &entry).await
    })
    .await
}

/// Ends the access tokens of a client with their sessions, those of its grants and those that it has of its own, and what could be
/// turned into others. `tx` is committed with it.
async fn end_tokens(
    state: &OAuthState,
    mut tx: WriteTx,
    id: &ClientId,
    reason: &'static str,
    entry: &EntryId,
) -> Result<(), ClientError> {
    let ended = state.sessions.end_client_in(&mut tx, id, reason, entry).await?;
    end_issued(&mut tx, id.as_str(), reason, state.now()).await?;
    tx.commit().await?;
    state.sessions.apply_end(ended);
    Ok(())
}

/// A new secret beside the present one, which counts for `overlap` milliseconds more.
///
/// # Errors
/// A client without secrets, two that count already, or what could not be recorded or written.
pub(crate) async fn rotate_secret(
    state: &OAuthState,
    by: &RequestContext,
    client: &OAuthClient,
    overlap: Millis,
) -> Result<Secret<String>, ClientError> {
    if !matches!(client.auth_method, ClientAuthMethod::ClientSecretBasic | ClientAuthMethod::ClientSecretPost)
    {
        return Err(ClientError::Conflict("the client does not prove itself by a secret"));
    }
    let secret = opaque::generate(CLIENT_SECRET_PREFIX)?;
    let digest = state.at_rest.digest(Label::ClientSecret, secret.expose());
    let now = state.now();
    let draft =
        draft(EntryKind::OauthClientSecretRotated, by, client).with("old_counts_for_s", overlap / 1000);
    state.record(draft).await?;
    let id = client.client_id.as_str();
    if state.clients.rotate_secret(id, &digest, now + overlap, now).await? {
        Ok(secret)
    } else {
        Err(ClientError::Conflict("two secrets count already; end the older one with an overlap of 0"))
    }
}

fn draft(kind: EntryKind, by: &RequestContext, client: &OAuthClient) -> Draft {
    Draft::new(kind, by, "ok").with_subject("client", client.client_id.as_str())
}

/// Names of the members that differ.
fn changed(before: &OAuthClient, after: &OAuthClient) -> Vec<String> {
    let (before, after) = (shown(before), shown(after));
    let mut names: Vec<String> = before
        .iter()
        .filter(|(name, value)| after.get(*name) != Some(value))
        .chain(after.iter().filter(|(name, _)| !before.contains_key(*name)))
        .map(|(name, _)| name.clone())
        .filter(|name| name != "updated_at")
        .collect();
    names.sort_unstable();
    names
}

fn cut(before: &OAuthClient, after: &OAuthClient) -> Cut {
    if !after.is_active() {
        return if before.is_active() { Cut::Everything } else { Cut::Nothing };
    }
    let lost = |had: &[String], has: &[String]| had.iter().any(|value| !has.contains(value));
    let (had, has) = (&before.relations, &after.relations);
    let is_cut = lost(&had.redirect_uris, &has.redirect_uris)
        || lost(&had.scopes, &has.scopes)
        || before.jwks != after.jwks
        || before.jwks_uri != after.jwks_uri
        || before.auth_method != after.auth_method;
    if is_cut { Cut::Consents } else { Cut::Nothing }
}

fn ends(cut: Cut) -> Option<&'static str> {
    match cut {
        Cut::Nothing => None,
        Cut::Consents => Some("consents"),
        Cut::Everything => Some("grants"),
    }
}
