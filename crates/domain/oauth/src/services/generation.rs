//! Making tokens: what an access token says, how it is recorded before it leaves, and the client's own tokens
//! (client credentials, ID-52 to ID-58).

mod subject;

use crate::constants::MAX_HOOK_TOKEN_SECONDS;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::services::refusals::ip_prefix;
use crate::services::scopes::{Cuts, Scopes};
use crate::state::{OAuthState, Settings};
use crate::users::{User, UserStatus};
pub use subject::{build_client_user, client_user_id};
use systemprompt_audit::{ActorKind, Draft, EntryKind, Unit};
use systemprompt_models::ids::{ClientId, SessionId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource, SignIn};
use systemprompt_models::{
    Actor, AuthenticatedUser, JwtAudience, Millis, Permission, RequestContext, Secret, parse_permissions,
};
use systemprompt_security::jwt::{AccessFacts, SignedAccess};
use systemprompt_security::keys::SigningAlgorithm;
use systemprompt_security::session::SessionOpened;

/// What the token endpoint answers (RFC 6749 section 5.1). It is rendered in one place.
pub struct TokenResponse {
    pub access_token: Secret<String>,
    pub token_type: &'static str,
    /// Seconds; `exp - iat` of the token.
    pub expires_in: i64,
    pub scope: String,
    pub refresh_token: Option<Secret<String>>,
    pub id_token: Option<Secret<String>>,
    /// Of token exchange alone (RFC 8693 section 2.2.1).
    pub issued_token_type: Option<&'static str>,
}

impl std::fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenResponse").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// What a token that a client gets may tell of its person. An access token of ours is open to whoever holds it, and no surface of ours
/// needs these names: a program that is not ours is told them only where the person allowed it.
pub(crate) fn told_to(
    mut user: AuthenticatedUser,
    client: &OAuthClient,
    oidc_scopes: &[&'static str],
) -> AuthenticatedUser {
    let is_person = user.id.as_str().starts_with(UserId::PREFIX);
    if is_person && !client.first_party {
        if !oidc_scopes.contains(&"profile") {
            user.username.clear();
        }
        if !oidc_scopes.contains(&"email") {
            user.email.clear();
        }
    }
    user
}

/// Where a token counts, how long, and what it says beside its user.
#[derive(Clone, Debug, Default)]
pub struct JwtConfig {
    /// Of [`systemprompt_models::auth::OIDC_SCOPES`].
    pub oidc_scopes: Vec<&'static str>,
    pub audiences: Vec<JwtAudience>,
    pub plugin_id: Option<String>,
    /// Epoch seconds.
    pub auth_time: Option<i64>,
    pub act: Option<Actor>,
    /// Seconds.
    pub life: i64,
}

/// Whom a token is given to, in which session, and under which algorithm.
#[derive(Clone, Copy, Debug)]
pub struct JwtSigningParams<'a> {
    pub client_id: &'a ClientId,
    pub session_id: &'a SessionId,
    pub algorithm: SigningAlgorithm,
}

/// Signs an access token with the permissions of `user`. It begins once tokens of this user and client count again after a cut.
///
/// # Errors
/// No key on this node, a token that would be too large, or a client that was disabled or deleted meanwhile.
pub async fn generate_jwt(
    state: &OAuthState,
    user: AuthenticatedUser,
    config: JwtConfig,
    params: JwtSigningParams<'_>,
) -> OauthResult<SignedAccess> {
    if state.sessions.wait_to_issue(&user.id, Some(params.client_id)).await? {
        still_active(state, params.client_id).await?;
    }
    let facts = AccessFacts {
        user_id: user.id,
        username: user.username,
        email: user.email,
        permissions: user.permissions,
        oidc_scopes: config.oidc_scopes,
        roles: user.roles,
        department: user.department.filter(|department| !department.is_empty()),
        client_id: params.client_id.clone(),
        session_id: params.session_id.clone(),
        audiences: config.audiences,
        plugin_id: config.plugin_id,
        auth_time: config.auth_time,
        act: config.act,
        life: config.life,
    };
    Ok(state.tokens.access(params.algorithm, facts)?)
}

/// Refuses a client that has lost its right since it was read. One that is named by its metadata document has none to lose.
pub(crate) async fn still_active(state: &OAuthState, id: &ClientId) -> OauthResult<()> {
    if id.as_str().starts_with("https://") {
        return Ok(());
    }
    let client = state.clients.find_client_by_id(id.as_str()).await?;
    if client.is_some_and(|client| client.is_active()) { Ok(()) } else { Err(OauthError::invalid_client()) }
}

/// How long a token with these permissions lives, in seconds.
pub(crate) fn life(settings: &Settings, permissions: &[Permission]) -> i64 {
    if permissions.iter().any(|permission| permission.is_hook_scope()) {
        settings.access_life.min(MAX_HOOK_TOKEN_SECONDS)
    } else {
        settings.access_life
    }
}

/// The draft of an entry about what a client was given for a user, or for itself. Where the call came from stands in the session.
pub(crate) fn draft(
    kind: EntryKind,
    context: &RequestContext,
    outcome: &'static str,
    client_id: &ClientId,
    user: Option<&UserId>,
) -> Draft {
    let mut draft = Draft::system(kind, outcome);
    (draft.actor_kind, draft.actor_id) = match user {
        Some(user) => (ActorKind::User, user.as_str().into()),
        None => (ActorKind::Client, client_id.as_str().into()),
    };
    draft.client_id = Some(client_id.clone());
    draft.trace_id = Some(context.trace_id.clone());
    draft
}

/// Puts what a token says into its entry: never the token.
pub(crate) fn describe(mut draft: Draft, grant_type: &'static str, signed: &SignedAccess) -> Draft {
    let claims = &signed.claims;
    draft.session_id = Some(claims.session_id.clone());
    let audiences: Vec<&str> = claims.aud.iter().map(JwtAudience::as_str).collect();
    draft
        .with("grant_type", grant_type)
        .with("jti", claims.jti.as_str())
        .with("sub", claims.sub.as_str())
        .with("exp", claims.exp)
        .with("aud", audiences)
        .with("scopes", claims.scope.as_str())
}

/// The end of a token, in epoch milliseconds.
pub(crate) fn end_of(signed: &SignedAccess) -> Millis {
    signed.claims.exp.saturating_mul(1000)
}

/// The answer with this access token.
pub(crate) fn response(signed: SignedAccess) -> TokenResponse {
    TokenResponse {
        token_type: "Bearer",
        expires_in: signed.claims.exp - signed.claims.iat,
        scope: signed.claims.scope,
        access_token: signed.token,
        refresh_token: None,
        id_token: None,
        issued_token_type: None,
    }
}

/// What a client asks for itself.
#[derive(Clone, Debug, Default)]
pub struct ClientTokenOptions<'a> {
    pub scope: Option<&'a str>,
    pub plugin_id: Option<&'a str>,
    /// Empty: those of the configuration.
    pub audience: Vec<JwtAudience>,
}

/// A client's own token, with a session of its own.
///
/// # Errors
/// `invalid_scope`, `invalid_target`, or `invalid_client` when the client's owner may not act.
pub async fn generate_client_tokens(
    state: &OAuthState,
    client: &OAuthClient,
    context: &RequestContext,
    options: ClientTokenOptions<'_>,
) -> OauthResult<TokenResponse> {
    let settings = state.settings();
    let scope = options
        .scope
        .ok_or_else(|| OauthError::invalid_scope("Scope is required for client credentials grant"))?;
    let requested = parse_permissions(scope)
        .map_err(|_| OauthError::invalid_scope("scope holds a word that is no permission"))?;
    let owner = owner(state, client).await?;
    let asked = Scopes { permissions: requested.clone(), oidc: Vec::new() };
    let mut permissions = resolve_client_permissions(requested, client)?;
    let mut cuts = Cuts::default();
    let of_client = Scopes { permissions: permissions.clone(), oidc: Vec::new() };
    cuts.note("client", &asked, &of_client);
    if let Some(owner) = &owner {
        let owned = settings.permissions_of_user(owner);
        permissions.retain(|permission| owned.contains(permission));
        cuts.note("owner", &of_client, &Scopes { permissions: permissions.clone(), oidc: Vec::new() });
        if permissions.is_empty() {
            return Err(not_allowed());
        }
    }
    let audiences = client_audiences(&settings, client, options.audience, &permissions)?;
    let plugin_id = plugin(client, options.plugin_id)?;
    let session_id = SessionId::generate();
    let life = life(&settings, &permissions);
    let user = AuthenticatedUser {
        id: client.user_id.clone(),
        department: owner.as_ref().and_then(|owner| owner.department.clone()),
        ..build_client_user(client.client_id.as_str(), &permissions)
    };
    let config = JwtConfig { audiences, plugin_id, life, ..JwtConfig::default() };
    let params = JwtSigningParams {
        client_id: &client.client_id,
        session_id: &session_id,
        algorithm: settings.algorithm,
    };
    let signed = generate_jwt(state, user, config, params).await?;

    let user_id = client.user_id.clone();
    let mut session =
        CreateSessionInput::new(session_id.clone(), Some(user_id), SessionSource::Oauth, end_of(&signed));
    session.facts = SignIn {
        ends_at: Some(end_of(&signed)),
        ip_prefix: ip_prefix(context),
        user_agent: context.user_agent.as_deref().map(str::to_owned),
        client_id: Some(client.client_id.clone()),
        owner_id: owner.as_ref().map(|owner| owner.id.clone()),
        ..SignIn::default()
    };
    let entry = draft(EntryKind::OauthToken, context, "issued", &client.client_id, None)
        .with("owner_id", owner.as_ref().map(|owner| owner.id.as_str()))
        .with("scopes_asked", asked.text())
        .with("cut", cuts)
        .with("plugin_id", signed.claims.plugin_id.as_deref());
    let mut unit = Unit::new();
    unit.record(describe(entry, "client_credentials", &signed));
    if let Some(owner) = &owner {
        unit.require_first(owner.stands());
    }
    unit.open(SessionOpened::new(session, state.now()));
    drop(state.ledger.commit(unit).await?);
    Ok(response(signed))
}

fn not_allowed() -> OauthError {
    OauthError::invalid_scope("No valid permissions: requested scopes not allowed for this client")
}

/// What of `requested` the client may have: explicit sets, in the order of the request.
///
/// # Errors
/// `invalid_scope` when nothing is left.
pub fn resolve_client_permissions(
    requested: Vec<Permission>,
    client: &OAuthClient,
) -> OauthResult<Vec<Permission>> {
    let unknown = |word: &&String| Scopes::of(word) == Scopes::default();
    for scope in client.relations.scopes.iter().filter(unknown) {
        tracing::warn!(%scope, client_id = %client.client_id, "a scope of a client is no permission and is ignored");
    }
    let permissions: Vec<Permission> =
        requested.into_iter().filter(|permission| client.has_scope(permission.as_str())).collect();
    if permissions.is_empty() { Err(not_allowed()) } else { Ok(permissions) }
}

/// The audiences of a client's own token: open unless the client is held to some, but for `internal` (ID-54).
pub(crate) fn client_audiences(
    settings: &Settings,
    client: &OAuthClient,
    requested: Vec<JwtAudience>,
    permissions: &[Permission],
) -> OauthResult<Vec<JwtAudience>> {
    let is_default = requested.is_empty();
    let mut audiences = if is_default { settings.audiences.clone() } else { requested };
    let allowed = &client.allowed_audiences;
    let is_allowed = |audience: &JwtAudience| {
        allowed.contains(audience) || (allowed.is_empty() && *audience != JwtAudience::Internal)
    };
    if is_default {
        audiences.retain(is_allowed);
    }
    // What is asked for and what is left must both hold it, or a token had the scope without its surface.
    let is_hook = permissions.iter().any(|permission| permission.is_hook_scope());
    if is_hook && !audiences.contains(&JwtAudience::Hook) {
        return Err(OauthError::invalid_target("Hook scopes require audience=hook on the token request"));
    }
    if audiences.is_empty() || !audiences.iter().all(is_allowed) {
        return Err(OauthError::invalid_target("audience is not allowed for this client"));
    }
    Ok(audiences)
}

fn plugin(client: &OAuthClient, named: Option<&str>) -> OauthResult<Option<String>> {
    let fits = |id: &str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match (client.plugin_id.as_deref(), named) {
        (_, Some(id)) if !fits(id) => {
            Err(OauthError::invalid_request("plugin_id must have 1 to 128 characters of A-Z a-z 0-9 . _ -"))
        }
        (Some(bound), Some(id)) if bound != id => {
            Err(OauthError::invalid_target("plugin_id is not the plugin of this client"))
        }
        (bound, named) => Ok(bound.or(named).map(str::to_owned)),
    }
}

/// The person whom a client serves, if it serves one.
pub(crate) async fn owner(state: &OAuthState, client: &OAuthClient) -> OauthResult<Option<User>> {
    let Some(id) = &client.owner_user_id else { return Ok(None) };
    let owner = state.users.find(id.as_str()).await?;
    let is_active = |owner: &User| owner.id == *id && owner.status == UserStatus::Active;
    owner.filter(is_active).map(Some).ok_or_else(OauthError::invalid_client)
}

/// What tokens of a person may say: of somebody who may act.
pub(crate) async fn active_user(state: &OAuthState, id: &UserId) -> OauthResult<User> {
    let user = state.users.find(id.as_str()).await?;
    let is_active = |user: &User| user.id == *id && user.status == UserStatus::Active;
    user.filter(is_active)
        .ok_or_else(|| OauthError::new(ErrorCode::InvalidGrant, "the grant is not valid any more"))
}
