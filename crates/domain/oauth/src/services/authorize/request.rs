//! Reading an authorization request: client and redirect URI first, because only then there is somebody to tell of an error.

use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::models::oauth::{GrantType, ResponseMode, words};
use crate::services::claims::ClaimsRequest;
use crate::services::http::Parameters;
use crate::services::id_token::check_signer;
use crate::services::validation::{oauth_params, redirect_uri};
use crate::state::OAuthState;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use systemprompt_models::{Millis, Permission};

/// Longest `state` and `nonce`, decoded.
const MAX_ECHO: usize = 4096;
const MAX_LOGIN_HINT: usize = 254;
const MAX_CLAIMS: usize = 4096;
const MAX_AGE: i64 = 1 << 31;

words! {
    /// What the person is to be asked (OpenID Connect Core section 3.1.2.1, and `create`).
    Prompt {
        None = "none";
        Login = "login";
        Consent = "consent";
        SelectAccount = "select_account";
        Create = "create";
    }
}

/// A checked request. It is what the row keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthorizationRequest {
    pub client_id: String,
    pub redirect_uri: String,
    pub redirect_uri_given: bool,
    pub response_mode: ResponseMode,
    pub state: Option<String>,
    pub nonce: Option<String>,
    pub code_challenge: String,
    /// What was asked for and is known; `None` if no scope was.
    pub scopes: Option<String>,
    pub resources: Vec<String>,
    pub prompt: Vec<Prompt>,
    /// Seconds.
    pub max_age: Option<i64>,
    pub login_hint: Option<String>,
    /// The only subject that counts.
    pub subject: Option<String>,
    /// What the `claims` parameter asked for.
    #[serde(default, rename = "claims_asked")]
    pub claims: ClaimsRequest,
    /// Context classes of which one must be met.
    pub essential_acr: Vec<String>,
    pub ui_locales: Option<String>,
    pub begun_at: Millis,
}

impl AuthorizationRequest {
    pub fn asks(&self, prompt: Prompt) -> bool {
        self.prompt.contains(&prompt)
    }

    /// What of the request a client may be given for a person with these permissions, word by word: scopes, and claims beside them.
    ///
    /// # Errors
    /// `invalid_scope` when nothing is left.
    pub fn grantable(&self, client: &OAuthClient, permissions: &[Permission]) -> OauthResult<Vec<String>> {
        let mut words = oauth_params::grantable(self.scopes.as_deref(), client, permissions)?;
        let claims = self.claims.words(&words, client);
        words.extend(claims);
        Ok(words)
    }

    /// Whether nothing may be shown.
    pub fn is_silent(&self) -> bool {
        self.asks(Prompt::None)
    }
}

/// A redirect URI that counts.
#[derive(Clone, Debug)]
pub struct Redirect {
    pub uri: String,
    pub given: bool,
}

impl Redirect {
    /// A request of which only that is known by which an error is told.
    pub fn for_error(&self, client: &OAuthClient, parameters: &Parameters) -> AuthorizationRequest {
        let response_mode = parameters.get("response_mode").and_then(ResponseMode::parse);
        let response_mode = response_mode.unwrap_or(ResponseMode::Query);
        let state = parameters.get("state").filter(|text| text.len() <= MAX_ECHO);
        AuthorizationRequest {
            client_id: client.client_id.to_string(),
            redirect_uri: self.uri.clone(),
            redirect_uri_given: self.given,
            response_mode,
            state: state.filter(|text| response_mode.carries(text)).map(str::to_owned),
            nonce: None,
            code_challenge: String::new(),
            scopes: None,
            resources: Vec::new(),
            prompt: Vec::new(),
            max_age: None,
            login_hint: None,
            subject: None,
            claims: ClaimsRequest::default(),
            essential_acr: Vec::new(),
            ui_locales: parameters.get("ui_locales").map(str::to_owned),
            begun_at: 0,
        }
    }
}

/// The redirect URI of a request.
///
/// # Errors
/// `invalid_redirect_uri` for one that is not registered, or none where more than one is.
pub fn redirect_uri(client: &OAuthClient, parameters: &Parameters) -> OauthResult<Redirect> {
    let registered = &client.relations.redirect_uris;
    let wrong = |why: &'static str| OauthError::new(ErrorCode::InvalidRedirectUri, why);
    match (parameters.get("redirect_uri"), registered.as_slice()) {
        (Some(uri), all) if all.iter().any(|known| redirect_uri::matches(known, uri)) => {
            Ok(Redirect { uri: uri.to_owned(), given: true })
        }
        (Some(_), _) => Err(wrong("redirect_uri is not registered for this client")),
        (None, [one]) => Ok(Redirect { uri: one.clone(), given: false }),
        (None, _) => Err(wrong("redirect_uri is missing")),
    }
}

/// Reads everything else.
///
/// # Errors
/// What the client is told.
pub fn read(
    state: &OAuthState,
    client: &OAuthClient,
    redirect: Redirect,
    parameters: &Parameters,
    is_pushed: bool,
) -> OauthResult<AuthorizationRequest> {
    let settings = state.settings();
    if !client.has_grant(GrantType::AuthorizationCode) {
        return Err(OauthError::new(
            ErrorCode::UnauthorizedClient,
            "this client may not use the authorization endpoint",
        ));
    }
    for (name, code) in [
        ("request", ErrorCode::RequestNotSupported),
        ("request_uri", ErrorCode::RequestUriNotSupported),
        ("registration", ErrorCode::RegistrationNotSupported),
    ] {
        if parameters.get(name).is_some() && !(is_pushed && name == "request_uri") {
            return Err(OauthError::new(code, format!("{name} is not supported")));
        }
    }
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => {
            return Err(OauthError::new(ErrorCode::UnsupportedResponseType, "response_type must be code"));
        }
        None => return Err(OauthError::invalid_request("response_type is missing")),
    }
    let response_mode = match parameters.get("response_mode") {
        None => ResponseMode::Query,
        Some(mode) => ResponseMode::parse(mode)
            .ok_or_else(|| OauthError::invalid_request("response_mode is query or form_post"))?,
    };
    if parameters.get("state").is_some_and(|state| !response_mode.carries(state)) {
        return Err(OauthError::invalid_request(
            "state holds a character that response_mode form_post does not carry",
        ));
    }
    let echoed = |name: &'static str| match parameters.get(name) {
        Some(value) if value.len() > MAX_ECHO => {
            Err(OauthError::invalid_request(format!("{name} has more than 4096 bytes")))
        }
        value => Ok(value.map(str::to_owned)),
    };
    let code_challenge = challenge(parameters)?;
    let (claims, parameter) = claims(parameters)?;
    let scopes = oauth_params::known_scopes(parameters.get("scope"))?;
    let asks_openid = scopes.as_deref().is_none_or(|words| words.split(' ').any(|word| word == "openid"));
    if asks_openid && client.has_scope("openid") {
        check_signer(state, client)?;
    }
    Ok(AuthorizationRequest {
        client_id: client.client_id.to_string(),
        redirect_uri: redirect.uri,
        redirect_uri_given: redirect.given,
        response_mode,
        state: echoed("state")?,
        nonce: echoed("nonce")?,
        code_challenge,
        scopes,
        resources: oauth_params::resources(&settings, parameters)?,
        prompt: prompt(parameters, settings.allow_registration)?,
        max_age: max_age(parameters)?,
        login_hint: parameters
            .get("login_hint")
            .filter(|hint| hint.len() <= MAX_LOGIN_HINT)
            .map(str::to_owned),
        subject: subject(state, parameters, &parameter)?,
        essential_acr: essential_acr(&parameter),
        claims,
        ui_locales: parameters
            .get("ui_locales")
            .filter(|text| text.len() <= MAX_LOGIN_HINT)
            .map(str::to_owned),
        begun_at: state.now(),
    })
}

fn challenge(parameters: &Parameters) -> OauthResult<String> {
    let challenge = parameters.need("code_challenge")?;
    if parameters.get("code_challenge_method") != Some("S256") {
        return Err(OauthError::invalid_request("code_challenge_method must be S256"));
    }
    oauth_params::check_challenge(challenge)?;
    Ok(challenge.to_owned())
}

fn prompt(parameters: &Parameters, may_create: bool) -> OauthResult<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for word in parameters.get("prompt").unwrap_or_default().split_ascii_whitespace() {
        let prompt = Prompt::parse(word).filter(|prompt| *prompt != Prompt::Create || may_create);
        let prompt = prompt.ok_or_else(|| OauthError::invalid_request("prompt has an unknown value"))?;
        if !prompts.contains(&prompt) {
            prompts.push(prompt);
        }
    }
    if prompts.contains(&Prompt::None) && prompts.len() > 1 {
        return Err(OauthError::invalid_request("prompt none stands alone"));
    }
    Ok(prompts)
}

fn max_age(parameters: &Parameters) -> OauthResult<Option<i64>> {
    let Some(text) = parameters.get("max_age") else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds| (0..=MAX_AGE).contains(seconds));
    seconds.map(Some).ok_or_else(|| OauthError::invalid_request("max_age is a number of seconds"))
}

/// The `claims` parameter (OpenID Connect Core section 5.5).
fn claims(parameters: &Parameters) -> OauthResult<(ClaimsRequest, Value)> {
    let Some(text) = parameters.get("claims") else { return Ok(Default::default()) };
    let read = (text.len() <= MAX_CLAIMS).then(|| ClaimsRequest::read(text)).flatten();
    read.ok_or_else(|| {
        OauthError::invalid_request("claims is not a JSON object of objects of at most 4096 bytes")
    })
}

/// The only subject that counts: that of the hint, or that which the `claims` parameter names.
fn subject(state: &OAuthState, parameters: &Parameters, claims: &Value) -> OauthResult<Option<String>> {
    let wanted = claims.pointer("/id_token/sub/value").and_then(Value::as_str);
    let hinted = match parameters.get("id_token_hint") {
        None => None,
        Some(hint) => {
            let known = state.verifier.verify_id_token(hint).ok();
            let subject = known.as_ref().and_then(|claims| claims.get("sub")).and_then(Value::as_str);
            let subject = subject
                .ok_or_else(|| OauthError::invalid_request("id_token_hint is no ID token of this server"))?;
            Some(subject.to_owned())
        }
    };
    match (hinted, wanted) {
        (Some(hinted), Some(wanted)) if hinted != wanted => {
            Err(OauthError::invalid_request("id_token_hint and claims name different subjects"))
        }
        (hinted, wanted) => Ok(hinted.or_else(|| wanted.map(str::to_owned))),
    }
}

/// The values of an essential `acr` claim; without values any class is enough.
fn essential_acr(claims: &Value) -> Vec<String> {
    let Some(acr) = claims.pointer("/id_token/acr") else { return Vec::new() };
    if acr.get("essential") != Some(&Value::Bool(true)) {
        return Vec::new();
    }
    let one = acr.get("value").into_iter();
    let many = acr.get("values").and_then(Value::as_array).into_iter().flatten();
    one.chain(many).filter_map(Value::as_str).map(str::to_owned).collect()
}
