//! `/api/v1/core/users/me`: what a person sees and changes of themselves.

pub mod credentials;
pub mod me;
pub mod sessions;

use crate::services::server::route::Route;
use systemprompt_models::{Code, Refusal};
use systemprompt_oauth::{ErrorCode, OauthError};

/// Every route of a person about themselves.
pub fn routes() -> Vec<Route> {
    let mut routes = me::routes();
    routes.extend(sessions::routes());
    routes.extend(credentials::routes());
    routes
}

/// A refusal of the identity plane as our own API tells it.
pub fn refused(error: OauthError) -> crate::Error {
    let code = match error.code() {
        ErrorCode::Conflict => Code::Conflict,
        ErrorCode::LoginRequired | ErrorCode::AccessDenied | ErrorCode::InvalidCredential => Code::Denied,
        ErrorCode::TemporarilyUnavailable | ErrorCode::ServerError => return broken(error),
        _ => Code::InvalidRequest,
    };
    Refusal::new(code, error.description().into_owned()).into()
}

fn broken(error: OauthError) -> crate::Error {
    match error {
        OauthError::Ledger(error) => error.into(),
        OauthError::Throttled { retry_after } => {
            Refusal::new(Code::RateLimited, "too many attempts").with_retry_after(retry_after).into()
        }
        other => crate::Error::internal(other),
    }
}

/// There is no such thing, or it is somebody else's: both look the same.
fn missing(what: &str) -> crate::Error {
    Refusal::new(Code::NotFound, format!("you have no such {what}")).into()
}
