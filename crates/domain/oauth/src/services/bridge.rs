//! Credentials of the desktop bridge: a code of a minute or an API key becomes a token of an hour (ID-99, ID-100), and what the
//! bridge tells of itself (ID-102).

mod client;

use crate::at_rest::Label;
use crate::constants::{EXCHANGE_CODE_PREFIX, EXCHANGE_CODE_TTL_SECONDS, SP_BRIDGE};
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::repository::api_keys::{self, ApiKeyRepository};
use crate::repository::bridge_host_prefs::BridgeHostPrefsRepository;
use crate::repository::bridge_session::{Beat, BridgeSessionRepository};
use crate::repository::exchange_code;
use crate::repository::users::USER_CHANGED;
use crate::services::generation::{JwtConfig, JwtSigningParams, describe, draft, end_of, generate_jwt};
use crate::services::refusals::{Refusal, ip_prefix};
use crate::services::session::web_permissions;
use crate::state::OAuthState;
use crate::users::{User, UserKind, UserStatus};
use serde::Deserialize;
use systemprompt_audit::{Draft, EntryKind, Guard, LedgerError, Unit};
use systemprompt_models::ids::{ClientId, SessionId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource, SignIn};
use systemprompt_models::{CredentialKind, JwtAudience, Millis, Permission, RequestContext, Secret};
use systemprompt_security::opaque;
use systemprompt_security::session::SessionOpened;

pub use client::{BridgeClient, provision};

/// Seconds of a bridge's token.
pub const BRIDGE_TOKEN_SECONDS: i64 = 3600;

/// A token of a bridge.
pub struct BridgeToken {
    pub token: Secret<String>,
    /// Seconds.
    pub ttl: i64,
    pub user_id: UserId,
    pub session_id: SessionId,
}

/// Makes a code for `user`, whom the caller is or administers.
///
/// # Errors
/// Too many open codes, whoever may not act, or what could not be written.
pub async fn make_code(
    state: &OAuthState,
    context: &RequestContext,
    user: &User,
) -> OauthResult<Secret<String>> {
    let code = opaque::generate(EXCHANGE_CODE_PREFIX)?;
    let digest = state.at_rest.digest(Label::ExchangeCode, code.expose());
    let (now, user_id) = (state.now(), user.id.as_str());
    let mut unit = Unit::new();
    unit.record(Draft::new(EntryKind::OauthBridgeCodeIssued, context, "ok").with_subject("user", user_id));
    unit.require(exchange_code::lock_user(user_id));
    let stored = (digest.hex.as_str(), &*digest.pepper_id);
    let end = now + EXCHANGE_CODE_TTL_SECONDS * 1000;
    unit.require(exchange_code::add(stored, user_id, context.principal.user_id.as_str(), now, end));
    match state.ledger.append(unit).await {
        Ok(_) => Ok(code),
        Err(LedgerError::Guard("exchange_code")) => {
            Err(OauthError::new(ErrorCode::Conflict, "there are 5 open codes; use one, or wait two minutes"))
        }
        Err(LedgerError::Guard(_)) => Err(OauthError::invalid_request("the user is no active person")),
        Err(error) => Err(error.into()),
    }
}

/// Takes a code for a token.
///
/// # Errors
/// `invalid_grant`, whatever is wrong with the code, or what could not be written.
pub async fn exchange(
    state: &OAuthState,
    context: &RequestContext,
    code: &Secret<String>,
) -> OauthResult<BridgeToken> {
    let digests = state.at_rest.candidates(Label::ExchangeCode, code.expose());
    let digests = (digests.0.as_str(), digests.1.as_str());
    let now = state.now();
    let owner = exchange_code::owner(&state.db, digests, now).await?;
    let user = match owner {
        Some(id) => state.users.find(&id).await?.filter(may_act),
        None => None,
    };
    let Some(user) = user else { return refuse(state, context, "unknown_code").await };
    let permissions = web_permissions(&state.settings(), &user);
    let guard = exchange_code::taken(digests, now);
    let origin = Origin { parent: None, audiences: AUDIENCES.to_vec(), guard, ends_at: None };
    match issue(state, context, &user, permissions, origin).await {
        Err(error) if is_changed(&error) => Err(error),
        Err(OauthError::Ledger(LedgerError::Guard(_))) => refuse(state, context, "unknown_code").await,
        other => other,
    }
}

/// Takes the API key that the caller showed for a token with what the key permits.
///
/// # Errors
/// `invalid_grant` for any other credential, or what could not be written.
pub async fn by_key(state: &OAuthState, context: &RequestContext) -> OauthResult<BridgeToken> {
    let principal = &context.principal;
    let CredentialKind::ApiKey { id } = &principal.credential else {
        return refuse(state, context, "no_api_key").await;
    };
    let key = ApiKeyRepository::new(state.db.clone()).by_id(id.as_str()).await?;
    // A token is taken from anywhere: it would free the key of its networks.
    let Some(key) = key.filter(|key| key.allowed_cidrs.is_empty()) else {
        return refuse(state, context, "bound_to_networks").await;
    };
    let counts_at_api = key.audiences.is_empty() || key.audiences.iter().any(|name| name == "api");
    let audiences = if counts_at_api { AUDIENCES.to_vec() } else { vec![JwtAudience::Bridge] };
    let user = state.users.find(principal.user_id.as_str()).await?.filter(may_act);
    let Some(user) = user else { return refuse(state, context, "not_active").await };
    let permitted = web_permissions(&state.settings(), &user);
    let permissions = permitted.into_iter().filter(|p| principal.permissions.contains(p)).collect();
    let guard = api_keys::stands(id.as_str(), state.now());
    let parent = Some(SessionId::new(id.as_str()));
    let origin = Origin { parent, audiences, guard, ends_at: key.expires_at };
    match issue(state, context, &user, permissions, origin).await {
        Err(error) if is_changed(&error) => Err(error),
        Err(OauthError::Ledger(LedgerError::Guard(_))) => refuse(state, context, "key_ended").await,
        other => other,
    }
}

/// Whether the person was changed between their look-up and the token: the credential still counts, and the call may come again.
fn is_changed(error: &OauthError) -> bool {
    matches!(error, OauthError::Ledger(LedgerError::Guard(USER_CHANGED)))
}

/// What a bridge's token is made of.
struct Origin {
    /// The API key, with which the token ends: its id is the name of its session.
    parent: Option<SessionId>,
    audiences: Vec<JwtAudience>,
    /// Holds while what the token is taken for counts.
    guard: Guard,
    /// The end of that, if it has one.
    ends_at: Option<Millis>,
}

const AUDIENCES: [JwtAudience; 2] = [JwtAudience::Bridge, JwtAudience::Api];

fn may_act(user: &User) -> bool {
    user.kind == UserKind::Person && user.status == UserStatus::Active
}

async fn issue(
    state: &OAuthState,
    context: &RequestContext,
    user: &User,
    permissions: Vec<Permission>,
    origin: Origin,
) -> OauthResult<BridgeToken> {
    if permissions.is_empty() {
        return refuse(state, context, "no_permission").await;
    }
    let left = origin.ends_at.map_or(i64::MAX, |end| (end - state.now()).div_euclid(1000));
    let ttl = BRIDGE_TOKEN_SECONDS.min(left);
    if ttl < 1 {
        return refuse(state, context, "key_ended").await;
    }
    let client_id = ClientId::new(SP_BRIDGE);
    let session_id = SessionId::generate();
    let config = JwtConfig { audiences: origin.audiences, life: ttl, ..JwtConfig::default() };
    let algorithm = state.settings().algorithm;
    let params = JwtSigningParams { client_id: &client_id, session_id: &session_id, algorithm };
    let signed = generate_jwt(state, user.with_permissions(permissions), config, params).await?;
    let end = end_of(&signed);
    let mut session =
        CreateSessionInput::new(session_id.clone(), Some(user.id.clone()), SessionSource::Bridge, end);
    session.facts = SignIn {
        ends_at: Some(end),
        ip_prefix: ip_prefix(context),
        user_agent: context.user_agent.as_deref().map(str::to_owned),
        client_id: Some(client_id.clone()),
        parent: origin.parent,
        ..SignIn::default()
    };
    let entry = draft(EntryKind::OauthBridgeExchanged, context, "issued", &client_id, Some(&user.id));
    let mut unit = Unit::new();
    unit.record(describe(entry, "bridge", &signed));
    unit.require(user.stands());
    unit.require(origin.guard);
    unit.open(SessionOpened::new(session, state.now()));
    let permit = state.ledger.commit(unit).await?;
    drop(permit);
    Ok(BridgeToken { token: signed.token, ttl, user_id: user.id.clone(), session_id })
}

async fn refuse<T>(state: &OAuthState, context: &RequestContext, reason: &'static str) -> OauthResult<T> {
    let error = ErrorCode::InvalidGrant.as_str();
    let kind = EntryKind::OauthBridgeRefused;
    let refusal = Refusal { kind, endpoint: "bridge", error, reason: Some(reason), client_id: None };
    if let Some(draft) = state.refusals.entry(context, &refusal, state.now()) {
        state.record(draft).await?;
    }
    Err(OauthError::invalid_grant("the credential was not accepted"))
}

/// What a bridge tells of itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    pub session_id: String,
    pub bridge_version: String,
    pub os: String,
    pub hostname: String,
    /// Epoch milliseconds.
    #[serde(default)]
    pub last_activity_at: Option<Millis>,
    pub forwarded_total: i64,
    pub tokens_in_total: i64,
    pub tokens_out_total: i64,
}

/// Notes that a bridge is there. False for a session that is not one of the caller's.
///
/// # Errors
/// Fields out of bounds, or rows that cannot be written.
pub async fn heartbeat(state: &OAuthState, user: &UserId, told: &Heartbeat) -> OauthResult<bool> {
    let texts = [&told.session_id, &told.bridge_version, &told.os, &told.hostname];
    if texts.iter().any(|text| text.is_empty() || text.len() > 255 || text.chars().any(char::is_control)) {
        return Err(OauthError::invalid_request(
            "texts have 1 to 255 characters, none of them a control character",
        ));
    }
    let counts = [told.forwarded_total, told.tokens_in_total, told.tokens_out_total];
    if counts.iter().any(|count| *count < 0) {
        return Err(OauthError::invalid_request("totals are not negative"));
    }
    let beat = Beat {
        session_id: &told.session_id,
        user_id: user.as_str(),
        bridge_version: &told.bridge_version,
        os: &told.os,
        hostname: &told.hostname,
        last_activity_at: told.last_activity_at,
        forwarded_total: told.forwarded_total,
        tokens_in_total: told.tokens_in_total,
        tokens_out_total: told.tokens_out_total,
    };
    Ok(BridgeSessionRepository::new(state.db.clone()).beat(&beat, state.now()).await?)
}

/// Notes whether the caller's bridge serves a host.
///
/// # Errors
/// A name that is no host, too many of them, or rows that cannot be written.
pub async fn enable_host(state: &OAuthState, user: &UserId, host: &str, enabled: bool) -> OauthResult<()> {
    let fits = (1..=255).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
    if !fits {
        return Err(OauthError::invalid_request("host is not a host"));
    }
    let host = host.to_ascii_lowercase();
    let prefs = BridgeHostPrefsRepository::new(state.db.clone());
    if prefs.set(user.as_str(), &host, enabled).await? {
        Ok(())
    } else {
        Err(OauthError::new(ErrorCode::Conflict, "there are 100 hosts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{caller, fixtures};

    #[tokio::test]
    async fn id_100_a_code_counts_once_and_for_two_minutes() {
        for fixture in fixtures().await {
            let user = fixture.user("bob", &["user"]).await;
            let code = make_code(&fixture.state, &caller(), &user).await.unwrap();
            let context = caller();
            let both = tokio::join!(
                exchange(&fixture.state, &context, &code),
                exchange(&fixture.state, &context, &code)
            );
            let won = [both.0, both.1].into_iter().filter_map(Result::ok).collect::<Vec<_>>();
            assert_eq!(won.len(), 1);
            let claims = fixture.state.verifier.verify_own(won[0].token.expose()).unwrap().claims;
            assert_eq!(claims.aud, [JwtAudience::Bridge, JwtAudience::Api]);
            assert_eq!((claims.sub.as_str(), claims.exp - claims.iat), (user.id.as_str(), 3600));
            let row = fixture.state.sessions.find(&won[0].session_id).await.unwrap().unwrap();
            assert_eq!(row.source, Some(SessionSource::Bridge));
            for _ in 0..5 {
                make_code(&fixture.state, &caller(), &user).await.unwrap();
            }
            let many = make_code(&fixture.state, &caller(), &user).await;
            assert_eq!(many.err().map(|error| error.code()), Some(ErrorCode::Conflict));
            fixture.clock.advance(120_001);
            let code = make_code(&fixture.state, &caller(), &user).await.unwrap();
            fixture.clock.advance(120_001);
            let late = exchange(&fixture.state, &context, &code).await;
            assert_eq!(late.err().map(|error| error.code()), Some(ErrorCode::InvalidGrant));
        }
    }

    #[tokio::test]
    async fn id_102_counters_never_fall_and_foreign_sessions_are_not_found() {
        for fixture in fixtures().await {
            let user = fixture.user("bob", &["user"]).await;
            let other = fixture.user("eve", &["user"]).await;
            let session = fixture.signed_in(&user).await.session_id;
            let beat = |n: i64| Heartbeat {
                session_id: session.to_string(),
                bridge_version: "1.0".into(),
                os: "linux".into(),
                hostname: "box".into(),
                last_activity_at: None,
                forwarded_total: n,
                tokens_in_total: 7,
                tokens_out_total: n,
            };
            assert!(heartbeat(&fixture.state, &user.id, &beat(5)).await.unwrap());
            assert!(heartbeat(&fixture.state, &user.id, &beat(3)).await.unwrap());
            let totals =
                BridgeSessionRepository::new(fixture.state.db.clone()).totals(session.as_str()).await;
            assert_eq!(totals.unwrap(), Some((5, 7, 5)));
            assert!(!heartbeat(&fixture.state, &other.id, &beat(9)).await.unwrap());
            assert!(heartbeat(&fixture.state, &user.id, &beat(-1)).await.is_err());
            enable_host(&fixture.state, &user.id, "App.Example", true).await.unwrap();
            assert!(enable_host(&fixture.state, &user.id, "no host", true).await.is_err());
        }
    }
}
