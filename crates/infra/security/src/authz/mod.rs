//! Who may use what: entities, rules, the compiled resolver, the decision hook and the audit of decisions.

pub mod audit;
pub mod declared;
pub mod draft;
pub mod error;
pub mod explain;
pub mod extension;
pub mod hook;
pub mod ingestion;
pub mod replay;
pub mod repository;
pub mod resolver;
pub mod runtime;
pub mod store;
pub mod types;
pub mod webhook;
pub mod webhook_server;
pub mod words;

pub use audit::db_sink::DbAuditSink;
pub use audit::repository::{GovernanceDecision, GovernanceDecisionRepository, insert_governance_decision};
pub use audit::{AuthzAuditSink, AuthzSource, NullAuditSink};
pub use declared::{DECLARED, Declared, DeclaredChanges};
pub use error::{AuthzBootstrapError, AuthzError};
pub use extension::AuthzExtension;
pub use hook::{AllowAllHook, AuthzDecisionHook, DenyAllHook, HookParts, RuleHook};
pub use ingestion::{AccessControlIngestionService, IngestOptions, IngestReport};
pub use repository::{AccessControlRepository, UpsertRuleParams};
pub use resolver::{CompiledPrincipal, RuleSet, resolve};
pub use runtime::{clear_global_hook, global_hook, install_from_governance_config, install_global_hook};
pub use store::{RuleLimits, RuleStore};
pub use types::{
    Access, AccessRule, ActorsCounted, AuthzDecision, AuthzRequest, CallInfo, Decision, Department, Entity,
    EntityKind, EntityRef, Matched, RuleType, Told,
};
pub use webhook::WebhookHook;
pub use webhook_server::DecisionService;
