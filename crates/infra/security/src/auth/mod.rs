//! Who makes a request: the credential is taken from it, verified, and turned into a principal.

pub mod api_key;
mod cache;
pub mod csrf;
pub mod hook_token;
mod present;
pub mod validation;

pub use api_key::{ApiKeyError, ApiKeyFuture, ApiKeyProvider, VerifiedKey};
pub use hook_token::{HookTokenError, HookTokenValidator, ValidatedHookClaims};
pub use validation::{AuthMode, AuthValidationService, Authenticated, CredentialSource, Shown};
