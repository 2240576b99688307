//! The token that is exchanged, and whom it stands for (ID-60): one of ours, whose session counts, or one of a trusted issuer.

use crate::constants::FOREIGN_LEEWAY_SECONDS;
use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::repository::oauth::federated::{self, foreign_token_used};
use crate::repository::users;
use crate::services::generation::active_user;
use crate::services::grants;
use crate::services::id_token::is_sid_of;
use crate::services::jwt::{AuthService, IssuerTokens, Standing, TokenValidator};
use crate::services::scopes::Scopes;
use crate::services::validation::jwt::{ForeignClaims, number, text};
use crate::services::webauthn::{Newcomer, UserCreationService};
use crate::state::OAuthState;
use crate::users::{User, check};
use serde_json::Value;
use systemprompt_audit::{Draft, EntryKind, Guard, LedgerError, Unit};
use systemprompt_config::profile::security::{SubjectMapping, TrustedIssuer};
use systemprompt_models::ids::{Jti, SessionId, UserId, uuid_v4};
use systemprompt_models::{Actor, AuthenticatedUser, JwtAudience, JwtClaims, RequestContext};
use systemprompt_security::jwt::UnverifiedClaims;

/// Whom a token stands for, and what of it goes on.
pub(super) struct Subject {
    pub user: AuthenticatedUser,
    /// What it may now.
    pub scopes: Scopes,
    /// Where it counts; absent if it is bound to nothing here.
    pub audiences: Option<Vec<JwtAudience>>,
    /// The session whose end is the end of the new one; another issuer's token has none here.
    pub session: Option<SessionId>,
    /// Id of the access token of that session.
    pub jti: Option<Jti>,
    pub act: Option<Actor>,
    pub may_act: Option<Value>,
    /// The plugin that a hook token is bound to.
    pub plugin_id: Option<String>,
    /// Epoch seconds.
    pub expires_at: i64,
    pub auth_time: Option<i64>,
    pub issuer: String,
    /// What must hold when the new token is written.
    pub guards: Vec<Guard>,
}

/// One text for whatever is wrong, so that nobody learns which issuers and users there are.
pub(super) fn invalid() -> OauthError {
    OauthError::invalid_grant("subject_token or actor_token is not valid")
}

pub(super) async fn read(
    state: &OAuthState,
    context: &RequestContext,
    client: &OAuthClient,
    token: &str,
    is_id_token: bool,
) -> OauthResult<Subject> {
    let unverified_claims = UnverifiedClaims::decode(token).map_err(|_| invalid())?;
    let issuer = unverified_claims.issuer().ok_or_else(invalid)?;
    if issuer == state.tokens.issuer() {
        return if is_id_token { by_id_token(state, client, token).await } else { own(state, token).await };
    }
    let settings = state.settings();
    let trusted = settings.trusted_issuers.iter().find(|trusted| trusted.issuer == issuer);
    foreign(state, context, trusted.ok_or_else(invalid)?, token).await
}

/// The claims of an access token of ours that counts, asked of the tables.
pub(super) async fn own_access(state: &OAuthState, token: &str) -> OauthResult<JwtClaims> {
    AuthService(state).validate(token).await?.ok_or_else(invalid)
}

async fn own(state: &OAuthState, token: &str) -> OauthResult<Subject> {
    let claims = own_access(state, token).await?;
    let Standing { user, scopes, guards } =
        AuthService(state).standing(&claims).await?.ok_or_else(invalid)?;
    Ok(Subject {
        user,
        scopes,
        audiences: Some(claims.aud),
        session: Some(claims.session_id),
        jti: Some(claims.jti),
        act: claims.act,
        may_act: None,
        plugin_id: claims.plugin_id,
        expires_at: claims.exp,
        auth_time: claims.auth_time,
        issuer: claims.iss,
        guards,
    })
}

/// An ID token counts where it was given to, while the session counts that it tells of.
async fn by_id_token(state: &OAuthState, client: &OAuthClient, token: &str) -> OauthResult<Subject> {
    let claims = state.verifier.verify_id_token(token).map_err(|_| invalid())?;
    let now = state.clock.now_seconds();
    let expires_at = number(&claims, "exp").filter(|exp| *exp > now).ok_or_else(invalid)?;
    if text(&claims, "aud") != Some(client.client_id.as_str()) {
        return Err(invalid());
    }
    let (sub, sid) = (text(&claims, "sub").ok_or_else(invalid)?, text(&claims, "sid").ok_or_else(invalid)?);
    let user = active_user(state, &UserId::new(sub)).await.map_err(unless_ours)?;
    // It has no row that a revocation of all could name.
    let issued_at = number(&claims, "iat").ok_or_else(invalid)?;
    if state.sessions.is_cut_off(&user.id, Some(&client.client_id), issued_at)? {
        return Err(invalid());
    }
    let mut sessions = state.sessions.browsers_of(&user.id).await?.into_iter();
    let session = sessions.find(|session| is_sid_of(state, sid, &session.id));
    // It tells who somebody is; what the client may do for them is what they granted it in that session.
    let session = session.ok_or_else(invalid)?.id;
    let client_id = client.client_id.as_str();
    let grant = state.oauth.newest_grant(user.id.as_str(), client_id, session.as_str(), state.now()).await?;
    let grant = grant.ok_or_else(invalid)?;
    let scopes = Scopes::of(&grant.scopes).permitted(&state.settings().permissions_of_user(&user));
    let audiences = (!grant.resources.is_empty())
        .then(|| grant.resources.split(' ').map(|uri| JwtAudience::Resource(uri.to_owned())).collect());
    Ok(Subject {
        session: Some(grants::session_of(&grant.grant_id)),
        jti: None,
        user: user.with_permissions(scopes.permissions.clone()),
        scopes,
        audiences,
        act: None,
        may_act: None,
        plugin_id: None,
        expires_at,
        auth_time: number(&claims, "auth_time"),
        issuer: state.tokens.issuer().to_owned(),
        guards: vec![user.stands()],
    })
}

async fn foreign(
    state: &OAuthState,
    context: &RequestContext,
    trusted: &TrustedIssuer,
    token: &str,
) -> OauthResult<Subject> {
    let tokens = IssuerTokens { state, trusted };
    let claims = tokens.validate(token).await?.ok_or_else(invalid)?;
    let user = user_of(state, context, trusted, &claims).await?;
    let permissions = state.settings().permissions_of_user(&user);
    let until = claims.expires_at.saturating_add(FOREIGN_LEEWAY_SECONDS).saturating_mul(1000);
    // The id of a token of another issuer is taken once.
    let spent = claims.jti.map(|jti| foreign_token_used(&trusted.issuer, &jti, until));
    let scopes = Scopes { permissions, oidc: Vec::new() }.for_persons();
    Ok(Subject {
        user: user.with_permissions(scopes.permissions.clone()),
        scopes,
        audiences: None,
        session: None,
        jti: None,
        act: claims.act,
        may_act: claims.may_act,
        plugin_id: None,
        expires_at: claims.expires_at,
        auth_time: claims.auth_time,
        issuer: trusted.issuer.clone(),
        guards: spent.into_iter().chain([user.stands()]).collect(),
    })
}

/// The user that a subject of another issuer is here, as the configuration maps it.
async fn user_of(
    state: &OAuthState,
    context: &RequestContext,
    trusted: &TrustedIssuer,
    claims: &ForeignClaims,
) -> OauthResult<User> {
    let (sub, email) = (claims.sub.as_str(), claims.email.as_deref());
    if let Some(id) = state.oauth.linked_user(&trusted.issuer, sub).await? {
        return active_user(state, &UserId::new(id)).await.map_err(unless_ours);
    }
    match trusted.subject_mapping {
        SubjectMapping::Linked => return Err(invalid()),
        SubjectMapping::VerifiedEmail => {
            let mail = email.ok_or_else(invalid)?.to_lowercase();
            let id = state.oauth.user_by_email(&mail).await?.ok_or_else(invalid)?;
            link(state, context, (trusted, sub), &id, Unit::new()).await?;
        }
        SubjectMapping::Provision => provision(state, context, trusted, sub, email).await?,
    }
    // Who was linked first stays.
    let linked = state.oauth.linked_user(&trusted.issuer, sub).await?.ok_or_else(invalid)?;
    active_user(state, &UserId::new(linked)).await.map_err(unless_ours)
}

/// Links a subject to a user, on record, with what else is in `unit`.
async fn link(
    state: &OAuthState,
    context: &RequestContext,
    (trusted, sub): (&TrustedIssuer, &str),
    user: &str,
    mut unit: Unit,
) -> OauthResult<()> {
    unit.record(
        Draft::new(EntryKind::AdminUserLinked, context, "ok")
            .with_subject("user", user)
            .with("issuer", trusted.issuer.as_str())
            .with("subject", sub)
            .with("mapping", mapping(trusted.subject_mapping)),
    );
    unit.require(federated::linked(&trusted.issuer, sub, user, state.now()));
    match state.ledger.append(unit).await {
        // Another call with the subject was faster.
        Ok(_) | Err(LedgerError::Guard(federated::ALREADY_LINKED)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn mapping(configured: SubjectMapping) -> &'static str {
    match configured {
        SubjectMapping::Linked => "linked",
        SubjectMapping::VerifiedEmail => "verified_email",
        SubjectMapping::Provision => "provision",
    }
}

/// A user for a subject that is new here, made and linked in one unit: no account that somebody else made is ever this subject's, and
/// of two calls at once one makes it.
async fn provision(
    state: &OAuthState,
    context: &RequestContext,
    trusted: &TrustedIssuer,
    sub: &str,
    email: Option<&str>,
) -> OauthResult<()> {
    // Two entries of one mail cannot be: who has it already is not this subject.
    let email = email.filter(|email| check(None, Some(email), None, None).is_ok());
    let service = UserCreationService(state);
    for email in [email, None] {
        let user = service.person(Newcomer {
            // Nobody can tell the name beforehand, nor does anything follow from it.
            username: format!("fed-{}", uuid_v4().simple()),
            email: email.map(str::to_owned),
            ..Newcomer::default()
        });
        let (created, rows) = service.rows(context, &user, None);
        let mut unit = Unit::new();
        unit.record(created);
        for row in rows {
            unit.require(row);
        }
        match link(state, context, (trusted, sub), user.id.as_str(), unit).await {
            Err(OauthError::Ledger(LedgerError::Guard(users::ACCOUNT))) if email.is_some() => {}
            linked => return linked,
        }
    }
    Err(invalid())
}

/// Keeps what failed here, and makes of everything else the one text.
fn unless_ours(error: OauthError) -> OauthError {
    if error.is_ours() { error } else { invalid() }
}
