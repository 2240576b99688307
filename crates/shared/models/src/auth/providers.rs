//! What planes that are not the identity plane ask it for. It implements these; who asks knows neither its rows nor its keys.

use super::claims::JwtClaims;
use super::user::AuthenticatedUser;
use crate::ids::UserId;
use crate::secret::Secret;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;

/// Why a provider has no answer: what it stands on cannot be read or confirmed.
#[derive(Debug, thiserror::Error)]
#[error("the identity plane cannot answer")]
pub struct ProviderError(#[source] pub Box<dyn Error + Send + Sync>);

/// An answer that is being looked up; `None` where there is nothing that counts.
pub type Provided<'a, T> = Pin<Box<dyn Future<Output = Result<Option<T>, ProviderError>> + Send + 'a>>;

/// Knows which session tokens count.
pub trait JwtValidationProvider: Send + Sync {
    /// The claims of the token of a session, if token and session count now.
    fn validate<'a>(&'a self, token: &'a Secret<String>) -> Provided<'a, JwtClaims>;
}

/// Knows the users.
pub trait UserProvider: Send + Sync {
    /// The user of this id, whatever their status, with what they may now.
    fn user<'a>(&'a self, id: &'a UserId) -> Provided<'a, AuthenticatedUser>;
}
