//! What every layer names: ids, claims and permissions, the principal and its request context, sessions, the clock, secrets,
//! refusals, and the wire envelopes that carry a refusal. No I/O happens here.

pub mod auth;
pub mod clock;
pub mod context;
pub mod envelope;
pub mod hook;
pub mod ids;
pub mod json;
pub mod plugin;
pub mod refusal;
pub mod secret;
pub mod session;
pub mod span;
pub mod tasks;

pub use auth::{
    Actor, AuthenticatedUser, CredentialKind, JwtAudience, JwtClaims, Permission, PermissionError, Principal,
    RateLimitTier, UserType, parse_permissions,
};
pub use clock::{Clock, ManualClock, Millis, SystemClock};
pub use context::RequestContext;
pub use refusal::{Code, Refusal};
pub use secret::Secret;
pub use tasks::Tasks;
