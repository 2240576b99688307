//! Who looks at a page: the session of the cookie, if it counts. A cookie that does not is no error here, the person signs in. And
//! who comes with a bearer token to an endpoint that reads no cookie (ID-4).

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use systemprompt_models::Principal;
use systemprompt_oauth::OauthResult;
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

/// Whose bearer token the `Authorization` header holds. A token that does not count stays one, whatever cookie comes with it.
///
/// # Errors
/// No token, one that does not count, or revocation that cannot be confirmed.
pub async fn of_bearer(
    context: &AppContext,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> OauthResult<Arc<Principal>> {
    let alone: HeaderMap = headers
        .get(header::AUTHORIZATION)
        .map(|value| (header::AUTHORIZATION, value.clone()))
        .into_iter()
        .collect();
    let found = context.auth.identify_from(&alone, Surface::Api, AuthMode::Required, address).await?;
    Ok(found.principal)
}
