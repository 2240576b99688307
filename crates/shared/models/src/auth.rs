//! Who acts and what they may: claims and permissions of tokens, the users that tokens name, the principal of a request, and what
//! other planes ask the identity plane for.

mod claims;
mod permission;
mod principal;
mod providers;
mod user;

pub use claims::{Actor, JwtAudience, JwtClaims, MAX_ACT_DEPTH};
pub use permission::{
    MAX_PERMISSIONS, OIDC_SCOPES, Permission, PermissionError, RateLimitTier, UserType, parse_permissions,
    scope_of,
};
pub use principal::{CredentialKind, Principal};
pub use providers::{JwtValidationProvider, Provided, ProviderError, UserProvider};
pub use user::AuthenticatedUser;
