//! The refresh token grant (RFC 6749 section 6, RFC 9700 section 4.14): each token is used once and followed by one child. A
//! repeat within the grace gets the same child again, which is derived and stored nowhere; any other ends the family.

use super::ClientRequest;
use super::family::{Family, SignedIn, is_of, lost, unknown, words};
use crate::at_rest::{Digest, Label};
use crate::constants::REFRESH_TOKEN_PREFIX;
use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::models::oauth::GrantType;
use crate::repository::oauth::auth_code::impossible;
use crate::repository::oauth::refresh_token::{
    CHILD_USED, REFRESH_USED, RefreshState, RefreshToken, child_repeated, refresh_issued, refresh_used,
};
use crate::services::generation::{TokenResponse, end_of};
use crate::services::grants::{self, session_of};
use crate::services::refusals::ip_prefix;
use crate::services::scopes::Scopes;
use crate::services::validation::audience;
use crate::state::OAuthState;
use serde_json::json;
use systemprompt_audit::{Draft, EntryKind, LedgerError, Payload, Role};
use systemprompt_models::ids::uuid_v7;
use systemprompt_models::{Millis, Secret};
use systemprompt_security::jwt::SignedAccess;
use systemprompt_security::opaque;
use systemprompt_security::session::session_lives;

pub(super) async fn exchange(
    state: &OAuthState,
    request: ClientRequest<'_>,
    client: &OAuthClient,
) -> OauthResult<TokenResponse> {
    let token = request.parameters.need("refresh_token")?;
    if !opaque::has_form(REFRESH_TOKEN_PREFIX, token) {
        return Err(unknown("refresh_token"));
    }
    let digests = state.at_rest.candidates(Label::RefreshToken, token);
    let found = state.oauth.find_refresh(&digests).await?;
    let mut row =
        found.filter(|row| is_of(client, &row.client_id)).ok_or_else(|| unknown("refresh_token"))?;
    let use_of = Use { state, request, client, token };
    if row.state()? == RefreshState::Fresh {
        match use_of.rotate(&row).await {
            Err(Failed::Used) => {}
            Err(Failed::Refused(error)) => return Err(error),
            Ok(tokens) => return Ok(tokens),
        }
        // Another use of the same token was a moment before: this one is a repeat.
        row = state.oauth.find_refresh(&digests).await?.ok_or_else(|| unknown("refresh_token"))?;
    }
    match row.state()? {
        RefreshState::Used { at, child_id, child_digest } => {
            use_of.repeat(&row, at, child_id, child_digest).await
        }
        RefreshState::Fresh | RefreshState::Revoked => Err(unknown("refresh_token")),
    }
}

enum Failed {
    /// Another use was before.
    Used,
    Refused(OauthError),
}

impl<E: Into<OauthError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// What a new access token is made of.
struct Renewed<'a> {
    family: Family<'a>,
    signed_in: SignedIn,
    access: SignedAccess,
    asked: Scopes,
}

struct Use<'a> {
    state: &'a OAuthState,
    request: ClientRequest<'a>,
    client: &'a OAuthClient,
    token: &'a str,
}

impl<'a> Use<'a> {
    async fn rotate(&self, row: &RefreshToken) -> Result<TokenResponse, Failed> {
        let state = self.state;
        let now = state.now();
        if row.expires_at <= now {
            return Err(unknown("refresh_token").into());
        }
        let Renewed { family, signed_in, access, asked } = self.access(row).await?;
        let child_id = uuid_v7().simple().to_string();
        let (child, digest) = self.derive(&child_id, None);
        let mut unit = family.unit(GrantType::RefreshToken, &access, &asked);
        unit.require(session_lives(&session_of(&row.grant_id), now));
        unit.require(refresh_used(row, &child_id, &digest.hex, now));
        let new = RefreshToken {
            parent_digest: Some(row.token_digest.clone()),
            ..family.refresh_row(digest, &access)
        };
        unit.require(refresh_issued(&new));
        let answer = family.answer(access, Some(child), &signed_in)?;
        match state.ledger.commit(unit).await {
            Ok(permit) => {
                drop(permit);
                Ok(answer)
            }
            Err(LedgerError::Guard(REFRESH_USED)) => Err(Failed::Used),
            Err(error) => Err(Failed::Refused(lost(error))),
        }
    }

    /// A token that was used already: the same child within the grace while that is unused, else the end of the family.
    async fn repeat(
        &self,
        row: &RefreshToken,
        used_at: Millis,
        child_id: &str,
        child_digest: &str,
    ) -> OauthResult<TokenResponse> {
        let state = self.state;
        let grace = Millis::from(state.settings().identity.refresh.grace).saturating_mul(1000);
        let digest = child_digest.to_owned();
        let child = state.oauth.find_refresh(&(digest.clone(), digest)).await?;
        let is_unused = |child: &RefreshToken| matches!(child.state(), Ok(RefreshState::Fresh));
        let is_in_time = grace > 0 && state.now() - used_at <= grace && row.revoked_at.is_none();
        let Some(child) = child.filter(|child| is_in_time && is_unused(child)) else {
            return Err(self.reused(row, used_at).await);
        };
        let token = self.derive(child_id, Some(&child.pepper_id)).0;
        let (present, previous) = state.at_rest.candidates_of(Label::RefreshToken, &token);
        if child_digest != present && child_digest != previous {
            return Err(impossible("a refresh token's child", child_digest));
        }
        let Renewed { family, signed_in, access, asked } = self.access(row).await?;
        let mut unit = family.unit(GrantType::RefreshToken, &access, &asked);
        unit.record(
            family
                .draft(EntryKind::OauthRefreshRepeated, "same_child")
                .with("grant", row.grant_id.as_str())
                .with("used_ago_ms", state.now() - used_at),
        );
        unit.require(session_lives(&session_of(&row.grant_id), state.now()));
        unit.require(child_repeated(child_digest, access.claims.jti.as_str(), end_of(&access)));
        let answer = family.answer(access, Some(token), &signed_in)?;
        match state.ledger.commit(unit).await {
            Ok(permit) => {
                drop(permit);
                Ok(answer)
            }
            Err(LedgerError::Guard(CHILD_USED)) => Err(self.reused(row, used_at).await),
            Err(error) => Err(lost(error)),
        }
    }

    /// An access token under the row's grant, as far as the request narrows it.
    async fn access(&self, row: &RefreshToken) -> OauthResult<Renewed<'a>> {
        let state = self.state;
        let parameters = self.request.parameters;
        let family = Family::open(state, self.request.context, self.client, &row.grant_id).await?;
        let session = state.sessions.find(&session_of(&row.grant_id)).await?;
        let session =
            session.filter(|session| session.is_live(state.now())).ok_or_else(super::family::ended)?;
        let signed_in = SignedIn {
            auth_time: session.auth_time.unwrap_or_default(),
            acr: session.acr,
            amr: session.amr,
            nonce: None,
        };
        let held = words(&row.scopes);
        let asked = match parameters.get("scope") {
            None => Scopes::of(&row.scopes),
            Some(text) if text.split_ascii_whitespace().all(|word| held.iter().any(|own| own == word)) => {
                Scopes::of(text)
            }
            Some(_) => return Err(OauthError::invalid_scope("scope is wider than what was granted")),
        };
        let resources = audience::subset(parameters, &words(&row.resources))?;
        let access = family.access(family.granted(&asked)?, &resources, &signed_in).await?;
        Ok(Renewed { family, signed_in, access, asked })
    }

    /// The child of the token that was shown (ID-49): the same for whoever shows it, and known to nobody who does not.
    fn derive(&self, child_id: &str, pepper_id: Option<&str>) -> (Secret<String>, Digest) {
        let at_rest = &self.state.at_rest;
        let present = at_rest.digest(Label::RefreshDerive, "").pepper_id;
        let input = [self.token.as_bytes(), child_id.as_bytes()].concat();
        let tag = at_rest.tag(Label::RefreshDerive, pepper_id.unwrap_or(&present), &input);
        let token = Secret::new(opaque::encode(REFRESH_TOKEN_PREFIX, &tag));
        let digest = at_rest.digest_of(Label::RefreshToken, &token);
        (token, digest)
    }

    async fn reused(&self, row: &RefreshToken, used_at: Millis) -> OauthError {
        let state = self.state;
        let grant = match state.oauth.find_grant(&row.grant_id).await {
            Ok(grant) => grant,
            Err(error) => return error.into(),
        };
        if grant.is_some_and(|grant| grant.revoked_at.is_none()) {
            let first = match state.sessions.find(&session_of(&row.grant_id)).await {
                Ok(session) => session.and_then(|session| session.ip_prefix),
                Err(error) => return error.into(),
            };
            let now = state.now();
            let context = self.request.context;
            let mut draft = Draft::new(EntryKind::OauthRefreshReuse, context, "revoked")
                .with("client", row.client_id.as_str())
                .with("user_id", row.user_id.as_str())
                .with("issued_ago_ms", now - row.issued_at)
                .with("used_ago_ms", now - used_at)
                .with_payload(Payload::of(
                    Role::Addresses,
                    &json!({"grant": first, "reuse": ip_prefix(context)}),
                ));
            draft.client_id = Some(row.client_id.as_str().into());
            if let Err(error) = grants::end(state, draft, &row.grant_id, "refresh_reuse", None).await {
                return error;
            }
        }
        unknown("refresh_token")
    }
}
