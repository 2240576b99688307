//! What concerns people and spans rooms: a changed user's sessions end, tokens get a session row and a record.

use crate::context::AppContext;
use std::time::Duration;
use systemprompt_audit::{LedgerError, Unit};
use systemprompt_models::ids::SessionId;
use systemprompt_models::session::{CreateSessionInput, SessionSource};
use systemprompt_models::{Millis, Permission, RequestContext, Secret, UserType};
use systemprompt_oauth::api_keys::Leaked;
use systemprompt_oauth::{IdentityError, User, UserChange};
use systemprompt_security::jwt::IssueError;
use systemprompt_security::keys::{
    KeyDescription, KeyError, KeyInfo, KeyRing, KeyState, KeyUse, Rotation, SigningAlgorithm,
};
use systemprompt_security::session::{SessionError, SessionOpened, SessionParams, SessionUse};

/// Why a token was not issued.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token cannot be made: {0}")]
    Issue(#[from] IssueError),
    #[error("the token could not be recorded: {0}")]
    Ledger(#[from] LedgerError),
    #[error("the token's session could not be stored: {0}")]
    Session(#[from] SessionError),
}

impl AppContext {
    /// Changes a user; what the change ends counts on this node no more before the call returns.
    ///
    /// # Errors
    /// As [`systemprompt_oauth::Users::change`].
    pub async fn change_user(
        &self,
        by: &RequestContext,
        id: &str,
        version: Option<i64>,
        change: UserChange,
    ) -> Result<User, IdentityError> {
        let after = self.users.change(by, id, version, change).await?;
        self.auth.forget();
        self.tell_revocation(after.id.as_str()).await;
        Ok(after)
    }

    /// Merges a user into another, who is returned.
    ///
    /// # Errors
    /// As [`systemprompt_oauth::Users::merge`].
    pub async fn merge_users(
        &self,
        by: &RequestContext,
        id: &str,
        version: Option<i64>,
        into: &str,
    ) -> Result<User, IdentityError> {
        let merged = self.users.merge(by, id, version, into).await?;
        self.auth.forget();
        self.tell_revocation(merged.id.as_str()).await;
        Ok(merged)
    }

    /// Ends an API key; it is refused on this node before the call returns, on others with their next look.
    ///
    /// # Errors
    /// As [`systemprompt_oauth::ApiKeys::revoke`].
    pub async fn revoke_api_key(&self, by: &RequestContext, id: &str) -> Result<(), IdentityError> {
        self.api_keys.revoke(by, id).await?;
        self.end_key(id).await
    }

    /// Ends the live API keys among values that somebody found where they must not be, each with its own record.
    ///
    /// # Errors
    /// As [`systemprompt_oauth::ApiKeys::report`]; what was ended before stays so.
    pub async fn report_leaked_keys(
        &self,
        by: &RequestContext,
        values: &[Secret<String>],
    ) -> Result<Vec<Leaked>, IdentityError> {
        let mut outcomes = Vec::with_capacity(values.len());
        for value in values {
            let outcome = self.api_keys.report(by, value).await?;
            if let Leaked::Revoked(key) = &outcome {
                self.end_key(key.id.as_str()).await?;
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// Ends what was made of an API key that has ended, whose id is the name of its session.
    async fn end_key(&self, id: &str) -> Result<(), IdentityError> {
        self.auth.forget_keys();
        self.sessions.revoke(&SessionId::new(id), "api_key_revoked").await?;
        self.tell_revocation(id).await;
        Ok(())
    }

    /// A session token for the command line of `user`, with a session of its own.
    ///
    /// # Errors
    /// Permissions that make no token, or a record or row that could not be written.
    pub async fn issue_token(
        &self,
        by: &RequestContext,
        user: &User,
        permissions: &[Permission],
        life: Duration,
    ) -> Result<Secret<String>, TokenError> {
        self.sessions.wait_to_issue(&user.id, None).await?;
        let session_id = SessionId::generate();
        let user_type = UserType::of(permissions);
        let pending = self.session_tokens.generate_for(
            SessionUse::Cli,
            &SessionParams {
                user_id: user.id.clone(),
                session_id: session_id.clone(),
                email: user.email.clone().unwrap_or_default(),
                user_type,
                permissions: permissions.to_vec(),
                roles: user.roles.clone(),
                department: user.department.clone(),
                rate_limit_tier: user_type.tier(),
                duration: life,
            },
        )?;
        let mut unit = Unit::new();
        pending.record(&mut unit, Some(by));
        unit.require(user.stands());
        let now = self.clock.now();
        let expires_at = now + life.as_millis() as Millis;
        let session =
            CreateSessionInput::new(session_id, Some(user.id.clone()), SessionSource::Cli, expires_at);
        unit.open(SessionOpened::new(session, now));
        let permit = self.ledger.commit(unit).await?;
        Ok(pending.release(permit))
    }

    /// The key ring, oldest key first.
    pub fn key_list(&self) -> Vec<KeyDescription> {
        self.keys.describe()
    }

    /// Makes a signing key that is published and not used yet.
    ///
    /// # Errors
    /// When it cannot be recorded, made or stored.
    pub async fn generate_key(
        &self,
        key_use: KeyUse,
        algorithm: SigningAlgorithm,
        by: &RequestContext,
    ) -> Result<KeyInfo, KeyError> {
        let made = self.keys.generate(key_use, algorithm, &self.ledger, Some(by)).await?;
        self.tell_revocation(&made.kid).await;
        Ok(made)
    }

    /// Lets the next key of an algorithm sign; of the profile's algorithm if none is named.
    ///
    /// # Errors
    /// As [`systemprompt_security::keys::KeyRing::rotate`].
    pub async fn rotate_key(
        &self,
        key_use: KeyUse,
        algorithm: Option<SigningAlgorithm>,
        by: &RequestContext,
    ) -> Result<Rotation, KeyError> {
        let default = match key_use {
            KeyUse::Sig => self.configured_algorithm(),
            KeyUse::Internal => SigningAlgorithm::EdDsa,
        };
        let done = self.keys.rotate(key_use, algorithm.unwrap_or(default), &self.ledger, Some(by)).await?;
        self.tell_revocation(&done.active.kid).await;
        Ok(done)
    }

    /// Takes a key out of use, unless clients have their ID tokens signed by it.
    ///
    /// # Errors
    /// As [`systemprompt_security::keys::KeyRing::retire`], and [`KeyError::ClientsNeed`].
    pub async fn retire_key(&self, kid: &str, by: &RequestContext) -> Result<KeyInfo, KeyError> {
        let configured = self.configured_algorithm();
        if let Some(algorithm) = self.signs_with(kid).filter(|known| !KeyRing::needs(*known, configured)) {
            let clients = self.oauth.clients_signed_with(algorithm).await?;
            if clients > 0 {
                return Err(KeyError::ClientsNeed { kid: kid.to_owned(), algorithm, clients });
            }
        }
        let done = self.keys.retire(kid, configured, &self.ledger, Some(by)).await?;
        self.tell_revocation(kid).await;
        Ok(done)
    }

    /// The algorithm of the key that signs tokens with it, if this is one.
    fn signs_with(&self, kid: &str) -> Option<SigningAlgorithm> {
        let signs =
            |key: &KeyInfo| *key.kid == *kid && key.key_use == KeyUse::Sig && key.state == KeyState::Active;
        self.keys.list().into_iter().find(signs).and_then(|key| SigningAlgorithm::parse(key.alg))
    }

    /// Rejects a key, with every token under it.
    ///
    /// # Errors
    /// As [`systemprompt_security::keys::KeyRing::revoke`].
    pub async fn revoke_key(&self, kid: &str, by: &RequestContext) -> Result<KeyInfo, KeyError> {
        let done = self.keys.revoke(kid, &self.ledger, Some(by)).await?;
        self.tell_revocation(kid).await;
        Ok(done)
    }

    fn configured_algorithm(&self) -> SigningAlgorithm {
        crate::boot::algorithm(self.config().profile.security.signing_algorithm)
    }
}
