//! Ending tokens before their time: one token, one session, or everything of a user, a client or anybody. Recorded first, in force
//! on this node before the call returns, on others with their next look (SEC-56).

use crate::context::AppContext;
use serde::Serialize;
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_events::Channel;
use systemprompt_models::ids::{Jti, SessionId};
use systemprompt_models::{Millis, RequestContext};
use systemprompt_oauth::services::grants;
use systemprompt_oauth::{IdentityError, OauthError};
use systemprompt_security::error::JwtError;
use systemprompt_security::jwt::Verified;
use systemprompt_security::session::{Cutoff, CutoffKind, EVERYBODY, SessionError, SessionRow, Sessions};

/// Why nothing was ended.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("this is no token of this deployment: {0}")]
    NotOurs(JwtError),
    #[error("the revocation could not be recorded: {0}")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    User(#[from] IdentityError),
    #[error(transparent)]
    Oauth(#[from] OauthError),
}

/// What was ended.
#[derive(Clone, Debug, Serialize)]
pub struct Revocation {
    /// `token`, `user`, `client` or `all`.
    pub revoked: &'static str,
    /// Id of the token, user or client; `*` for all.
    pub id: String,
    /// False if it was ended before, or had ended by itself; `None` of a token that is known by its id alone: tokens are not
    /// stored, so nobody knows whether a live one bears it.
    pub was_live: Option<bool>,
    /// Tokens issued in or before this second are dead; absent for a single token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Millis>,
    /// How long the revocation is kept: until the last token that it can concern has ended by itself.
    pub expires_at: Millis,
    pub sessions_ended: usize,
}

impl AppContext {
    /// Ends the token `text`. One that has expired is none to end.
    ///
    /// # Errors
    /// What is no token of ours, or a revocation that could not be recorded or written.
    pub async fn revoke_token(&self, by: &RequestContext, text: &str) -> Result<Revocation, RevokeError> {
        match self.auth.read_own(text) {
            Ok(verified) => self.revoke_one(by, &verified.claims.jti, Some(&verified)).await,
            Err(JwtError::Expired) => Ok(Revocation {
                revoked: "token",
                id: String::new(),
                was_live: Some(false),
                not_before: None,
                expires_at: self.clock.now(),
                sessions_ended: 0,
            }),
            Err(error) => Err(RevokeError::NotOurs(error)),
        }
    }

    /// Ends the token with this id. Its end is not known, so the revocation is kept as long as a token can live.
    ///
    /// # Errors
    /// When the revocation cannot be recorded or written.
    pub async fn revoke_jti(&self, by: &RequestContext, jti: &Jti) -> Result<Revocation, RevokeError> {
        self.revoke_one(by, jti, None).await
    }

    async fn revoke_one(
        &self,
        by: &RequestContext,
        jti: &Jti,
        shown: Option<&Verified>,
    ) -> Result<Revocation, RevokeError> {
        let is_shown = shown.is_some();
        let longest = || Sessions::longest_end(self.clock.now());
        let expires_at = shown.map_or_else(longest, Verified::expires_at);
        let draft = Draft::new(EntryKind::OauthRevoked, by, "ok").with("scope", "token");
        let draft = match shown {
            Some(verified) => draft.with("sessions", self.sessions.count_exchanged(&verified.claims).await?),
            None => draft,
        };
        self.record_one(draft.with("jti", jti.as_str()).with("expires_at", expires_at)).await?;
        let (is_new, sessions_ended) = match shown {
            Some(verified) => self.sessions.revoke_claims(&verified.claims).await?,
            None => (self.sessions.revoke_token(jti, expires_at).await?, 0),
        };
        self.tell_revocation(jti.as_str()).await;
        Ok(Revocation {
            revoked: "token",
            id: jti.to_string(),
            was_live: if is_new { is_shown.then_some(true) } else { Some(false) },
            not_before: None,
            expires_at,
            sessions_ended,
        })
    }

    /// Ends a session with every token of it. Returns whether it was live.
    ///
    /// # Errors
    /// As [`Self::revoke_jti`].
    pub async fn revoke_session(&self, by: &RequestContext, id: &SessionId) -> Result<bool, RevokeError> {
        let draft = Draft::new(EntryKind::OauthSessionRevoked, by, "ok");
        let was_live = grants::end_session(&self.oauth, draft, id, "revoked").await? > 0;
        self.tell_revocation(id.as_str()).await;
        Ok(was_live)
    }

    /// Ends every token that a subject was issued up to now; of a user also the sessions, grants, API keys, and what leads back in.
    ///
    /// # Errors
    /// As [`Self::revoke_jti`].
    pub async fn revoke_all(
        &self,
        by: &RequestContext,
        kind: CutoffKind,
        id: &str,
        reason: &str,
    ) -> Result<Revocation, RevokeError> {
        let now = self.clock.now();
        let id = if kind == CutoffKind::All { EVERYBODY } else { id };
        let cutoff = Cutoff {
            kind,
            id: id.to_owned(),
            not_before: now,
            reason: reason.to_owned(),
            expires_at: Sessions::longest_end(now),
        };
        let draft = Draft::new(EntryKind::OauthRevoked, by, "ok").with("scope", kind.as_str());
        let draft = match kind {
            CutoffKind::User => draft.with("sessions", self.sessions.count_of(&id.into(), None).await?),
            CutoffKind::Client | CutoffKind::All => draft,
        };
        let mut unit = Unit::new();
        let entry = unit.record(draft.with("of", id).with("not_before", now));
        self.ledger.append(unit).await?;
        let sessions_ended = match kind {
            CutoffKind::User => self.users.shut_out(&cutoff, &entry).await?,
            CutoffKind::Client | CutoffKind::All => self.sessions.cut_off(&cutoff, &entry).await?,
        };
        if kind == CutoffKind::User {
            self.auth.forget_keys();
        }
        self.tell_revocation(id).await;
        Ok(Revocation {
            revoked: kind.as_str(),
            id: cutoff.id,
            was_live: Some(true),
            not_before: Some(now),
            expires_at: cutoff.expires_at,
            sessions_ended,
        })
    }

    /// The newest live sessions of a user, at most 200.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn sessions_of(&self, user: &str) -> Result<Vec<SessionRow>, SessionError> {
        self.sessions.list(&user.into()).await
    }

    /// Tells other nodes that what `id` names has ended, so that they look at once.
    pub async fn tell_revocation(&self, id: &str) {
        self.bridge.publish(Channel::Revocations, id).await;
    }

    /// Takes over what other nodes ended. If something changed, signing keys are read and API keys asked for again: they share the
    /// epoch.
    pub(crate) async fn refresh_revocations(&self) {
        match self.sessions.refresh().await {
            Ok(false) => {}
            Ok(true) => {
                self.auth.forget_keys();
                self.refresh_keys().await;
            }
            Err(error) => {
                tracing::warn!(%error, age_ms = self.sessions.age(), "revocations could not be confirmed");
            }
        }
    }

    /// Reads the key ring again.
    pub(crate) async fn refresh_keys(&self) {
        if let Err(error) = self.keys.refresh().await {
            tracing::warn!(%error, "the key ring could not be read again");
        }
    }

    async fn record_one(&self, draft: Draft) -> Result<(), LedgerError> {
        let mut unit = Unit::new();
        unit.record(draft);
        self.ledger.append(unit).await.map(drop)
    }
}
