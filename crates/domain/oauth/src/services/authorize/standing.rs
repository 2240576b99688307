//! Where a request stands: must the person sign in, must they consent, or is everything there.

use super::request::{AuthorizationRequest, Prompt};
use crate::constants::SP_WEB;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::repository::oauth::scopes::Consent;
use crate::state::OAuthState;
use crate::users::{User, UserStatus};
use systemprompt_models::Principal;
use systemprompt_models::session::SessionSource;
use systemprompt_security::session::SessionRow;

/// A person with the browser session in which they signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub user: User,
    pub session: SessionRow,
}

impl SignedIn {
    /// The person of a browser's session, if both count.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn find(state: &OAuthState, visitor: Option<&Principal>) -> OauthResult<Option<Self>> {
        let Some(visitor) = visitor else { return Ok(None) };
        let session = state.sessions.find(&visitor.session_id).await?;
        let session = session.filter(|session| {
            session.source == Some(SessionSource::Web)
                && session.is_live(state.now())
                && session.auth_time.is_some()
        });
        let Some(session) = session else { return Ok(None) };
        let user = state.users.find(visitor.user_id.as_str()).await?;
        let user = user
            .filter(|user| user.status == UserStatus::Active && session.user_id.as_ref() == Some(&user.id));
        Ok(user.map(|user| Self { user, session }))
    }

    /// Epoch seconds.
    pub fn auth_time(&self) -> i64 {
        self.session.auth_time.unwrap_or_default()
    }
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    Nothing {
        scopes: Vec<String>,
        remembered: bool,
    },
    SignIn,
    /// The person must look at the consent page.
    Consent,
    /// The person must look at the same page though they have consented: to choose the account, or because anybody on their computer
    /// could take the answer.
    Look,
}

impl Need {
    /// What a request that may show nothing is refused with.
    pub fn refusal(&self) -> Option<ErrorCode> {
        match self {
            Self::Nothing { .. } => None,
            Self::SignIn => Some(ErrorCode::LoginRequired),
            Self::Consent => Some(ErrorCode::ConsentRequired),
            Self::Look => Some(ErrorCode::InteractionRequired),
        }
    }
}

/// What a request still needs.
///
/// # Errors
/// What the client is told, or rows that cannot be read.
pub async fn need(
    state: &OAuthState,
    client: &OAuthClient,
    asked: &AuthorizationRequest,
    signed_in: Option<&SignedIn>,
) -> OauthResult<Need> {
    let Some(person) = signed_in else { return Ok(Need::SignIn) };
    if !is_enough(state, asked, person)? {
        return Ok(Need::SignIn);
    }
    let permissions = state.settings().permissions_of_user(&person.user);
    let scopes = asked.grantable(client, &permissions)?;
    if asked.asks(Prompt::SelectAccount) {
        return Ok(Need::Look);
    } else if asked.asks(Prompt::Consent) {
        return Ok(Need::Consent);
    } else if client.client_id.as_str() == SP_WEB {
        return Ok(Need::Nothing { scopes, remembered: false });
    }
    let (user, redirect) = (person.user.id.as_str(), asked.redirect_uri.as_str());
    let consent = state.oauth.consent(user, client.client_id.as_str(), redirect).await?;
    let covers = consent.is_some_and(|consent| covers(&consent, client, &scopes, &asked.resources));
    Ok(match (covers, is_assured(client, &asked.redirect_uri)) {
        (true, true) => Need::Nothing { scopes, remembered: true },
        (true, false) => Need::Look,
        (false, _) => Need::Consent,
    })
}

/// Whether the sign-in is the right one and fresh enough.
pub(crate) fn is_enough(
    state: &OAuthState,
    asked: &AuthorizationRequest,
    person: &SignedIn,
) -> OauthResult<bool> {
    let is_fresh = person.session.created_at >= asked.begun_at;
    let wants_fresh = asked.asks(Prompt::Login) || asked.asks(Prompt::Create);
    let is_old = asked.max_age.is_some_and(|most| state.clock.now_seconds() - person.auth_time() > most);
    if !is_fresh && (wants_fresh || is_old || asked.max_age == Some(0)) {
        return Ok(false);
    }
    let is_other = asked.subject.as_deref().is_some_and(|subject| subject != person.user.id.as_str());
    if is_other {
        return if is_fresh {
            Err(OauthError::new(ErrorCode::LoginRequired, "another person has signed in"))
        } else {
            Ok(false)
        };
    }
    let acr = person.session.acr.as_deref().unwrap_or_default();
    if asked.essential_acr.is_empty() || asked.essential_acr.iter().any(|wanted| wanted == acr) {
        Ok(true)
    } else if is_fresh || asked.is_silent() {
        Err(OauthError::new(ErrorCode::UnmetAuthenticationRequirements, "the sign-in has another acr"))
    } else {
        Ok(false)
    }
}

/// Whether whoever receives the answer is surely the client: it has a secret, or a host of its own.
fn is_assured(client: &OAuthClient, redirect_uri: &str) -> bool {
    !client.first_party && (!client.is_public() || redirect_uri.starts_with("https://"))
}

/// Who asks for no resource gets a token for all of them: that is more than any of them.
fn covers_resources(given: &str, asked: &[String]) -> bool {
    given.is_empty()
        || (!asked.is_empty() && asked.iter().all(|one| given.split(' ').any(|known| known == one)))
}

fn covers(consent: &Consent, client: &OAuthClient, scopes: &[String], resources: &[String]) -> bool {
    let has = |list: &str, wanted: &String| list.split(' ').any(|known| known == wanted);
    consent.metadata_digest == client.metadata_digest
        && scopes.iter().all(|scope| has(&consent.scopes, scope))
        && covers_resources(&consent.resources, resources)
}

#[cfg(test)]
mod tests {
    use super::covers_resources;

    #[test]
    fn a_consent_for_one_resource_is_none_for_everything() {
        for (given, asked, want) in [
            ("", "", true),
            ("", "a", true),
            ("a b", "a", true),
            ("a b", "b a", true),
            ("a", "a b", false),
            ("a", "", false),
            ("ab", "a", false),
        ] {
            let asked: Vec<String> = asked.split_whitespace().map(str::to_owned).collect();
            assert_eq!(covers_resources(given, &asked), want, "{given}: {asked:?}");
        }
    }
}
