//! The device grant (RFC 8628): a device without a browser shows a short code, a person approves it elsewhere, and the device,
//! which asks again and again, gets tokens once.

use crate::at_rest::Label;
use crate::constants::DEVICE_CODE_PREFIX;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::models::oauth::GrantType;
use crate::repository::oauth::authorize::NewGrant;
use crate::repository::oauth::device::{
    DEVICE_DECIDED, DEVICE_OPENED, DEVICE_USED, DeviceCode, DeviceState, device_approved, device_denied,
    device_opened, device_used,
};
use crate::services::generation::{TokenResponse, draft};
use crate::services::id_token::check_signer;
use crate::services::refusals::ip_prefix;
use crate::services::scopes::Scopes;
use crate::services::token::family::{Family, SignedIn, is_of, lost, unknown, words};
use crate::services::token::{ClientRequest, refused, unauthorized};
use crate::services::validation::audience;
use crate::services::validation::client_credentials::authenticate;
use crate::state::OAuthState;
use crate::users::{User, UserStatus};
use systemprompt_audit::{ActorKind, Draft, EntryKind, LedgerError, Unit};
use systemprompt_models::ids::{ClientId, GrantId, SessionId, UserId};
use systemprompt_models::session::SessionSource;
use systemprompt_models::{Millis, Permission, RequestContext, Secret};
use systemprompt_security::opaque;
use systemprompt_security::session::{SESSION_ENDED, SessionOpened, session_lives};

/// Letters of a user code: no vowels, so that no words come about, and none that look alike (RFC 8628 section 6.1).
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const USER_CODE_LENGTH: usize = 8;
/// Most open codes of one client and network.
const MAX_OPEN: i64 = 10;
/// What a question that came too early adds to the interval, in milliseconds (RFC 8628 section 3.5).
const SLOW_DOWN: Millis = 5000;

/// What a device is told (RFC 8628 section 3.2).
pub struct DeviceAuthorization {
    pub device_code: Secret<String>,
    /// `XXXX-XXXX`.
    pub user_code: Secret<String>,
    pub verification_uri: String,
    /// Seconds.
    pub expires_in: u32,
    pub interval: u32,
}

impl std::fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceAuthorization").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// A request of a device, as the person who decides on it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRequest {
    pub client_id: ClientId,
    pub scopes: Scopes,
    pub resources: Vec<String>,
    /// Where the device asked from.
    pub ip_prefix: Option<String>,
    pub created_at: Millis,
    pub expires_at: Millis,
}

/// Who decides, in which browser session.
#[derive(Clone, Debug)]
pub struct DeviceDecision<'a> {
    pub user_code: &'a str,
    pub user_id: &'a UserId,
    pub session_id: &'a SessionId,
    /// What the person lets the device have of the scope; absent: all of it.
    pub scopes: Option<Scopes>,
}

/// Opens a request of a device.
///
/// # Errors
/// A client that may not, nothing of the scope that it may have, a resource that is none, or too many open requests.
pub async fn authorize(state: &OAuthState, request: ClientRequest<'_>) -> OauthResult<DeviceAuthorization> {
    let opened = open(state, request).await;
    if let Err(error) = &opened {
        let kind = EntryKind::OauthAuthorizeRefused;
        refused(state, request.context, "device_authorization", kind, error, None).await;
    }
    opened
}

async fn open(state: &OAuthState, request: ClientRequest<'_>) -> OauthResult<DeviceAuthorization> {
    let parameters = request.parameters;
    let client = authenticate(state, request).await?.client;
    if !client.has_grant(GrantType::DeviceCode) {
        return Err(unauthorized());
    }
    let settings = state.settings();
    let scopes = scopes(&client, parameters.get("scope"))?;
    if scopes.oidc.contains(&"openid") {
        check_signer(state, &client)?;
    }
    let resources = audience::resources(parameters)?;
    if !resources.iter().all(|resource| audience::is_allowed(&settings, resource)) {
        return Err(OauthError::invalid_target("resource is no resource of this deployment"));
    }
    let device_code = opaque::generate(DEVICE_CODE_PREFIX)?;
    let (typed, user_code) = new_user_code()?;
    let device = settings.identity.device.clone();
    let now = state.now();
    let digest = state.at_rest.digest_of(Label::DeviceCode, &device_code);
    let interval = Millis::from(device.interval) * 1000;
    let row = DeviceCode {
        device_digest: digest.hex,
        user_code_digest: state.at_rest.digest_of(Label::UserCode, &typed).hex,
        client_id: client.client_id.to_string(),
        scopes: scopes.text(),
        resources: resources.join(" "),
        status: "pending".to_owned(),
        poll_interval: interval,
        // The first question may come at once; the interval lies between two.
        next_poll_at: now,
        ip_prefix: ip_prefix(request.context),
        user_id: None,
        session_id: None,
        grant_id: None,
        auth_time: None,
        acr: None,
        amr: None,
        pepper_id: digest.pepper_id.to_string(),
        created_at: now,
        expires_at: now + Millis::from(device.ttl) * 1000,
    };
    let entry = draft(EntryKind::OauthDeviceStarted, request.context, "started", &client.client_id, None)
        .with("scopes", row.scopes.as_str())
        .with("resources", resources);
    let mut unit = Unit::new();
    unit.record(entry);
    for guard in device_opened(&row, MAX_OPEN) {
        unit.require(guard);
    }
    match state.ledger.commit(unit).await {
        Ok(permit) => drop(permit),
        Err(LedgerError::Guard(DEVICE_OPENED)) => {
            return Err(OauthError::Throttled { retry_after: device.interval.max(1) });
        }
        Err(error) => return Err(error.into()),
    }
    Ok(DeviceAuthorization {
        device_code,
        user_code,
        verification_uri: format!("{}/device", settings.external_url),
        expires_in: device.ttl,
        interval: device.interval,
    })
}

/// What a device may ask for: what its client may have of what a person can give (ID-38).
fn scopes(client: &OAuthClient, asked: Option<&str>) -> OauthResult<Scopes> {
    let own = Scopes::of_client(client).for_persons();
    let scopes = if let Some(text) = asked {
        Scopes::of(text).and(&own)
    } else {
        let mut own = own;
        own.permissions.retain(|permission| *permission != Permission::Admin);
        own
    };
    if scopes.is_enough() {
        Ok(scopes)
    } else {
        Err(OauthError::invalid_scope("nothing of scope is allowed for this client"))
    }
}

/// Eight letters of the alphabet, each as likely as the other: as they are stored, and as they are shown.
fn new_user_code() -> OauthResult<(Secret<String>, Secret<String>)> {
    let mut code = String::with_capacity(USER_CODE_LENGTH);
    while code.len() < USER_CODE_LENGTH {
        let mut random = [0; 16];
        opaque::fill(&mut random)?;
        // 240 is the largest multiple of twenty below 256.
        for byte in random.into_iter().filter(|byte| *byte < 240) {
            if let Some(letter) = ALPHABET.get(usize::from(byte) % ALPHABET.len())
                && code.len() < USER_CODE_LENGTH
            {
                code.push(char::from(*letter));
            }
        }
    }
    let (first, second) = code.split_at(USER_CODE_LENGTH / 2);
    let shown = format!("{first}-{second}");
    Ok((Secret::new(code), Secret::new(shown)))
}

/// A code as a person typed it, without case, spaces and dashes.
fn normal(typed: &str) -> String {
    typed.chars().filter(|c| !matches!(c, ' ' | '-')).take(32).map(|c| c.to_ascii_uppercase()).collect()
}

async fn row_of(state: &OAuthState, user_code: &str) -> OauthResult<Option<DeviceCode>> {
    let digests = state.at_rest.candidates(Label::UserCode, &normal(user_code));
    let row = state.oauth.find_user_code(&digests).await?;
    let Some(row) = row else { return Ok(None) };
    Ok((row.state(state.now())? == DeviceState::Pending).then_some(row))
}

/// The open request with this user code, if there is one.
///
/// # Errors
/// When the rows cannot be read.
pub async fn find_by_user_code(state: &OAuthState, user_code: &str) -> OauthResult<Option<DeviceRequest>> {
    let row = row_of(state, user_code).await?;
    Ok(row.map(|row| DeviceRequest {
        client_id: ClientId::new(row.client_id),
        scopes: Scopes::of(&row.scopes),
        resources: words(&row.resources),
        ip_prefix: row.ip_prefix.filter(|prefix| !prefix.is_empty()),
        created_at: row.created_at,
        expires_at: row.expires_at,
    }))
}

/// Gives a device what it asked for. False if its request is not open any more.
///
/// # Errors
/// A session that does not count, or a decision that cannot be recorded.
pub async fn approve(
    state: &OAuthState,
    context: &RequestContext,
    decision: DeviceDecision<'_>,
) -> OauthResult<bool> {
    let Some(row) = row_of(state, decision.user_code).await? else { return Ok(false) };
    let now = state.now();
    let session = state.sessions.find(decision.session_id).await?;
    let session = session.filter(|s| s.is_live(now) && s.user_id.as_ref() == Some(decision.user_id));
    let session = session.ok_or_else(|| OauthError::new(ErrorCode::LoginRequired, "sign in first"))?;
    let settings = state.settings();
    let user = state.users.find(decision.user_id.as_str()).await?;
    let is_active = |user: &User| user.id == *decision.user_id && user.status == UserStatus::Active;
    let user =
        user.filter(is_active).ok_or_else(|| OauthError::new(ErrorCode::LoginRequired, "sign in first"))?;
    let asked = Scopes::of(&row.scopes);
    let kept = decision.scopes.map_or_else(|| asked.clone(), |kept| asked.clone().and(&kept));
    let scopes = kept.permitted(&settings.permissions_of_user(&user));
    if !scopes.is_enough() {
        return Err(OauthError::invalid_scope("nothing of the scope can be granted"));
    }
    let grant_id = GrantId::generate();
    // As for codes: without `offline_access` what is about a person ends with their session (ID-47).
    let offline = scopes.is_offline() || !scopes.is_openid();
    let grant = NewGrant {
        grant_id: grant_id.to_string(),
        user_id: user.id.to_string(),
        client_id: row.client_id.clone(),
        session_id: Some(session.id.to_string()),
        kind: "device",
        scopes: scopes.text(),
        resources: row.resources.clone(),
        offline,
        created_at: now,
        family_expires_at: now + Millis::from(settings.identity.refresh.absolute) * 1000,
        claims: None,
    };
    let decided = DeviceCode {
        scopes: grant.scopes.clone(),
        user_id: Some(user.id.to_string()),
        session_id: Some(session.id.to_string()),
        grant_id: Some(grant.grant_id.clone()),
        auth_time: Some(session.auth_time.unwrap_or(session.created_at.div_euclid(1000))),
        acr: session.acr.clone(),
        amr: session.amr.clone(),
        ..row
    };
    let mut unit = Unit::new();
    unit.record(
        decided_by(EntryKind::OauthDeviceApproved, context, &decided.client_id, &user.id, &session.id)
            .with("grant", grant.grant_id.as_str())
            .with("scopes", grant.scopes.as_str()),
    );
    unit.require(session_lives(&session.id, now));
    unit.require(device_approved(&decided, now));
    unit.open(grant);
    taken(state.ledger.append(unit).await.map(drop))
}

/// Refuses a device. False if its request is not open any more.
///
/// # Errors
/// A decision that cannot be recorded.
pub async fn deny(
    state: &OAuthState,
    context: &RequestContext,
    decision: DeviceDecision<'_>,
) -> OauthResult<bool> {
    let Some(row) = row_of(state, decision.user_code).await? else { return Ok(false) };
    let (user, session) = (decision.user_id, decision.session_id);
    let mut unit = Unit::new();
    unit.record(decided_by(EntryKind::OauthDeviceDenied, context, &row.client_id, user, session));
    unit.require(device_denied(&row.device_digest, state.now()));
    taken(state.ledger.append(unit).await.map(drop))
}

fn taken(done: Result<(), LedgerError>) -> OauthResult<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(LedgerError::Guard(DEVICE_DECIDED)) => Ok(false),
        Err(LedgerError::Guard(SESSION_ENDED)) => {
            Err(OauthError::new(ErrorCode::LoginRequired, "sign in first"))
        }
        Err(error) => Err(error.into()),
    }
}

fn decided_by(
    kind: EntryKind,
    context: &RequestContext,
    client_id: &str,
    user: &UserId,
    session: &SessionId,
) -> Draft {
    let mut draft = Draft::new(kind, context, "ok");
    draft.actor_kind = ActorKind::User;
    draft.actor_id = user.as_str().into();
    draft.session_id = Some(session.clone());
    draft.client_id = Some(ClientId::new(client_id));
    draft
}

/// The question of a device at the token endpoint.
pub(crate) async fn exchange(
    state: &OAuthState,
    request: ClientRequest<'_>,
    client: &OAuthClient,
) -> OauthResult<TokenResponse> {
    let text = request.parameters.need("device_code")?;
    if !opaque::has_form(DEVICE_CODE_PREFIX, text) {
        return Err(unknown("device_code"));
    }
    let found = state.oauth.find_device(&state.at_rest.candidates(Label::DeviceCode, text)).await?;
    let row = found.filter(|row| is_of(client, &row.client_id)).ok_or_else(|| unknown("device_code"))?;
    let now = state.now();
    let grant_id = match row.state(now)? {
        DeviceState::Expired => {
            return Err(OauthError::new(ErrorCode::ExpiredToken, "device_code has expired"));
        }
        DeviceState::Denied => {
            return Err(OauthError::new(ErrorCode::AccessDenied, "the request was denied"));
        }
        DeviceState::Used { .. } => return Err(unknown("device_code")),
        DeviceState::Pending | DeviceState::Approved { .. } if now < row.next_poll_at => {
            state.oauth.slow_device(&row.device_digest, SLOW_DOWN, now).await?;
            return Err(OauthError::new(
                ErrorCode::SlowDown,
                "wait for the interval before the next request",
            ));
        }
        DeviceState::Pending => {
            if !state.oauth.poll_device(&row.device_digest, now).await? {
                return Err(OauthError::new(
                    ErrorCode::SlowDown,
                    "wait for the interval before the next request",
                ));
            }
            let pending = "the person has not decided yet";
            return Err(OauthError::new(ErrorCode::AuthorizationPending, pending));
        }
        DeviceState::Approved { grant_id, .. } => grant_id,
    };
    let family = Family::open(state, request.context, client, grant_id).await?;
    let signed_in = SignedIn {
        auth_time: row.auth_time.unwrap_or_default(),
        acr: row.acr.clone(),
        amr: row.amr.clone(),
        nonce: None,
    };
    let asked = Scopes::of(&row.scopes);
    let scopes = family.granted(&asked)?;
    let resources = audience::subset(request.parameters, &words(&row.resources))?;
    let access = family.access(scopes, &resources, &signed_in).await?;
    let mut unit = family.unit(GrantType::DeviceCode, &access, &asked);
    unit.record(family.draft(EntryKind::OauthDeviceIssued, "issued").with("grant", row.grant_id.as_deref()));
    unit.require(device_used(&row.device_digest, now));
    unit.open(SessionOpened::new(family.session(SessionSource::Device, &signed_in, &access), now));
    let refresh = family.first_refresh(&mut unit, &access)?;
    let answer = family.answer(access, refresh, &signed_in)?;
    match state.ledger.commit(unit).await {
        Ok(permit) => {
            drop(permit);
            Ok(answer)
        }
        Err(LedgerError::Guard(DEVICE_USED)) => Err(unknown("device_code")),
        Err(error) => Err(lost(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_64_user_codes_are_eight_letters_that_survive_being_typed() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let (code, text) = new_user_code().unwrap();
            let text = text.expose();
            assert_eq!((text.len(), text.find('-')), (9, Some(4)));
            assert!(text.bytes().all(|b| b == b'-' || ALPHABET.contains(&b)), "{text}");
            assert_eq!(normal(&format!(" {} ", text.to_lowercase().replace('-', " - "))), *code.expose());
            seen.insert(text.clone());
        }
        assert!(seen.len() > 190);
    }
}
