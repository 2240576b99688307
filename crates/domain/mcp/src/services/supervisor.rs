//! One child per server, started on demand, started again after a crash, ended when its definition or its secrets change,
//! when it was idle too long, and when the node drains.

mod error;
mod history;
mod instance;
mod watch;

pub use error::StartError;
pub use instance::{Hello, Instance};

use super::definitions::ListError;
use super::registry::{Registry, Server};
use super::spawner::{BaseEnvironment, ChildEnvironment, ChildFolders, LeaseSet, SpawnOrder, spawn_server};
use super::stderr::{ErrorLines, drain};
use super::stdio::Connection;
use super::tool::RecoveryError;
use crate::repository::LeaseRepository;
use crate::repository::secret_leases::{EndReason, Lease};
use arc_swap::ArcSwapOption;
use history::History;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Ledger, LedgerError, Permit, Unit};
use systemprompt_config::services::mcp::{McpServerType, McpStart};
use systemprompt_leak::{Hold, Scanner};
use systemprompt_models::ids::{ChildId, LeaseId};
use systemprompt_models::{Clock, Millis, RequestContext, Tasks};

/// Children that one node runs at most (SCR-35).
const MAX_CHILDREN: usize = 64;
/// Leases that go into one unit beside its other records.
const LEASES_PER_UNIT: usize = 12;
/// A start that must wait for a back-off of at most this long waits; otherwise it is refused.
const MAX_BACKOFF_WAIT: Millis = 1000;

/// What children need of the node.
#[derive(Clone)]
pub struct SupervisorOptions {
    /// `server.instance_id`.
    pub node: String,
    /// The program of internal servers, this binary; they run as `<executable> __mcp-server <binary>`.
    pub executable: PathBuf,
    pub base: BaseEnvironment,
    /// Holds the private folders of running children.
    pub runtime_dir: PathBuf,
    /// `<log_dir>/<server>.log` takes what a server writes to its standard error.
    pub log_dir: PathBuf,
    /// Relative working folders count from here.
    pub services_dir: PathBuf,
}

/// Runs the children of a node. Clones share them.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    options: SupervisorOptions,
    registry: Registry,
    ledger: Ledger,
    leases: LeaseRepository,
    scanner: Scanner,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    slots: Mutex<HashMap<Box<str>, Arc<Slot>>>,
    draining: AtomicBool,
}

/// The place of one server's child.
#[derive(Default)]
struct Slot {
    current: ArcSwapOption<Instance>,
    /// Held while a child starts, so that only one does.
    starting: tokio::sync::Mutex<()>,
    history: Mutex<History>,
}

impl Supervisor {
    pub fn new(
        options: SupervisorOptions,
        registry: Registry,
        (ledger, leases): (Ledger, LeaseRepository),
        scanner: Scanner,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> Self {
        Self(Arc::new(Inner {
            options,
            registry,
            ledger,
            leases,
            scanner,
            clock,
            tasks,
            slots: Mutex::default(),
            draining: AtomicBool::new(false),
        }))
    }

    pub(crate) fn node(&self) -> &str {
        &self.0.options.node
    }

    /// The child of `server`, if one runs that was made from its present definition.
    pub fn running(&self, server: &Server) -> Option<Arc<Instance>> {
        let slot = self.slot(&server.name);
        slot.current.load_full().filter(|i| i.key() == server.key() && i.is_usable())
    }

    /// The child of `server`, started if there is none. The caller has recorded that it may be used; `context` is whose
    /// call it is, none for a start that the configuration orders.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn ready(
        &self,
        server: &Arc<Server>,
        context: Option<&RequestContext>,
    ) -> Result<Arc<Instance>, StartError> {
        if let Some(instance) = self.running(server) {
            return Ok(instance);
        }
        let slot = self.slot(&server.name);
        let _one = slot.starting.lock().await;
        if let Some(instance) = self.running(server) {
            return Ok(instance);
        }
        if let Some(outdated) = slot.current.swap(None) {
            outdated.stop();
        }
        self.admit(server, &slot).await?;
        let instance = self.start(server, &slot, context).await?;
        slot.current.store(Some(Arc::clone(&instance)));
        if self.0.draining.load(Ordering::Acquire) {
            instance.stop();
            return Err(StartError::Draining);
        }
        Ok(instance)
    }

    fn slot(&self, server: &str) -> Arc<Slot> {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(server.into()).or_default())
    }

    fn instances(&self) -> Vec<Arc<Instance>> {
        let slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.values().filter_map(|slot| slot.current.load_full()).collect()
    }

    async fn admit(&self, server: &Server, slot: &Slot) -> Result<(), StartError> {
        if self.0.draining.load(Ordering::Acquire) {
            return Err(StartError::Draining);
        }
        if self.instances().iter().filter(|i| i.is_usable()).count() >= MAX_CHILDREN {
            return Err(StartError::Capacity);
        }
        let wait = {
            let mut history = slot.history.lock().unwrap_or_else(PoisonError::into_inner);
            history.of(server.key()).admit(self.0.clock.now())?
        };
        if wait > MAX_BACKOFF_WAIT {
            return Err(StartError::Backoff(wait));
        }
        tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
        Ok(())
    }

    async fn start(
        &self,
        server: &Arc<Server>,
        slot: &Arc<Slot>,
        context: Option<&RequestContext>,
    ) -> Result<Arc<Instance>, StartError> {
        let inner = &self.0;
        let leases = server.leases.as_ref().map_err(Clone::clone)?;
        let child = ChildId::generate();
        // Guarded before anything else: a lease counts only while its value cannot leave unseen (SCR-62).
        let holds = leases.hold(&inner.scanner)?;
        let folders =
            ChildFolders::create(&inner.options.runtime_dir, child.as_str()).map_err(StartError::Spawn)?;
        let order = self.order(server, leases, folders.clone());
        let (permit, granted) = match self.grant(server, leases, &child, context).await {
            Ok(granted) => granted,
            Err(error) => {
                folders.remove().await;
                return Err(error.into());
            }
        };
        let watched = watch::Watched {
            child: child.clone(),
            server: server.name.clone(),
            leases: granted,
            holds,
            folders,
        };
        let spawned = match spawn_server(permit, &order) {
            Ok(spawned) => spawned,
            Err(error) => {
                inner.tasks.spawn("mcp child", watch::never_started(self.clone(), watched));
                self.failed(server, slot);
                return Err(StartError::Spawn(error));
            }
        };
        tracing::info!(server = %server.name, child = %child, pid = spawned.pid, "MCP server started");
        let errors = ErrorLines::default();
        let log = inner.options.log_dir.join(format!("{}.log", server.name));
        inner.tasks.spawn("mcp stderr", drain(spawned.errors, inner.scanner.clone(), errors.clone(), log));
        let limit = usize::try_from(server.config.limits.result_bytes.bytes()).unwrap_or(usize::MAX);
        let streams = (spawned.output, spawned.input);
        let connection = Connection::open(&server.name, streams, limit, inner.scanner.clone(), &inner.tasks);
        let lease_ids: Vec<LeaseId> = watched.leases.iter().map(|lease| lease.id.clone()).collect();
        let instance = Arc::new(Instance::new(child, server, connection, lease_ids, spawned.pid));
        let process = watch::Process { child: spawned.child, pid: spawned.pid };
        let task = watch::watch(self.clone(), Arc::clone(&instance), Arc::clone(slot), process, watched);
        inner.tasks.spawn("mcp child", task);
        match instance.greet(&inner.scanner).await {
            Ok(()) => Ok(instance),
            Err(error) => {
                instance.kill();
                let told = errors.last(20);
                tracing::warn!(server = %server.name, %error, stderr = ?told, "MCP server did not become ready");
                Err(error)
            }
        }
    }

    fn order(&self, server: &Server, leases: &LeaseSet, folders: ChildFolders) -> SpawnOrder {
        let options = &self.0.options;
        let config = &server.config;
        let (program, args) = match config.kind {
            McpServerType::Internal => {
                let binary = config.binary.map_or("", |b| b.as_str()).to_owned();
                (options.executable.clone(), vec!["__mcp-server".to_owned(), binary])
            }
            McpServerType::Stdio => {
                (PathBuf::from(config.command.clone().unwrap_or_default()), config.args.clone())
            }
        };
        let (home, tmp) = (folders.home(), folders.tmp());
        let environment =
            ChildEnvironment::build(&options.base, &server.name, (&home, &tmp), &config.env, leases);
        let cwd = config.cwd.as_ref().map(|cwd| options.services_dir.join(cwd));
        SpawnOrder { program, args, cwd, folders, environment }
    }

    /// Records the start and the leases; the last of it gives the permit.
    async fn grant(
        &self,
        server: &Server,
        leases: &LeaseSet,
        child: &ChildId,
        context: Option<&RequestContext>,
    ) -> Result<(Permit, Vec<Lease>), LedgerError> {
        let inner = &self.0;
        let draft = |kind| context.map_or_else(|| Draft::system(kind, "ok"), |c| Draft::new(kind, c, "ok"));
        let granted: Vec<Lease> = leases
            .iter()
            .map(|leased| Lease {
                id: LeaseId::generate(),
                secret: leased.name().to_owned(),
                server: server.name.to_string(),
                child: child.clone(),
            })
            .collect();
        let (more, rest) = granted.split_at(granted.len().saturating_sub(LEASES_PER_UNIT));
        let now = inner.clock.now();
        let grant = |unit: &mut Unit, leases: &[Lease]| {
            for lease in leases {
                inner.leases.grant(unit, draft(EntryKind::SecretLeased), self.node(), lease, now);
            }
        };
        for leases in more.chunks(LEASES_PER_UNIT) {
            let mut unit = Unit::new();
            grant(&mut unit, leases);
            inner.ledger.append(unit).await?;
        }
        let mut unit = Unit::new();
        unit.record(
            draft(EntryKind::McpChild)
                .with_subject("mcp_server", &*server.name)
                .with("event", "start")
                .with("child", child.as_str())
                .with("leases", granted.len()),
        );
        grant(&mut unit, rest);
        let permit = inner.ledger.commit(unit).await?;
        Ok((permit, granted))
    }

    fn failed(&self, server: &Server, slot: &Slot) {
        let mut history = slot.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.of(server.key()).ended(self.0.clock.now(), Duration::ZERO);
    }

    /// Starts what the configuration wants to run always, stops what was idle too long or is no longer configured.
    /// Called every few seconds.
    pub async fn sweep(&self) {
        let now = self.0.clock.now();
        for instance in self.instances() {
            let server = self.0.registry.get(instance.server_name());
            let Some(server) = server.filter(|s| s.key() == instance.key()) else {
                instance.stop();
                continue;
            };
            let idle = server.config.lifecycle.idle_s.map(|s| i64::from(s) * 1000);
            if idle.is_some_and(|limit| instance.idle_for(now) > limit) {
                instance.stop();
            }
        }
        for server in self.0.registry.all() {
            let wanted = server.config.lifecycle.start == McpStart::Always;
            if wanted && self.running(&server).is_none() {
                match self.ready(&server, None).await {
                    Ok(_)
                    | Err(StartError::CrashLoop { .. } | StartError::Backoff(_) | StartError::Draining) => {}
                    Err(error) => {
                        tracing::warn!(server = %server.name, %error, "MCP server could not be started");
                    }
                }
            }
        }
    }

    /// Ends leases that an unclean end of this node left open.
    ///
    /// # Errors
    /// When they cannot be read or their end not be recorded.
    pub async fn end_left_open(&self) -> Result<usize, RecoveryError> {
        let inner = &self.0;
        let mut ended = 0;
        loop {
            let open = inner.leases.left_open(self.node(), LEASES_PER_UNIT as i64).await?;
            if open.is_empty() {
                return Ok(ended);
            }
            let mut unit = Unit::new();
            for lease in &open {
                inner.leases.end(&mut unit, lease, EndReason::GatewayRestart, inner.clock.now());
            }
            inner.ledger.append(unit).await?;
            ended += open.len();
        }
    }

    /// Ends every child: no new calls, those under way get ten seconds.
    pub async fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        let instances = self.instances();
        for instance in &instances {
            instance.stop();
        }
        for instance in instances {
            instance.ended().await;
        }
    }
}

/// Holds that outlive their child: an answer or a log line may still be on its way (SCR-60).
const LINGER: Duration = Duration::from_mins(10);

/// Keeps the values of an ended child guarded for a while.
fn linger(tasks: &Tasks, holds: Vec<Hold>) {
    if holds.is_empty() {
        return;
    }
    let shutdown = tasks.shutdown_token();
    tasks.spawn("mcp ended secrets", async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(LINGER) => {}
        }
        drop(holds);
    });
}
