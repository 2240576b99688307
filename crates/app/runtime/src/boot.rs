//! The order of the boot (PL-6): each step is named, timed, and fails with its cause and its remedy.

mod error;

use crate::context::{AppContext, Inner};
use crate::probe::Probe;
use crate::reload::Counters;
use crate::{lifecycle, reload, rooms};
use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::hmac;
pub use error::BootError;
use std::path::PathBuf;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use systemprompt_audit::{Draft, EntryKind, GroupOptions, Ledger, LedgerOptions, Table, Unit};
use systemprompt_config::profile::database::DatabaseKind;
use systemprompt_config::profile::security::SigningAlgorithm as ConfiguredAlgorithm;
use systemprompt_config::{LoadOptions, Loaded, ProfileLocation, validate};
use systemprompt_database::{Claim, Db, Engine, migrate};
use systemprompt_events::{Bridge, Hub};
use systemprompt_gateway::{ClaudeGatewayService, GatewayParts};
use systemprompt_leak::{Hold, Scanner};
use systemprompt_mcp::{McpOptions, McpParts, McpService};
use systemprompt_models::ids::{DecisionId, uuid_v7};
use systemprompt_models::{Clock, Millis, SystemClock, Tasks};
use systemprompt_oauth::at_rest::AtRest;
use systemprompt_oauth::services::clients::seed::first_party;
use systemprompt_oauth::services::providers::JwtValidationProviderImpl;
use systemprompt_oauth::{ApiKeys, OAuthParts, OAuthState, Settings, Users};
use systemprompt_security::auth::AuthValidationService;
use systemprompt_security::authz::hook::{HookParts, from_config};
use systemprompt_security::authz::webhook_server::own_rules;
use systemprompt_security::authz::words::Words;
use systemprompt_security::authz::{DecisionService, GovernanceDecisionRepository, RuleLimits, RuleStore};
use systemprompt_security::bans::BanStore;
use systemprompt_security::governance::rate_limit::{self, Rate};
use systemprompt_security::governance::{
    AllowStore, GovernanceChecks, HookEvents, Origin, Parts, PastCall, Pipeline, PipelineError, RateLimiter,
    SecretScanner,
};
use systemprompt_security::jwt::{AssertionIssuer, JwtService, Verifier};
use systemprompt_security::keys::{ClassKeys, KeyRing, SigningAlgorithm};
use systemprompt_security::nodes::{NodeName, Nodes};
use systemprompt_security::plane::DecisionPlane;
use systemprompt_security::services::RefusalCounts;
use systemprompt_security::session::{SessionGenerator, Sessions};
use systemprompt_security::standard_webhooks::Replays;

/// How far back the call limit is seeded at start: calls of the last ten minutes are still known by their id.
const SEED_WINDOW_MS: Millis = 600_000;
/// Most calls that it is seeded with: more than this in that time is far beyond the limit anyway.
const SEED_MAX: i64 = 500_000;

/// What to boot.
#[derive(Clone)]
pub struct BootOptions {
    pub location: ProfileLocation,
    /// Settings from the command line, as (dotted key, value).
    pub flags: Vec<(String, String)>,
    /// This binary, which children are started as.
    pub executable: PathBuf,
    /// `PATH` of this process.
    pub path: String,
    pub clock: Arc<dyn Clock>,
    /// Whether configuration files are watched.
    pub watch: bool,
}

impl BootOptions {
    pub fn new(location: ProfileLocation) -> Self {
        let executable = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("systemprompt"));
        let path = systemprompt_config::Environment::get(&systemprompt_config::ProcessEnvironment, "PATH");
        Self {
            location,
            flags: Vec::new(),
            executable,
            path: path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned()),
            clock: Arc::new(SystemClock),
            watch: true,
        }
    }
}

/// Logs each step with its time.
struct Steps(Instant);

impl Steps {
    fn done(&mut self, step: &'static str) {
        let elapsed = self.0.elapsed();
        self.0 = Instant::now();
        tracing::info!(step, elapsed_ms = elapsed.as_millis() as u64, "boot step done");
    }
}

/// The options under which a profile is loaded and checked; the governance room checks its own parameters.
///
/// # Errors
/// When the built-in rules cannot be compiled.
pub fn load_options(options: &BootOptions, parts: &Parts) -> LoadOptions {
    let mut load = LoadOptions::new(options.location.clone());
    load.flags.clone_from(&options.flags);
    load.checks = Arc::new(GovernanceChecks(parts.clone()));
    load.run_commands = true;
    load
}

/// What pipelines are made of before the secrets are read: digests of findings are under a key of this process, and no value is
/// in use.
///
/// # Errors
/// When the built-in rules cannot be compiled.
pub fn pipeline_parts(clock: Arc<dyn Clock>) -> Result<Parts, BootError> {
    let scanner = SecretScanner::builtin().map_err(|e| BootError::Rules(Box::new(e)))?;
    Ok(Parts::new(Arc::new(scanner), Arc::new(RateLimiter::new()), clock))
}

/// The parts of a node: digests of findings are under a key of the deployment, so that they are the same after a restart and on
/// every node (SEC-87), and the pipeline knows the values in use.
fn node_parts(parts: Parts, pepper: &[u8], in_use: Scanner) -> Result<Parts, BootError> {
    let scanner = parts.scanner.with_key(derived(pepper, b"systemprompt/finding-digest/1").as_ref());
    let scanner = Arc::new(scanner.map_err(|e| BootError::Rules(Box::new(e)))?);
    Ok(Parts { scanner, in_use, ..parts })
}

/// A key for one purpose.
fn derived(pepper: &[u8], purpose: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pepper), purpose)
}

/// Boots a node up to the point where it may be told that it is ready.
///
/// # Errors
/// The first step that fails.
pub async fn boot(options: BootOptions) -> Result<AppContext, BootError> {
    let mut steps = Steps(Instant::now());
    let parts = pipeline_parts(Arc::clone(&options.clock))?;
    let load = load_options(&options, &parts);
    let loaded = validate(&load).map_err(BootError::Config)?;
    for warning in &loaded.warnings {
        tracing::warn!(warning = %warning, "configuration");
    }
    steps.done("config");
    boot_loaded(options, load, loaded, parts, steps).await
}

async fn boot_loaded(
    options: BootOptions,
    load: LoadOptions,
    loaded: Loaded,
    parts: Parts,
    mut steps: Steps,
) -> Result<AppContext, BootError> {
    let profile = Arc::clone(&loaded.profile);
    let clock = Arc::clone(&options.clock);
    let tasks = Tasks::default();
    let hub = Hub::default();
    let leak = Scanner::new();
    let holds = hold_values(&leak, &loaded);
    steps.done("secrets");

    let claim = Claim::take(loaded.database_url().expose())?;
    let db = Db::connect(loaded.database_url().expose(), profile.database.max_connections).await?;
    steps.done("database");
    let registry = rooms::registry(&profile.extensions.disabled)?;
    migrate(&db, &registry.migrations()).await?;
    steps.done("migrate");
    let bridge = if profile.database.notifications { Bridge::new(&db) } else { Bridge::default() };

    let jwt_secret = loaded.secrets.jwt_secret().ok_or(BootError::SecretMissing("jwt_secret"))?;
    let pepper =
        loaded.secrets.oauth_at_rest_pepper().ok_or(BootError::SecretMissing("oauth_at_rest_pepper"))?;
    let class_keys = Arc::new(ClassKeys::derive(jwt_secret)?);
    let keys = KeyRing::open(db.clone(), loaded.paths.signing_key_path.clone(), Arc::clone(&clock)).await?;
    steps.done("keys");

    let tables: &'static [&'static Table] = Vec::leak(registry.tables());
    let parts = node_parts(parts, pepper.expose().as_bytes(), leak.clone())?;
    let mut options_of_ledger = ledger_options(&loaded, db.engine(), hub.clone(), &parts);
    options_of_ledger.checkpoints = Some(
        crate::checkpoints::options(&loaded, &db, &keys, &options_of_ledger.node_id, &options.path).await?,
    );
    let ledger = Ledger::start(&db, tables, options_of_ledger, Arc::clone(&clock), &tasks).await?;
    record_start(&ledger).await?;
    keys.ensure(algorithm(profile.security.signing_algorithm), &ledger).await?;
    // A key file that somebody brought along has become the key of tokens only now.
    if let Some(key) = ledger.vkey() {
        crate::checkpoints::refuse_shared(&loaded, &keys, &key)?;
    }
    steps.done("ledger");

    let limits = RuleLimits {
        max_staleness: Millis::from(profile.governance.authz.max_staleness_s) * 1000,
        ..RuleLimits::default()
    };
    let rules =
        RuleStore::load_with(db.clone(), ledger.clone(), Arc::clone(&clock), bridge.clone(), limits).await?;
    let hook = from_config(
        &profile.governance.authz,
        &HookParts {
            store: &rules,
            webhook_secret: loaded.secrets.authz_webhook_secret(),
            hosts: crate::egress::hosts(&loaded).map_err(|e| BootError::Egress(e.to_string()))?,
            clock: Arc::clone(&clock),
            words: Words::new(Arc::clone(&parts.scanner), parts.in_use.clone()),
        },
    )?;
    let decisions = GovernanceDecisionRepository::new(db.clone());
    let parts = Parts {
        limiter: Arc::new(RateLimiter::of(&db).map_err(|e| BootError::Limit(e.to_string()))?),
        ..parts
    };
    seed_call_limit(&parts, &loaded, &decisions, clock.now()).await?;
    let pipeline = build_pipeline(&loaded, &parts)?;
    let plane = DecisionPlane::new(hook, pipeline, ledger.clone(), Arc::clone(&clock));
    plane.remember_refusals_in(db.clone());
    let decisions_for_others = DecisionService::new(
        own_rules(&rules, profile.governance.authz.actor_check),
        plane.clone(),
        ledger.clone(),
        &db,
        Arc::clone(&clock),
    );
    steps.done("decision_plane");

    let issuer = profile.jwt_issuer();
    let sessions = Arc::new(Sessions::open(db.clone(), Arc::clone(&clock)).await?);
    let allowed =
        AllowStore::open(db.clone(), ledger.clone(), Arc::clone(&clock), parts.allowed.clone()).await?;
    let bans = BanStore::open(db.clone(), ledger.clone(), Arc::clone(&clock), bridge.clone()).await?;
    let verifier = Verifier::new(issuer.clone(), Arc::clone(&class_keys), keys.keys(), Arc::clone(&clock));
    let users = Users::new(db.clone(), ledger.clone(), Arc::clone(&clock), Arc::clone(&sessions));
    let at_rest =
        AtRest::new(pepper, loaded.secrets.oauth_at_rest_pepper_previous()).map_err(BootError::Pepper)?;
    let api_keys =
        ApiKeys::new(db.clone(), users.clone(), ledger.clone(), Arc::clone(&clock), at_rest.clone());
    let verifier = Arc::new(verifier);
    let oauth = OAuthState::new(OAuthParts {
        db: db.clone(),
        ledger: ledger.clone(),
        clock: Arc::clone(&clock),
        at_rest,
        users: users.clone(),
        sessions: Arc::clone(&sessions),
        session_tokens: SessionGenerator::new(Arc::clone(&class_keys), issuer.clone(), Arc::clone(&clock)),
        keys: keys.keys(),
        verifier: Arc::clone(&verifier),
        settings: Settings::of(&profile),
        hosts: crate::egress::hosts(&loaded).map_err(|e| BootError::Egress(e.to_string()))?,
        tasks: tasks.clone(),
    })
    .map_err(|e| BootError::Egress(e.to_string()))?;
    let session_claims =
        Arc::new(JwtValidationProviderImpl::new(Arc::clone(&verifier), Arc::clone(&sessions)));
    let auth =
        AuthValidationService::new(verifier, Arc::clone(&sessions)).with_api_keys(Arc::new(api_keys.clone()));
    steps.done("caches");

    let gateway = ClaudeGatewayService::new(
        GatewayParts {
            db: db.clone(),
            ledger: ledger.clone(),
            plane: plane.clone(),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
            hosts: crate::egress::hosts(&loaded).map_err(|e| BootError::Egress(e.to_string()))?,
        },
        &profile.gateway,
        &loaded.secrets,
    )?;
    let mcp = McpService::new(
        mcp_options(&options, &loaded, pepper.expose().as_bytes()),
        McpParts {
            db: db.clone(),
            ledger: ledger.clone(),
            plane: plane.clone(),
            scanner: leak.clone(),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
        },
    );
    mcp.configure(&loaded.services.mcp_servers, &loaded.secrets);
    steps.done("services");

    // A ledger that takes nothing cannot close anything either; the node then serves health and reads.
    if ledger.condition().is_ready() {
        let before = clock.now() + 1;
        let left = gateway.recover(ledger.stream(), before, "node_restart").await;
        let left = left.map_err(|e| BootError::Recover(e.to_string()))?;
        let calls = mcp.recover().await.map_err(|e| BootError::Recover(e.to_string()))?;
        if left > 0 || calls > 0 {
            tracing::warn!(
                model_requests = left,
                tool_calls = calls,
                "closed what an earlier process left open"
            );
        }
    }
    steps.done("recover");

    let hook_events =
        HookEvents::new(db.clone(), Arc::clone(&parts.scanner), leak.clone(), Arc::clone(&clock));
    let replays = Replays::new(db.clone(), "inference_hook");
    let nodes = Nodes::new(db.clone(), Arc::clone(&clock), node_name(&loaded));
    if let Err(error) = nodes.beat().await {
        tracing::warn!(%error, "the other nodes could not be told of this one");
    }
    let sinks = crate::sinks::sinks(&loaded)?;
    sinks.run(&ledger.reader(), &instance_id(&loaded), &hub, &clock, &tasks);
    let context = AppContext::of(Inner {
        config: ArcSwap::from_pointee(loaded),
        started_at: clock.now(),
        database_probe: Probe::default(),
        streams: crate::streams::StreamSlots::default(),
        tails: crate::streams::StreamSlots::default(),
        exports: crate::streams::StreamSlots::default(),
        sinks,
        audit_reads: crate::explain::AuditReads::default(),
        clock: Arc::clone(&clock),
        tasks,
        db,
        hub,
        bridge,
        ledger,
        leak,
        rules,
        bans,
        allowed,
        refusals: RefusalCounts::default(),
        plane,
        decisions,
        hook_events,
        nodes,
        replays,
        decisions_for_others,
        pipeline_parts: parts,
        people: Arc::new(users.clone()),
        users,
        session_claims,
        api_keys,
        oauth,
        auth: Arc::new(auth),
        sessions,
        session_tokens: SessionGenerator::new(Arc::clone(&class_keys), issuer.clone(), Arc::clone(&clock)),
        assertions: AssertionIssuer::new(issuer, keys.keys(), Arc::clone(&clock)),
        admin_tokens: JwtService::new(class_keys, clock),
        keys,
        gateway,
        mcp,
        holds: ArcSwap::from_pointee(holds),
        phase: AtomicU8::new(0),
        reload_trigger: ArcSwapOption::empty(),
        reload_counters: Counters::default(),
        reload_error: ArcSwapOption::empty(),
        claim: Mutex::new(claim),
    });
    context.declare().await?;
    steps.done("declared");
    // Without a ledger nothing is made; the next start does it.
    if context.ledger.condition().is_ready() {
        first_party(&context.oauth, &context.system_context()).await?;
    }
    steps.done("clients");
    lifecycle::start_loops(&context);
    if options.watch {
        reload::watch(&context, load);
    }
    Ok(context)
}

/// The pipeline that the services folder asks for; `governance.pipeline.enabled: false` switches all of it off.
pub(crate) fn build_pipeline(loaded: &Loaded, parts: &Parts) -> Result<Pipeline, PipelineError> {
    let mut config = loaded.services.governance.clone();
    config.enabled &= loaded.profile.governance.pipeline.enabled;
    if !config.enabled {
        tracing::warn!("the governance pipeline is switched off: calls are recorded and not examined");
    }
    let parts = Parts { history: loaded.profile.governance.pipeline.history, ..parts.clone() };
    Pipeline::from_config(&config, &parts)
}

/// The leak scanner guards every provider and custom secret of the file. One that is too short to be told from ordinary text
/// is named in the log, and no server gets it (the spawner refuses it).
pub(crate) fn hold_values(leak: &Scanner, loaded: &Loaded) -> Vec<Hold> {
    let mut holds = Vec::new();
    for (name, value) in loaded.secrets.values_in_use() {
        match leak.hold(name, value) {
            Ok(hold) => holds.push(hold),
            Err(error) => {
                tracing::warn!(name, %error, "a secret cannot be guarded by the leak scanner");
            }
        }
    }
    holds
}

fn ledger_options(loaded: &Loaded, engine: Engine, hub: Hub, parts: &Parts) -> LedgerOptions {
    let profile = &loaded.profile;
    let group = &profile.audit.group;
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    let kind = match engine {
        Engine::Sqlite => DatabaseKind::Sqlite,
        Engine::Postgres => DatabaseKind::Postgres,
    };
    LedgerOptions {
        node_id: instance_id(loaded),
        origin_host: issuer_host(&profile.jwt_issuer()),
        data_dir: loaded.paths.data_dir().to_path_buf(),
        min_free_bytes: profile.audit.min_free_bytes.bytes(),
        group: GroupOptions {
            batch_window: millis(group.batch_window_ms),
            batch_max_records: group.batch_max_records(kind) as usize,
            batch_max_bytes: group.batch_max_bytes.as_usize(),
            queue_max: group.queue_max as usize,
            append_timeout: millis(group.append_timeout_ms),
            commit_timeout: millis(group.commit_timeout_ms),
        },
        hub,
        leak: parts.in_use.clone(),
        payloads: crate::retention::payload_policy(loaded, &parts.scanner),
        checkpoints: None,
    }
}

/// `server.instance_id`, else the profile's name: one node a profile needs no other.
pub(crate) fn instance_id(loaded: &Loaded) -> String {
    loaded.profile.server.instance_id.clone().unwrap_or_else(|| loaded.profile.name.clone())
}

/// What this node is called among the others.
fn node_name(loaded: &Loaded) -> NodeName {
    let server = &loaded.profile.server;
    NodeName {
        instance_id: instance_id(loaded),
        address: format!("{}:{}", server.host, server.port),
        version: env!("CARGO_PKG_VERSION"),
    }
}

pub(crate) fn issuer_host(issuer: &str) -> String {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

async fn record_start(ledger: &Ledger) -> Result<(), BootError> {
    let condition = ledger.condition();
    if !condition.is_ready() {
        tracing::error!(
            condition = condition.code(),
            why = condition.why().unwrap_or_default(),
            "the ledger refuses records; guarded calls are refused"
        );
        return Ok(());
    }
    let mut unit = Unit::new();
    unit.record(Draft::system(EntryKind::SystemStart, "ok").with("version", env!("CARGO_PKG_VERSION")));
    ledger.append(unit).await?;
    if let Err(error) = ledger.make_checkpoint().await {
        tracing::warn!(%error, "the start has no checkpoint");
    }
    Ok(())
}

pub(crate) fn algorithm(configured: ConfiguredAlgorithm) -> SigningAlgorithm {
    match configured {
        ConfiguredAlgorithm::RS256 => SigningAlgorithm::Rs256,
        ConfiguredAlgorithm::ES256 => SigningAlgorithm::Es256,
        ConfiguredAlgorithm::EdDSA => SigningAlgorithm::EdDsa,
    }
}

fn mcp_options(options: &BootOptions, loaded: &Loaded, pepper: &[u8]) -> McpOptions {
    let key = derived(pepper, b"systemprompt/tool-digest/1");
    McpOptions {
        node: instance_id(loaded),
        executable: options.executable.clone(),
        path: options.path.clone(),
        data_dir: loaded.paths.data_dir().to_path_buf(),
        services_dir: loaded.paths.services.clone(),
        external_url: loaded.profile.api_external_url(),
        digest_key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
    }
}

/// Seeds the call limit with the allowed calls of the last ten minutes, so that a restart gives nobody a fresh burst.
async fn seed_call_limit(
    parts: &Parts,
    loaded: &Loaded,
    decisions: &GovernanceDecisionRepository,
    now: Millis,
) -> Result<(), BootError> {
    if !parts.limiter.wants_seed() {
        return Ok(());
    }
    let params = loaded.services.governance.policies.iter().find(|p| p.id == rate_limit::ID);
    let params = params.map(|p| p.params.clone()).unwrap_or_default();
    let rate: Rate = rate_limit::rate(&params).map_err(|e| BootError::Limit(e.to_string()))?;
    let since = first_id_at(now - SEED_WINDOW_MS);
    let past = decisions.charged_since(since.as_str(), SEED_MAX).await;
    let past = past.map_err(|e| BootError::Read(format!("the decisions of the last ten minutes: {e}")))?;
    let origin = |word: &str| {
        [Origin::Hook, Origin::Mcp, Origin::Gateway, Origin::A2a, Origin::InferenceHook]
            .into_iter()
            .find(|o| o.as_str() == word)
    };
    parts.limiter.seed(
        &rate,
        past.iter().filter_map(|call| {
            Some(PastCall {
                user_id: &call.user_id,
                session_id: &call.session_id,
                call_id: &call.call_id,
                origin: origin(&call.origin)?,
                at: call.created_at,
            })
        }),
    );
    Ok(())
}

/// The smallest decision id that could have been made at `at`: the time stands in a UUIDv7's first 48 bits (RFC 9562).
fn first_id_at(at: Millis) -> DecisionId {
    let fresh = uuid_v7().as_u128();
    let low_bits = (1_u128 << 80) - 1;
    let time = u128::from(at.max(0).cast_unsigned()) << 80;
    // Version and variant stay as they are; all else of the low half is zero.
    let marks = fresh & low_bits & (0xf << 76 | 0b11 << 62);
    DecisionId::from_uuid(systemprompt_models::ids::uuid_from_bits(time | marks))
}
