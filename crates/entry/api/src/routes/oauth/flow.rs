//! The cookie that binds what a browser has begun to that browser (ID-42, ID-80).

use http::{HeaderMap, HeaderValue, header};
use systemprompt_models::Secret;
use systemprompt_oauth::constants::{AUTHORIZE_REQUEST_TTL_SECONDS, FLOW_COOKIE, FLOW_PREFIX};
use systemprompt_oauth::{OauthError, OauthResult};
use systemprompt_runtime::AppContext;
use systemprompt_security::extraction::CookieExtractor;
use systemprompt_security::opaque;

/// The flow of a browser.
pub struct Flow {
    pub value: Secret<String>,
}

impl Flow {
    /// The flow that the cookie names, or a new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn of(headers: &HeaderMap) -> OauthResult<Self> {
        let shown = CookieExtractor::new(FLOW_COOKIE).extract(headers).ok();
        match shown.filter(|value| opaque::has_form(FLOW_PREFIX, value.expose())) {
            Some(value) => Ok(Self { value }),
            None => Ok(Self { value: opaque::generate(FLOW_PREFIX).map_err(OauthError::from)? }),
        }
    }

    /// Gives the flow to the browser, for as long as what begins now may take.
    pub fn keep(&self, context: &AppContext, headers: &mut HeaderMap) {
        let secure = if context.oauth.settings().is_insecure() { "" } else { "; Secure" };
        let text = format!(
            "{FLOW_COOKIE}={}; Path=/; Max-Age={AUTHORIZE_REQUEST_TTL_SECONDS}; HttpOnly; SameSite=Lax{secure}",
            self.value.expose()
        );
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.append(header::SET_COOKIE, value);
        }
    }
}
