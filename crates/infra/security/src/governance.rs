//! The governance pipeline: what every tool call and every model request passes after its entity rule (SEC-80 to
//! SEC-87). It decides on the facts of one call and, but for counters that several nodes share, does no I/O; who calls it
//! records the chain that it returns.

pub mod allow;
pub mod argument_rules;
pub mod chain;
pub mod checks;
pub mod extension;
pub mod facts;
mod findings;
pub mod hook_events;
pub mod inference;
pub mod injection;
mod kinds;
pub mod leaks;
mod names;
mod params;
pub mod pii;
pub mod pipeline;
pub mod policy;
pub mod rate_limit;
pub mod replay;
pub mod scan;
pub mod scope_check;
pub mod secret_scan;
mod seen_text;
pub mod tool_blocklist;
mod tool_name;

#[cfg(test)]
mod tests;

pub use allow::{AllowError, AllowList, AllowStore, Allowance, NewAllowance};
pub use chain::{Chain, Denial, Link, LinkResult, Verdict};
pub use checks::GovernanceChecks;
pub use extension::GovernanceExtension;
pub use facts::{CallFacts, Origin, Segment};
pub use hook_events::{HookEventError, HookEvents};
pub use inference::InferenceRequest;
pub use leaks::{Leak, Leaks};
pub use names::Names;
pub use params::ParamError;
pub use pipeline::{ExtensionPolicy, Limits, Parts, Pipeline, PipelineError, Policy};
pub use policy::{GovernancePolicy, Outcome, Reads, Redaction};
pub use rate_limit::{PastCall, RateLimiter};
pub use scan::{Confidence, Finding, FindingClass, SecretScanner, StreamScanner, TooComplex};
