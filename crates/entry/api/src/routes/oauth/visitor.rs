//! Who looks at a page: the session of the cookie, if it counts. A cookie that does not is no error here, the person signs in.

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use std::convert::Infallible;
use std::sync::Arc;
use systemprompt_models::Principal;
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::AuthMode;
use systemprompt_security::jwt::Surface;

/// The session of a browser.
#[derive(Clone, Debug)]
pub struct Visitor(pub Option<Arc<Principal>>);

impl FromRequestParts<AppContext> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, context: &AppContext) -> Result<Self, Infallible> {
        Ok(Self(find(context, &parts.headers).await))
    }
}

async fn find(context: &AppContext, headers: &HeaderMap) -> Option<Arc<Principal>> {
    let found = context.auth.authenticate(headers, Surface::Site, AuthMode::Optional).await.ok()?;
    found.is_in_person().then_some(found)
}
