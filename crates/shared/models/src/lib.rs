//! What every layer names: ids, claims and permissions, the principal and its request context, the clock, secrets,
//! refusals, and the wire envelopes that carry a refusal. No I/O happens here.

pub mod claims;
pub mod clock;
pub mod context;
pub mod envelope;
pub mod hook;
pub mod ids;
pub mod json;
pub mod permission;
pub mod plugin;
pub mod principal;
pub mod refusal;
pub mod secret;
pub mod span;
pub mod tasks;

pub use claims::{Actor, JwtAudience, JwtClaims};
pub use clock::{Clock, ManualClock, Millis, SystemClock};
pub use context::RequestContext;
pub use permission::{Permission, PermissionError, RateLimitTier, UserType, parse_permissions};
pub use principal::{AuthenticatedUser, CredentialKind, Principal};
pub use refusal::{Code, Refusal};
pub use secret::Secret;
pub use tasks::Tasks;
