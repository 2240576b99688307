//! The answer of the authorization endpoint: parameters for the client's redirect URI (RFC 6749 section 4.1.2, RFC 9207).

use super::request::AuthorizationRequest;
use crate::error::OauthError;
use crate::models::oauth::ResponseMode;
use systemprompt_models::Secret;
use url::Url;
use url::form_urlencoded::Serializer;

/// Parameters on their way to a client.
pub struct Answer {
    pub redirect_uri: String,
    pub mode: ResponseMode,
    pub ui_locales: Option<String>,
    pairs: Vec<(&'static str, Secret<String>)>,
}

impl Answer {
    /// An answer with a code, against which the record of the authorization is durable.
    pub(crate) fn code(issuer: &str, asked: &AuthorizationRequest, code: Secret<String>) -> Self {
        Self::new(issuer, asked, vec![("code", code)])
    }

    pub(crate) fn error(issuer: &str, asked: &AuthorizationRequest, error: &OauthError) -> Self {
        let pairs = vec![
            ("error", Secret::from(error.code().as_str())),
            ("error_description", Secret::from(&*error.description())),
        ];
        Self::new(issuer, asked, pairs)
    }

    fn new(
        issuer: &str,
        asked: &AuthorizationRequest,
        mut pairs: Vec<(&'static str, Secret<String>)>,
    ) -> Self {
        if let Some(state) = &asked.state {
            pairs.push(("state", Secret::from(state.as_str())));
        }
        // In every answer, so that no client takes it for that of another server.
        pairs.push(("iss", Secret::from(issuer)));
        Self {
            redirect_uri: asked.redirect_uri.clone(),
            mode: asked.response_mode,
            ui_locales: asked.ui_locales.clone(),
            pairs,
        }
    }

    /// The redirect URI with the parameters behind its own query.
    pub fn location(&self) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in &self.pairs {
            query.append_pair(name, value.expose());
        }
        let joint = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{joint}{}", self.redirect_uri, query.finish())
    }

    /// The parameters as fields of a form.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        self.pairs.iter().map(|(name, value)| (*name, value.expose().clone())).collect()
    }
}

/// The host of a redirect URI, or its scheme where it has none; what a person is shown and the record names.
pub fn host_of(uri: &str) -> String {
    match Url::parse(uri) {
        Ok(url) => match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) => {
                url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
            }
            (scheme, _) => format!("{scheme}:"),
        },
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_129_what_the_client_sent_comes_back_unchanged() {
        for state in ["x", "a b+c&d=e%00", "ä€😀", &"s".repeat(4096)] {
            let asked = asked("https://app.example/cb?keep=1", Some(state));
            let location = Answer::code("http://localhost", &asked, Secret::from("ac_1")).location();
            assert!(location.starts_with("https://app.example/cb?keep=1&code=ac_1&"));
            let url = Url::parse(&location).unwrap();
            let back = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
            assert_eq!(back, state);
            assert_eq!(url.query_pairs().last().unwrap().1, "http://localhost");
        }
    }

    #[test]
    fn hosts_are_what_a_person_can_judge() {
        for (uri, want) in [
            ("https://app.example/cb", "app.example"),
            ("http://127.0.0.1:3000/cb", "127.0.0.1:3000"),
            ("com.example.app:/cb", "com.example.app:"),
        ] {
            assert_eq!(host_of(uri), want);
        }
    }

    fn asked(uri: &str, state: Option<&str>) -> AuthorizationRequest {
        AuthorizationRequest {
            client_id: "client".into(),
            redirect_uri: uri.into(),
            redirect_uri_given: true,
            response_mode: ResponseMode::Query,
            state: state.map(str::to_owned),
            nonce: None,
            code_challenge: String::new(),
            scopes: None,
            resources: Vec::new(),
            prompt: Vec::new(),
            max_age: None,
            login_hint: None,
            subject: None,
            claims: crate::services::claims::ClaimsRequest::default(),
            essential_acr: Vec::new(),
            ui_locales: None,
            begun_at: 0,
        }
    }
}
