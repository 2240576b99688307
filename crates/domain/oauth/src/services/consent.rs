//! Consent (ID-72 to ID-75): what a person is shown of a client before it acts for them, and what they gave before.

use super::authorize::answer::{Answer, host_of};
use super::authorize::grant::Authorization;
use super::authorize::request::AuthorizationRequest;
use super::authorize::standing::{self, SignedIn};
use super::authorize::{Browser, Next, Refused, refuse, stored};
use super::claims::ASKED;
use super::http::Parameters;
use super::templating::{Frame, Texts, initial};
use crate::at_rest::Label;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::models::oauth::api::Page;
use crate::repository::oauth::grants::GrantListed;
use crate::services::grants;
use crate::state::OAuthState;
use askama::Template;
use subtle::ConstantTimeEq as _;
use systemprompt_audit::{Draft, EntryKind};
use systemprompt_models::auth::OIDC_SCOPES;
use systemprompt_models::{Permission, RequestContext, Secret};

/// Most characters of a client's name that are shown.
const MAX_NAME: usize = 80;

/// One thing that a client may be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeLine {
    pub name: String,
    pub words: &'static str,
    /// Cannot be taken out.
    pub fixed: bool,
    /// Is asked for on its own.
    pub risk: bool,
}

/// The consent page.
#[derive(Template)]
#[template(path = "consent.html")]
pub struct ConsentPage {
    pub frame: Frame,
    pub action: String,
    pub request: String,
    pub csrf: String,
    pub switch: String,
    pub client_name: String,
    pub client_id: String,
    pub initial: String,
    pub logo: Option<String>,
    pub unverified: bool,
    pub any_program: bool,
    pub person_name: String,
    pub person_initial: String,
    pub person_mail: Option<String>,
    pub scopes: Vec<ScopeLine>,
    pub redirect_host: String,
    pub resources: Vec<String>,
    pub policy_uri: Option<String>,
    pub tos_uri: Option<String>,
}

/// A request that waits for a person's word.
pub struct Waiting {
    pub asked: AuthorizationRequest,
    pub client: OAuthClient,
    pub signed_in: Option<SignedIn>,
}

/// The request of this id as it waits.
///
/// # Errors
/// As [`stored`].
pub async fn waiting(state: &OAuthState, browser: Browser<'_>, id: &str) -> OauthResult<Waiting> {
    let (asked, client) = stored(state, browser.flow, id).await?;
    let signed_in = SignedIn::find(state, browser.visitor).await?;
    Ok(Waiting { asked, client, signed_in })
}

/// What binds a form to the session and the request it was made for.
fn csrf(state: &OAuthState, person: &SignedIn, id: &str) -> String {
    state.at_rest.digest(Label::Csrf, &format!("consent {} {id}", person.session.id)).hex
}

impl Waiting {
    /// The person, if the way in which they signed in, and when, is enough for this request: a page that is opened by its address,
    /// or lay open, skips nothing that was asked for.
    pub fn person(&self, state: &OAuthState) -> Option<&SignedIn> {
        let person = self.signed_in.as_ref()?;
        matches!(standing::is_enough(state, &self.asked, person), Ok(true)).then_some(person)
    }

    /// The page of `person`.
    ///
    /// # Errors
    /// When nothing can be granted.
    pub fn page(
        &self,
        state: &OAuthState,
        frame: Frame,
        person: &SignedIn,
        id: &str,
    ) -> OauthResult<ConsentPage> {
        let settings = state.settings();
        let granted = self.grantable(state, person)?;
        let mut name: String = self.client.name.chars().take(MAX_NAME).collect();
        if self.client.name.chars().count() > MAX_NAME {
            name.push('\u{2026}');
        }
        let shown = person.user.display_name.clone().unwrap_or_else(|| person.user.username.clone());
        let is_web = self.asked.redirect_uri.starts_with("https://");
        Ok(ConsentPage {
            action: settings.endpoint("/consent"),
            request: id.to_owned(),
            csrf: csrf(state, person, id),
            switch: format!("/login?request={id}&switch=1"),
            initial: initial(&name),
            client_name: name,
            client_id: self.client.client_id.to_string(),
            logo: crate::services::cimd::logo::address(&settings, &self.client),
            unverified: self.client.is_unverified(),
            any_program: !is_web,
            person_initial: initial(&shown),
            person_name: shown,
            person_mail: person.user.email.clone(),
            scopes: granted.iter().map(|scope| line(frame.t, scope)).collect(),
            redirect_host: host_of(&self.asked.redirect_uri),
            resources: self.asked.resources.clone(),
            policy_uri: self.client.policy_uri.clone().filter(|uri| uri.starts_with("https://")),
            tos_uri: self.client.tos_uri.clone().filter(|uri| uri.starts_with("https://")),
            frame,
        })
    }

    fn grantable(&self, state: &OAuthState, person: &SignedIn) -> OauthResult<Vec<String>> {
        let permissions = state.settings().permissions_of_user(&person.user);
        self.asked.grantable(&self.client, &permissions)
    }
}

pub(crate) fn line(t: &'static Texts, scope: &str) -> ScopeLine {
    let words = match scope {
        "openid" => t.scope_openid,
        "profile" => t.scope_profile,
        "email" => t.scope_email,
        "claims:profile" => t.claims_profile,
        "claims:email" => t.claims_email,
        "offline_access" => t.scope_offline_access,
        "user" => t.scope_user,
        "mcp" => t.scope_mcp,
        "a2a" => t.scope_a2a,
        "admin" => t.scope_admin,
        _ => t.scope_other,
    };
    let risk = scope == Permission::Admin.as_str();
    ScopeLine { name: scope.to_owned(), words, fixed: scope == "openid", risk }
}

/// Carries out what the person decided.
///
/// # Errors
/// A form that is not the one of this session and request, or rows that cannot be read or written.
pub async fn decide(state: &OAuthState, browser: Browser<'_>, form: &Parameters) -> Result<Next, Refused> {
    let id = form.need("request")?;
    let waiting = waiting(state, browser, id).await?;
    let Some(person) = &waiting.signed_in else { return Ok(Next::SignIn(Secret::from(id))) };
    let is_ours = csrf(state, person, id).as_bytes().ct_eq(form.get("csrf").unwrap_or_default().as_bytes());
    if !bool::from(is_ours) {
        return Err(OauthError::new(ErrorCode::AccessDenied, "csrf is not of this page").into());
    }
    match standing::is_enough(state, &waiting.asked, person) {
        Ok(true) => {}
        Ok(false) => return Ok(Next::SignIn(Secret::from(id))),
        Err(error) => return refuse(state, browser, &waiting.asked, error).await,
    }
    if form.get("decision") != Some("allow") {
        return deny(state, browser, &waiting, id).await;
    }
    let granted = match waiting.grantable(state, person) {
        Ok(granted) => granted,
        Err(error) => return refuse(state, browser, &waiting.asked, error).await,
    };
    let scopes: Vec<String> = granted
        .into_iter()
        .filter(|scope| scope == "openid" || form.get(&format!("scope_{scope}")).is_some())
        .collect();
    let is_beside = |scope: &String| {
        (OIDC_SCOPES.contains(&scope.as_str()) && scope != "openid") || scope.starts_with(ASKED)
    };
    if scopes.iter().all(is_beside) {
        return deny(state, browser, &waiting, id).await;
    }
    let authorization = Authorization {
        client: &waiting.client,
        asked: &waiting.asked,
        signed_in: person,
        scopes,
        remembered: false,
        id: Some(id),
    };
    Ok(Next::Client(authorization.grant_with_consent(state, browser.context).await?))
}

async fn deny(
    state: &OAuthState,
    browser: Browser<'_>,
    waiting: &Waiting,
    id: &str,
) -> Result<Next, Refused> {
    let asked = &waiting.asked;
    let draft = Draft::new(EntryKind::OauthConsentDenied, browser.context, "denied")
        .with_subject("oauth_client", waiting.client.client_id.as_str())
        .with("redirect_host", host_of(&asked.redirect_uri));
    state.record(draft).await.map_err(OauthError::from)?;
    let id = state.at_rest.candidates(Label::Par, id);
    if !state.oauth.drop_request((&id.0, &id.1)).await? {
        return Err(OauthError::invalid_grant("the request was answered already").into());
    }
    let error = OauthError::new(ErrorCode::AccessDenied, "the person did not allow it");
    Ok(Next::Client(Answer::error(&state.settings().issuer, asked, &error)))
}

/// A page of the grants of the caller, the newest first.
///
/// # Errors
/// When they cannot be read.
pub async fn grants(state: &OAuthState, user: &str, page: Page<'_>) -> OauthResult<Vec<GrantListed>> {
    Ok(state.oauth.grants_of(user, page, state.now()).await?)
}

/// Takes a grant back, with its consent and every token. Returns false if the person has no such grant.
///
/// # Errors
/// When it cannot be recorded or written.
pub async fn revoke(state: &OAuthState, by: &RequestContext, user: &str, grant: &str) -> OauthResult<bool> {
    let known = state.oauth.find_grant(grant).await?;
    let Some(known) = known.filter(|known| known.user_id == user && known.is_live(state.now())) else {
        return Ok(false);
    };
    let draft = Draft::new(EntryKind::OauthConsentRevoked, by, "ok")
        .with_subject("oauth_client", known.client_id.as_str())
        .with("user_id", user);
    grants::end(state, draft, grant, "revoked", Some((user, &known.client_id))).await
}
