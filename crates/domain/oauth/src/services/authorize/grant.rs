//! Giving a code: the record, the grant, the code and the consent that it rests on are one unit of the ledger.

use super::answer::{Answer, host_of};
use super::request::AuthorizationRequest;
use super::standing::SignedIn;
use crate::at_rest::Label;
use crate::constants::{AUTH_CODE_PREFIX, AUTH_CODE_TTL_SECONDS};
use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::repository::oauth::authorize::{NewCode, NewGrant, take_request};
use crate::repository::oauth::scopes::{self, Consent};
use crate::services::scopes::{Cuts, Scopes};
use crate::state::OAuthState;
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_models::RequestContext;
use systemprompt_models::ids::GrantId;
use systemprompt_security::opaque;
use systemprompt_security::session::session_lives;

/// What a person allows a client.
pub(crate) struct Authorization<'a> {
    pub client: &'a OAuthClient,
    pub asked: &'a AuthorizationRequest,
    pub signed_in: &'a SignedIn,
    pub scopes: Vec<String>,
    /// Whether an earlier consent counts, which must still do so when the code is given.
    pub remembered: bool,
    /// The stored request, which is used up.
    pub id: Option<&'a str>,
}

impl Authorization<'_> {
    /// Gives a code without a consent of this moment.
    pub(crate) async fn grant(self, state: &OAuthState, context: &RequestContext) -> OauthResult<Answer> {
        let mut unit = Unit::new();
        if self.remembered {
            unit.require(scopes::used(self.consent_key(), state.now()));
        }
        self.give(state, context, unit).await
    }

    /// Gives a code on a consent that is recorded with it.
    pub(crate) async fn grant_with_consent(
        self,
        state: &OAuthState,
        context: &RequestContext,
    ) -> OauthResult<Answer> {
        let mut unit = Unit::new();
        let consent = Consent {
            scopes: self.scopes.join(" "),
            resources: self.asked.resources.join(" "),
            metadata_digest: self.client.metadata_digest.clone(),
        };
        unit.record(self.draft(state, EntryKind::OauthConsentGiven, context));
        unit.require(scopes::give(self.consent_key(), &consent, state.now()));
        self.give(state, context, unit).await
    }

    async fn give(
        &self,
        state: &OAuthState,
        context: &RequestContext,
        mut unit: Unit,
    ) -> OauthResult<Answer> {
        let settings = state.settings();
        let now = state.now();
        let (asked, person) = (self.asked, self.signed_in);
        let code = opaque::generate(AUTH_CODE_PREFIX)?;
        let digest = state.at_rest.digest(Label::AuthCode, code.expose());
        let grant_id = GrantId::generate();
        if let Some(id) = self.id {
            let (present, previous) = state.at_rest.candidates(Label::Par, id);
            unit.require(take_request((&present, &previous)));
        }
        unit.require(session_lives(&person.session.id, now));
        let has = |word: &str| self.scopes.iter().any(|scope| scope == word);
        let family = i64::from(settings.identity.refresh.absolute) * 1000;
        unit.record(
            self.draft(state, EntryKind::OauthAuthorized, context).with("grant_id", grant_id.as_str()),
        );
        unit.open(NewGrant {
            grant_id: grant_id.to_string(),
            user_id: person.user.id.to_string(),
            client_id: self.client.client_id.to_string(),
            session_id: Some(person.session.id.to_string()),
            kind: "code",
            scopes: self.scopes.join(" "),
            resources: asked.resources.join(" "),
            offline: has("offline_access") || !has("openid"),
            created_at: now,
            family_expires_at: now + family,
            claims: asked.claims.to_store(),
        });
        unit.open(NewCode {
            code_digest: digest.hex,
            client_id: self.client.client_id.to_string(),
            user_id: person.user.id.to_string(),
            session_id: person.session.id.to_string(),
            grant_id: grant_id.to_string(),
            redirect_uri: asked.redirect_uri.clone(),
            redirect_uri_given: asked.redirect_uri_given,
            code_challenge: asked.code_challenge.clone(),
            scopes: self.scopes.join(" "),
            resources: asked.resources.join(" "),
            nonce: asked.nonce.clone(),
            claims: asked.claims.to_store(),
            auth_time: person.auth_time(),
            acr: person.session.acr.clone(),
            amr: person.session.amr.clone(),
            pepper_id: digest.pepper_id.to_string(),
            created_at: now,
            expires_at: now + AUTH_CODE_TTL_SECONDS * 1000,
        });
        match state.ledger.commit(unit).await {
            // The permit vouches for the record; the code leaves against it.
            Ok(_permit) => Ok(Answer::code(&settings.issuer, asked, code)),
            Err(LedgerError::Guard(_)) => Err(OauthError::invalid_grant(
                "the request was answered already, or the consent or the sign-in was taken back",
            )),
            Err(error) => Err(error.into()),
        }
    }

    fn consent_key(&self) -> (&str, &str, &str) {
        (self.signed_in.user.id.as_str(), self.client.client_id.as_str(), &self.asked.redirect_uri)
    }

    /// What of the asked scope the client, the user's permissions and the person themselves left out.
    fn cuts(&self, state: &OAuthState) -> Cuts {
        let mut cuts = Cuts::default();
        let Some(asked) = self.asked.scopes.as_deref().map(Scopes::of) else { return cuts };
        let of_client = asked.clone().and(&Scopes::of_client(self.client));
        cuts.note("client", &asked, &of_client);
        let of_user =
            of_client.clone().permitted(&state.settings().permissions_of_user(&self.signed_in.user));
        cuts.note("user", &of_client, &of_user);
        cuts.note("person", &of_user, &of_user.clone().and(&Scopes::of(&self.scopes.join(" "))));
        cuts
    }

    fn draft(&self, state: &OAuthState, kind: EntryKind, context: &RequestContext) -> Draft {
        let person = self.signed_in;
        Draft::new(kind, context, "ok")
            .with_subject("oauth_client", self.client.client_id.as_str())
            .with("user_id", person.user.id.as_str())
            .with("session_id", person.session.id.as_str())
            .with("redirect_host", host_of(&self.asked.redirect_uri))
            .with("scopes_asked", self.asked.scopes.clone().unwrap_or_default())
            .with("scopes", self.scopes.join(" "))
            .with("cut", self.cuts(state))
            .with("resources", self.asked.resources.join(" "))
            .with("acr", person.session.acr.clone().unwrap_or_default())
    }
}
