//! What the tokens of a grant have in common: an access token in the grant's session, a refresh token, an ID token, and one unit
//! that makes them all durable before any leaves.

use crate::at_rest::Label;
use crate::constants::REFRESH_TOKEN_PREFIX;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::models::oauth::GrantType;
use crate::repository::oauth::grants::{GRANT_ENDED, Grant, grant_used};
use crate::repository::oauth::refresh_token::{RefreshToken, refresh_issued};
use crate::services::claims::still_registered;
use crate::services::generation::{
    JwtConfig, JwtSigningParams, TokenResponse, describe, draft, end_of, generate_jwt, life, response,
    told_to,
};
use crate::services::grants::{is_live, session_of};
use crate::services::id_token::{IdTokenFacts, id_token};
use crate::services::refusals::ip_prefix;
use crate::services::scopes::{Cuts, Scopes};
use crate::services::validation::audience;
use crate::state::OAuthState;
use crate::users::User;
use systemprompt_audit::{EntryKind, LedgerError, Unit};
use systemprompt_models::ids::{ClientId, GrantId, SessionId, UserId};
use systemprompt_models::session::{CreateSessionInput, SessionSource, SignIn};
use systemprompt_models::{Millis, Permission, RequestContext, Secret};
use systemprompt_security::jwt::SignedAccess;
use systemprompt_security::opaque;
use systemprompt_security::session::{SESSION_ENDED, session_lives};

/// How a person signed in, as tokens tell it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignedIn {
    /// Epoch seconds.
    pub auth_time: i64,
    pub acr: Option<String>,
    pub amr: Option<String>,
    pub nonce: Option<String>,
}

/// A grant that tokens are made under, and for whom.
pub(crate) struct Family<'a> {
    pub state: &'a OAuthState,
    pub context: &'a RequestContext,
    pub client: &'a OAuthClient,
    pub user: User,
    pub grant: Grant,
}

/// The grant does not count, whatever the reason.
pub(crate) fn ended() -> OauthError {
    OauthError::invalid_grant("the grant is not valid any more")
}

/// A unit that another call was before.
pub(crate) fn lost(error: LedgerError) -> OauthError {
    match error {
        LedgerError::Guard(GRANT_ENDED | SESSION_ENDED) => ended(),
        other => other.into(),
    }
}

impl<'a> Family<'a> {
    /// The grant `id` of `client`, if it, its user and the session that it hangs on count.
    pub async fn open(
        state: &'a OAuthState,
        context: &'a RequestContext,
        client: &'a OAuthClient,
        id: &str,
    ) -> OauthResult<Self> {
        let grant = state.oauth.find_grant(id).await?;
        let grant = grant.filter(|grant| grant.client_id == client.client_id.as_str()).ok_or_else(ended)?;
        if !is_live(state, &grant).await? {
            return Err(ended());
        }
        let user = super::super::generation::active_user(state, &UserId::new(grant.user_id.as_str())).await?;
        Ok(Self { state, context, client, user, grant })
    }

    /// What of `asked` client and user may have now.
    ///
    /// # Errors
    /// `invalid_scope` when no token can be made of the rest.
    pub fn granted(&self, asked: &Scopes) -> OauthResult<Scopes> {
        let granted = self.cut(asked).0;
        if granted.is_enough() {
            Ok(granted)
        } else {
            Err(OauthError::invalid_scope("nothing of the scope is granted any more"))
        }
    }

    /// What is left of `asked` now, and what cut the rest.
    fn cut(&self, asked: &Scopes) -> (Scopes, Cuts) {
        let mut cuts = Cuts::default();
        let of_client = asked.clone().and(&Scopes::of_client(self.client));
        cuts.note("client", asked, &of_client);
        let of_user = of_client.clone().permitted(&self.state.settings().permissions_of_user(&self.user));
        cuts.note("user", &of_client, &of_user);
        let granted = of_user.clone().for_persons();
        cuts.note("policy", &of_user, &granted);
        (granted, cuts)
    }

    /// Signs an access token in the grant's session.
    pub async fn access(
        &self,
        scopes: Scopes,
        resources: &[String],
        signed_in: &SignedIn,
    ) -> OauthResult<SignedAccess> {
        let settings = self.state.settings();
        let life = life(&settings, &scopes.permissions);
        let user = told_to(self.user.with_permissions(scopes.permissions), self.client, &scopes.oidc);
        let config = JwtConfig {
            life,
            oidc_scopes: scopes.oidc,
            audiences: audience::of_resources(&settings, resources),
            auth_time: Some(signed_in.auth_time),
            ..JwtConfig::default()
        };
        let params = JwtSigningParams {
            client_id: &self.client.client_id,
            session_id: &session_of(&self.grant.grant_id),
            algorithm: settings.algorithm,
        };
        generate_jwt(self.state, user, config, params).await
    }

    /// The grant's session, which begins with its first tokens.
    pub fn session(
        &self,
        source: SessionSource,
        signed_in: &SignedIn,
        access: &SignedAccess,
    ) -> CreateSessionInput {
        let end = if self.client.has_grant(GrantType::RefreshToken) {
            self.grant.family_expires_at.max(end_of(access))
        } else {
            end_of(access)
        };
        let id = session_of(&self.grant.grant_id);
        let mut session = CreateSessionInput::new(id, Some(self.user.id.clone()), source, end);
        session.facts = SignIn {
            ends_at: Some(end),
            auth_time: Some(signed_in.auth_time),
            acr: signed_in.acr.clone(),
            amr: signed_in.amr.clone(),
            ip_prefix: ip_prefix(self.context),
            user_agent: self.context.user_agent.as_deref().map(str::to_owned),
            client_id: Some(self.client.client_id.clone()),
            owner_id: None,
            grant_id: Some(GrantId::new(self.grant.grant_id.as_str())),
            parent: self.grant.parent().map(SessionId::new),
        };
        session
    }

    /// A unit with the record of `access`, that holds while the grant and the session that it hangs on count.
    pub fn unit(&self, grant_type: GrantType, access: &SignedAccess, asked: &Scopes) -> Unit {
        let now = self.state.now();
        let entry = self
            .draft(EntryKind::OauthToken, "issued")
            .with("grant", self.grant.grant_id.as_str())
            .with("scopes_asked", asked.text())
            .with("cut", self.cut(asked).1);
        let mut unit = Unit::new();
        unit.record(describe(entry, grant_type.as_str(), access));
        // Of an administrator's rights nothing is given behind their end; others end with the next refresh (ID-51).
        if Scopes::of(&access.claims.scope).permissions.contains(&Permission::Admin) {
            unit.require_first(self.user.stands());
        }
        unit.require(grant_used(&self.grant.grant_id, now));
        if let Some(parent) = self.grant.parent() {
            unit.require(session_lives(&SessionId::new(parent), now));
        }
        unit
    }

    pub fn draft(&self, kind: EntryKind, outcome: &'static str) -> systemprompt_audit::Draft {
        draft(kind, self.context, outcome, &self.client.client_id, Some(&self.user.id))
    }

    /// The row of a refresh token with this digest. It keeps the whole of the grant.
    pub fn refresh_row(&self, digest: crate::at_rest::Digest, access: &SignedAccess) -> RefreshToken {
        let now = self.state.now();
        let life: Millis = self.state.settings().refresh_life.saturating_mul(1000);
        RefreshToken {
            token_digest: digest.hex,
            grant_id: self.grant.grant_id.clone(),
            parent_digest: None,
            child_id: None,
            child_digest: None,
            client_id: self.grant.client_id.clone(),
            user_id: self.grant.user_id.clone(),
            scopes: self.grant.scopes.clone(),
            resources: self.grant.resources.clone(),
            issued_at: now,
            expires_at: now.saturating_add(life).min(self.grant.family_expires_at),
            used_at: None,
            revoked_at: None,
            access_jti: Some(access.claims.jti.to_string()),
            access_exp: Some(end_of(access)),
            pepper_id: digest.pepper_id.to_string(),
        }
    }

    /// A first refresh token, if the client may have one; its row goes into `unit`.
    pub fn first_refresh(
        &self,
        unit: &mut Unit,
        access: &SignedAccess,
    ) -> OauthResult<Option<Secret<String>>> {
        if !self.client.has_grant(GrantType::RefreshToken) {
            return Ok(None);
        }
        let token = opaque::generate(REFRESH_TOKEN_PREFIX)?;
        let digest = self.state.at_rest.digest_of(Label::RefreshToken, &token);
        unit.require(refresh_issued(&self.refresh_row(digest, access)));
        Ok(Some(token))
    }

    /// The answer with these tokens, and an ID token if the scope wants one.
    pub fn answer(
        &self,
        access: SignedAccess,
        refresh_token: Option<Secret<String>>,
        signed_in: &SignedIn,
    ) -> OauthResult<TokenResponse> {
        let wants = access.claims.has_scope("openid");
        let own = session_of(&self.grant.grant_id);
        let session = self.grant.session_id.as_deref().map_or(own, SessionId::new);
        // What was cut from the client is told no more, however it was asked for.
        let granted = still_registered(&self.grant.scopes, self.client);
        let facts = IdTokenFacts {
            client: self.client,
            user: &self.user,
            session: &session,
            auth_time: signed_in.auth_time,
            acr: signed_in.acr.as_deref(),
            amr: signed_in.amr.as_deref(),
            nonce: signed_in.nonce.as_deref(),
            claims: self.grant.claims.as_deref(),
            granted: &granted,
            access: Some(&access),
        };
        let id_token = wants.then(|| id_token(self.state, facts)).transpose()?;
        Ok(TokenResponse { refresh_token, id_token, ..response(access) })
    }
}

/// The words of a column.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Whether a row belongs to the client that asks.
pub(crate) fn is_of(client: &OAuthClient, id: &str) -> bool {
    client.client_id == ClientId::new(id)
}

/// What was presented is nothing that this client can use.
pub(crate) fn unknown(parameter: &'static str) -> OauthError {
    OauthError::new(ErrorCode::InvalidGrant, format!("{parameter} is not valid"))
}
