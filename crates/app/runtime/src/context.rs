//! The application context: everything that a request may need, made once by the boot.

use crate::boot::{self, BootError, BootOptions};
use crate::explain::AuditReads;
use crate::probe::Probe;
use crate::reload::{Asked, Counters};
use crate::streams::StreamSlots;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use systemprompt_audit::Ledger;
use systemprompt_audit::sink::Sinks;
use systemprompt_config::watch::Trigger;
use systemprompt_config::{Loaded, ProcessEnvironment, ProfileLocation};
use systemprompt_database::{Claim, Db};
use systemprompt_events::{Bridge, Hub};
use systemprompt_gateway::ClaudeGatewayService;
use systemprompt_leak::{Hold, Scanner};
use systemprompt_mcp::McpService;
use systemprompt_models::auth::{JwtValidationProvider, UserProvider};
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Clock, Millis, Principal, RequestContext, Tasks, UserType};
use systemprompt_oauth::{ApiKeys, OAuthState, Users};
use systemprompt_security::auth::AuthValidationService;
use systemprompt_security::authz::{DecisionService, GovernanceDecisionRepository, RuleStore};
use systemprompt_security::bans::BanStore;
use systemprompt_security::governance::{AllowStore, HookEvents, Parts};
use systemprompt_security::jwt::{AssertionIssuer, JwtService};
use systemprompt_security::keys::KeyRing;
use systemprompt_security::nodes::Nodes;
use systemprompt_security::plane::DecisionPlane;
use systemprompt_security::services::RefusalCounts;
use systemprompt_security::session::{SessionGenerator, Sessions};
use systemprompt_security::standard_webhooks::Replays;

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    Draining,
}

/// A booted node. Clones are the same one.
#[derive(Clone)]
pub struct AppContext(Arc<Inner>);

/// The parts of a node; [`AppContext`] derefs to them.
pub struct Inner {
    pub(crate) config: ArcSwap<Loaded>,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub db: Db,
    pub(crate) database_probe: Probe,
    pub hub: Hub,
    /// Tells the other nodes what changed here, and hears what changed there.
    pub bridge: Bridge,
    pub ledger: Ledger,
    pub leak: Scanner,
    pub rules: RuleStore,
    pub bans: BanStore,
    /// Findings of the governance scan that are let pass.
    pub allowed: AllowStore,
    /// Refusals of callers who are nobody yet, until the minute's record.
    pub refusals: RefusalCounts,
    pub plane: DecisionPlane,
    pub decisions: GovernanceDecisionRepository,
    /// Decides for other installations.
    pub decisions_for_others: DecisionService,
    pub(crate) pipeline_parts: Parts,
    pub users: Users,
    /// Who a user is, for whoever names one.
    pub people: Arc<dyn UserProvider>,
    pub api_keys: ApiKeys,
    /// The authorization server.
    pub oauth: OAuthState,
    pub auth: Arc<AuthValidationService>,
    /// What the tokens of sessions say, for pages and programs that keep theirs.
    pub session_claims: Arc<dyn JwtValidationProvider>,
    /// What hooks of coding agents tell.
    pub hook_events: HookEvents,
    /// This node among the others of its database.
    pub nodes: Nodes,
    /// Messages of the inference hook that were taken.
    pub replays: Replays,
    pub sessions: Arc<Sessions>,
    pub session_tokens: SessionGenerator,
    pub admin_tokens: JwtService,
    /// Makes assertions for tool servers and other nodes.
    pub assertions: AssertionIssuer,
    pub keys: KeyRing,
    pub gateway: ClaudeGatewayService,
    pub mcp: McpService,
    pub started_at: Millis,
    /// Places among the event streams of this node.
    pub streams: StreamSlots,
    /// Places among those who follow the ledger, and among exports.
    pub tails: StreamSlots,
    pub exports: StreamSlots,
    pub sinks: Sinks,
    pub(crate) audit_reads: AuditReads,
    pub(crate) holds: ArcSwap<Vec<Hold>>,
    pub(crate) phase: AtomicU8,
    pub(crate) reload_trigger: ArcSwapOption<Trigger<Asked>>,
    pub(crate) reload_counters: Counters,
    /// Why the last reload was refused, until one is accepted.
    pub(crate) reload_error: ArcSwapOption<String>,
    /// The right to serve the database, until the node is closed.
    pub(crate) claim: Mutex<Option<Claim>>,
}

impl std::ops::Deref for AppContext {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl std::fmt::Debug for AppContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppContext").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl AppContext {
    /// Boots the profile that is found from the current folder.
    ///
    /// # Errors
    /// The step that failed, why, and what mends it.
    pub async fn new() -> Result<Self, BootError> {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let location = ProfileLocation::discover(None, None, &here, &ProcessEnvironment)?;
        boot::boot(BootOptions::new(location)).await
    }

    /// Boots with options.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub async fn boot(options: BootOptions) -> Result<Self, BootError> {
        boot::boot(options).await
    }

    pub(crate) fn of(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Whether the database answers, or did within the last second.
    pub async fn database_answers(&self) -> bool {
        self.database_probe.answers(self.clock.now(), async || self.db.ping().await.is_ok()).await
    }

    /// Whether a policy of this node makes findings of this name.
    pub fn knows_rule(&self, id: &str) -> bool {
        self.0.pipeline_parts.knows_rule(id)
    }

    /// The configuration in force; a request keeps the one that it began with.
    pub fn config(&self) -> Arc<Loaded> {
        self.0.config.load_full()
    }

    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Probes say ready from now on.
    pub fn set_ready(&self) {
        let _ = self.0.phase.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Probes say no from now on.
    pub fn set_draining(&self) {
        self.0.phase.store(2, Ordering::Release);
    }

    /// Name of this node.
    pub fn instance_id(&self) -> String {
        boot::instance_id(&self.config())
    }

    /// Why the last reload was refused, if it was.
    pub fn reload_error(&self) -> Option<String> {
        self.0.reload_error.load_full().map(|text| text.as_str().to_owned())
    }

    /// The context of what the node does by itself.
    pub fn system_context(&self) -> RequestContext {
        let mut principal = Principal::anonymous();
        principal.user_id = "system".into();
        principal.user_type = UserType::Service;
        RequestContext::new(Arc::new(principal), TraceId::generate())
    }
}
