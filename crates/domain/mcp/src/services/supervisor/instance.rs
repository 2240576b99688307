//! One running child: its connection, its tools, and how it is asked to end.

use super::StartError;
use crate::PROTOCOL_VERSIONS;
use crate::services::definitions::Definitions;
use crate::services::registry::{InstanceKey, Server};
use crate::services::stdio::{Answer, CallOptions, Connection, StdioError};
use crate::wire::raw::{RawObject, raw, to_raw};
use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;
use systemprompt_audit::Permit;
use systemprompt_leak::Scanner;
use systemprompt_models::Millis;
use systemprompt_models::ids::{ChildId, LeaseId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A list of tools is asked for again when it is older than this.
const LIST_MAX_AGE: Duration = Duration::from_mins(1);

/// What a child said of itself in the handshake.
#[derive(Debug)]
pub struct Hello {
    pub server_info: Box<RawValue>,
    pub instructions: Option<Box<RawValue>>,
    pub has_tools: bool,
}

/// A running child.
pub struct Instance {
    pub id: ChildId,
    pub leases: Vec<LeaseId>,
    pub pid: u32,
    server: Arc<Server>,
    connection: Connection,
    hello: ArcSwapOption<Hello>,
    definitions: ArcSwap<Definitions>,
    relisting: tokio::sync::Mutex<()>,
    in_flight: AtomicUsize,
    idle: Notify,
    last_used: AtomicI64,
    pub(super) stopping: CancellationToken,
    pub(super) killed: CancellationToken,
    pub(super) ended: CancellationToken,
    pub(super) started: Instant,
}

impl Instance {
    pub(super) fn new(
        id: ChildId,
        server: &Arc<Server>,
        connection: Connection,
        leases: Vec<LeaseId>,
        pid: u32,
    ) -> Self {
        Self {
            id,
            leases,
            pid,
            server: Arc::clone(server),
            connection,
            hello: ArcSwapOption::empty(),
            definitions: ArcSwap::from_pointee(Definitions::none()),
            relisting: tokio::sync::Mutex::default(),
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
            last_used: AtomicI64::new(Millis::MAX),
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
            ended: CancellationToken::new(),
            started: Instant::now(),
        }
    }

    pub fn key(&self) -> InstanceKey {
        self.server.key()
    }

    pub fn server_name(&self) -> &str {
        &self.server.name
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether it takes calls.
    pub fn is_usable(&self) -> bool {
        !self.stopping.is_cancelled()
            && !self.killed.is_cancelled()
            && !self.ended.is_cancelled()
            && !self.connection.is_closed()
    }

    /// The handshake, and the first list of tools.
    pub(super) async fn greet(&self, scanner: &Scanner) -> Result<(), StartError> {
        let [version, ..] = PROTOCOL_VERSIONS;
        let params = to_raw(&serde_json::json!({
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "systemprompt", "version": env!("CARGO_PKG_VERSION")},
        }));
        let limit = Duration::from_millis(u64::from(self.server.config.timeouts.initialize_ms));
        let deadline = Instant::now() + limit;
        let answer =
            self.connection.call("initialize", RawObject::read(&params), CallOptions::within(limit)).await?;
        let Answer::Result(result) = answer else {
            return Err(StartError::Hello("the server answered initialize with an error"));
        };
        self.hello.store(Some(Arc::new(read_hello(&result, scanner)?)));
        self.connection.notify("notifications/initialized").await?;
        if self.hello.load().as_ref().is_some_and(|hello| hello.has_tools) {
            let left = deadline.saturating_duration_since(Instant::now());
            self.definitions.store(Arc::new(self.list(left, scanner).await?));
        }
        Ok(())
    }

    async fn list(&self, limit: Duration, scanner: &Scanner) -> Result<Definitions, super::ListError> {
        let limit = limit.min(Duration::from_millis(u64::from(self.server.config.timeouts.list_ms)));
        Definitions::load(&self.server.name, &self.connection, limit, scanner).await
    }

    /// What the child said of itself.
    pub fn hello(&self) -> Option<Arc<Hello>> {
        self.hello.load_full()
    }

    /// Its tools, asked for again if it said that they changed or if `fresh` is wanted and they are old.
    pub async fn definitions(&self, fresh: bool, scanner: &Scanner) -> Arc<Definitions> {
        let known = self.definitions.load_full();
        let is_old = fresh && known.loaded_at.elapsed() > LIST_MAX_AGE;
        let has_tools = self.hello.load().as_ref().is_some_and(|hello| hello.has_tools);
        if !has_tools || !(self.connection.take_list_changed() || is_old) {
            return known;
        }
        let _one = self.relisting.lock().await;
        match self.list(Duration::MAX, scanner).await {
            Ok(list) => self.definitions.store(Arc::new(list)),
            Err(error) => {
                tracing::warn!(server = %self.server.name, %error, "the list of tools could not be asked for again; the old one stays");
            }
        }
        self.definitions.load_full()
    }

    /// Calls a tool. The permit proves that the call is on record.
    ///
    /// # Errors
    /// [`StdioError`].
    pub async fn call_tool(
        &self,
        _permit: Permit,
        params: RawObject<'_>,
        options: CallOptions,
        now: Millis,
    ) -> Result<Answer, StdioError> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.last_used.store(now, Ordering::Release);
        let _in_flight = InFlight(self);
        self.connection.call("tools/call", Some(params), options).await
    }

    /// Milliseconds since the last call began; nothing while one runs.
    pub fn idle_for(&self, now: Millis) -> Millis {
        if self.in_flight.load(Ordering::Acquire) > 0 {
            return 0;
        }
        // Before the first call the time counts from the first look.
        match self.last_used.compare_exchange(Millis::MAX, now, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => 0,
            Err(last) => now - last,
        }
    }

    /// Asks the child to end: it gets no new calls, those under way may finish.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Ends the child at once.
    pub fn kill(&self) {
        self.killed.cancel();
    }

    /// Waits until the child is gone and its end is recorded.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits until no call is under way.
    pub(super) async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

struct InFlight<'a>(&'a Instance);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.idle.notify_waiters();
    }
}

/// Reads the answer to `initialize`, cleaned of values in use.
fn read_hello(result: &RawValue, scanner: &Scanner) -> Result<Hello, StartError> {
    let mut value: Value = serde_json::from_str(result.get()).unwrap_or_default();
    let result =
        if scanner.redact_message(&mut value).is_empty() { result.to_owned() } else { to_raw(&value) };
    let object =
        RawObject::read(&result).ok_or(StartError::Hello("the answer to initialize is no object"))?;
    let version = object.string("protocolVersion").unwrap_or_default();
    if !PROTOCOL_VERSIONS.contains(&version.as_str()) {
        return Err(StartError::Hello("the server speaks none of our protocol versions"));
    }
    let capabilities = object.get("capabilities").and_then(RawObject::read).unwrap_or_default();
    let unnamed = || raw("{\"name\":\"unnamed\",\"version\":\"0\"}".to_owned());
    Ok(Hello {
        server_info: object.get("serverInfo").map_or_else(unnamed, ToOwned::to_owned),
        instructions: object.get("instructions").map(ToOwned::to_owned),
        has_tools: capabilities.get("tools").is_some(),
    })
}
