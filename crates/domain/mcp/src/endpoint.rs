//! `/api/v1/mcp/{server}/mcp`: one message in, one answer out. Order of checks: headers, size, strict parse, protocol era,
//! access to the server, method (MCP-17). Authority is the path alone.

mod call;
mod headers;
mod refuse;

pub use headers::check_headers;

use crate::PROTOCOL_VERSIONS;
use crate::inflight::InFlight;
use crate::middleware::rbac::{AccessError, enforce_rbac_from_registry, server_entity};
use crate::repository::{LeaseRepository, ToolUsageRepository};
use crate::services::loader::McpToolLoader;
use crate::services::registry::{Registry, Server};
use crate::services::spawner::BaseEnvironment;
use crate::services::supervisor::{Supervisor, SupervisorOptions};
use crate::services::tool::{McpToolExecutor, RecoveryError};
use crate::wire::raw::{RawObject, quoted, raw};
use crate::wire::reply::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, McpReply, RpcError, result};
use crate::wire::{Incoming, parse};
use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use systemprompt_audit::Ledger;
use systemprompt_config::McpServerConfig;
use systemprompt_config::secrets::Secrets;
use systemprompt_database::Db;
use systemprompt_leak::Scanner;
use systemprompt_models::{Clock, RequestContext, Tasks};
use systemprompt_security::plane::DecisionPlane;

/// What the plane is made of.
pub struct McpOptions {
    /// `server.instance_id`.
    pub node: String,
    /// This binary; internal servers run as `<executable> __mcp-server <binary>`.
    pub executable: PathBuf,
    /// `PATH` of this process, which children search for programs.
    pub path: String,
    /// Holds `run/mcp` (private folders of children) and `logs/mcp` (what they write to standard error).
    pub data_dir: PathBuf,
    /// Relative working folders of servers count from here.
    pub services_dir: PathBuf,
    /// `server.api_external_url`, without a closing slash.
    pub external_url: String,
    /// Key of the digests of arguments and results.
    pub digest_key: hmac::Key,
}

/// What the plane uses of the rest of the node.
pub struct McpParts {
    pub db: Db,
    pub ledger: Ledger,
    pub plane: DecisionPlane,
    pub scanner: Scanner,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
}

/// The MCP plane of a node. Clones share it.
#[derive(Clone)]
pub struct McpService(Arc<Inner>);

struct Inner {
    registry: Registry,
    supervisor: Supervisor,
    executor: McpToolExecutor,
    loader: McpToolLoader,
    plane: DecisionPlane,
    ledger: Ledger,
    calls: InFlight,
    tasks: Tasks,
    external_url: String,
}

impl McpService {
    pub fn new(options: McpOptions, parts: McpParts) -> Self {
        let McpParts { db, ledger, plane, scanner, clock, tasks } = parts;
        let registry = Registry::default();
        let supervisor = Supervisor::new(
            SupervisorOptions {
                node: options.node,
                executable: options.executable,
                base: BaseEnvironment { path: options.path },
                runtime_dir: options.data_dir.join("run/mcp"),
                log_dir: options.data_dir.join("logs/mcp"),
                services_dir: options.services_dir,
            },
            registry.clone(),
            (ledger.clone(), LeaseRepository::new(db.clone())),
            scanner.clone(),
            Arc::clone(&clock),
            tasks.clone(),
        );
        let executor = McpToolExecutor {
            plane: plane.clone(),
            ledger: ledger.clone(),
            usage: ToolUsageRepository::new(db),
            supervisor: supervisor.clone(),
            scanner: scanner.clone(),
            clock,
            tasks: tasks.clone(),
            digest_key: Arc::new(options.digest_key),
        };
        let loader = McpToolLoader {
            registry: registry.clone(),
            supervisor: supervisor.clone(),
            plane: plane.clone(),
            ledger: ledger.clone(),
            scanner,
        };
        Self(Arc::new(Inner {
            registry,
            supervisor,
            executor,
            loader,
            plane,
            ledger,
            calls: InFlight::default(),
            tasks,
            external_url: options.external_url,
        }))
    }

    /// Puts a configuration in force. Children of servers that changed end once their calls have.
    pub fn configure(&self, servers: &BTreeMap<String, McpServerConfig>, secrets: &Secrets) {
        self.0.registry.replace(servers, secrets);
    }

    /// Closes what an unclean end left open: calls and leases. Once, before the first call.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub async fn recover(&self) -> Result<usize, RecoveryError> {
        let calls = self.0.executor.close_left_open().await?;
        Ok(calls + self.0.supervisor.end_left_open().await?)
    }

    /// Starts and stops children as the configuration says. Every few seconds.
    pub async fn sweep(&self) {
        self.0.supervisor.sweep().await;
    }

    /// Ends every child; calls under way get ten seconds.
    pub async fn drain(&self) {
        self.0.supervisor.drain().await;
    }

    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub fn loader(&self) -> &McpToolLoader {
        &self.0.loader
    }

    pub fn executor(&self) -> &McpToolExecutor {
        &self.0.executor
    }

    /// Answers one POST. `context` is of a principal that the edge has verified, or anonymous.
    pub async fn handle(
        &self,
        context: &RequestContext,
        server: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> McpReply {
        let context = self.0.plane.conceal_context(context);
        match self.answer(&context, server, headers, &body).await {
            Ok(reply) => reply,
            Err((id, error)) => error.reply(id.as_deref(), &context),
        }
    }

    /// The answer, or an error with the id of the request if it could be read.
    async fn answer(
        &self,
        context: &RequestContext,
        server: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<McpReply, (Option<Box<RawValue>>, RpcError)> {
        check_headers(headers).map_err(|error| (None, error))?;
        let limit = self.0.registry.get(server).map(|s| s.config.limits.request_bytes.bytes());
        if limit.is_some_and(|limit| body.len() as u64 > limit) {
            let error =
                RpcError::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "the message is too large");
            return Err((None, error.named("body_too_large")));
        }
        let message = parse(body).map_err(|error| {
            (
                None,
                RpcError::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()).named("bad_request"),
            )
        })?;
        match message {
            Incoming::Request { id, method, params } => {
                let outcome = self.request(context, server, headers, (id, &method, params)).await;
                outcome.map_err(|error| (Some(id.to_owned()), error))
            }
            Incoming::Notification { method, params } => {
                let outcome = self.notification(context, server, headers, (&method, params)).await;
                outcome.map_err(|error| (None, error))
            }
            Incoming::Response => {
                let error = "this server sends no requests, so it takes no responses";
                Err((
                    None,
                    RpcError::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, error).named("bad_request"),
                ))
            }
        }
    }

    async fn request(
        &self,
        context: &RequestContext,
        server: &str,
        headers: &HeaderMap,
        (id, method, params): (&RawValue, &str, Option<&RawValue>),
    ) -> Result<McpReply, RpcError> {
        headers::check_era(headers, method, params)?;
        let server = self.access(context, server).await?;
        match method {
            "initialize" => self.initialize(context, &server, id, params).await,
            "ping" => Ok(McpReply::json(StatusCode::OK, result(id, &raw("{}".to_owned())))),
            "tools/list" => self.list(context, &server, id, params).await,
            "tools/call" => self.call_tool(context, server, id, params).await,
            _ => {
                let error = format!("Method not found: {}", method.chars().take(64).collect::<String>());
                Err(RpcError::new(StatusCode::OK, METHOD_NOT_FOUND, error).named("method_not_found"))
            }
        }
    }

    async fn notification(
        &self,
        context: &RequestContext,
        server: &str,
        headers: &HeaderMap,
        (method, params): (&str, Option<&RawValue>),
    ) -> Result<McpReply, RpcError> {
        headers::check_era(headers, method, params)?;
        let server = self.access(context, server).await?;
        if method == "notifications/cancelled"
            && let Some(id) = params.and_then(RawObject::read).and_then(|p| p.get("requestId"))
        {
            self.0.calls.cancel(&context.principal, &server.name, id);
        }
        Ok(McpReply::accepted())
    }

    async fn access(&self, context: &RequestContext, server: &str) -> Result<Arc<Server>, RpcError> {
        let access =
            enforce_rbac_from_registry(&self.0.plane, &self.0.ledger, &self.0.registry, context, server)
                .await;
        access.map_err(|error| self.refuse_access(server, error))
    }

    fn refuse_access(&self, server: &str, error: AccessError) -> RpcError {
        refuse::access(&self.0.external_url, server, error)
    }

    async fn initialize(
        &self,
        context: &RequestContext,
        server: &Arc<Server>,
        id: &RawValue,
        params: Option<&RawValue>,
    ) -> Result<McpReply, RpcError> {
        let wanted = params.and_then(RawObject::read).and_then(|p| p.string("protocolVersion"));
        let wanted = wanted.ok_or_else(|| {
            RpcError::new(StatusCode::OK, INVALID_PARAMS, "`protocolVersion` is missing").named("bad_params")
        })?;
        let [latest, ..] = PROTOCOL_VERSIONS;
        let version = PROTOCOL_VERSIONS.into_iter().find(|v| *v == wanted).unwrap_or(latest);
        self.0.plane.decide_recorded(context, &server_entity(&server.name)).await.map_err(refuse::ledger)?;
        let ready = self.0.supervisor.ready(server, Some(context)).await;
        let instance = ready.map_err(|error| refuse::start(&server.name, error))?;
        let hello = instance.hello().ok_or_else(refuse::unreachable)?;
        let capabilities = if hello.has_tools { "{\"tools\":{}}" } else { "{}" };
        let instructions = hello.instructions.as_ref();
        let instructions =
            instructions.map_or_else(String::new, |i| format!(",\"instructions\":{}", i.get()));
        let answer = raw(format!(
            "{{\"protocolVersion\":{},\"capabilities\":{capabilities},\"serverInfo\":{}{instructions}}}",
            quoted(version),
            hello.server_info.get()
        ));
        Ok(McpReply::json(StatusCode::OK, result(id, &answer)))
    }

    async fn list(
        &self,
        context: &RequestContext,
        server: &Arc<Server>,
        id: &RawValue,
        params: Option<&RawValue>,
    ) -> Result<McpReply, RpcError> {
        let cursor = params.and_then(RawObject::read).and_then(|p| p.get("cursor"));
        if cursor.is_some_and(|cursor| cursor.get() != "null") {
            let error = "the list has one page; there is no cursor";
            return Err(RpcError::new(StatusCode::OK, INVALID_PARAMS, error).named("bad_cursor"));
        }
        let list = self.0.loader.list(context, server).await.map_err(|e| refuse::load(&server.name, e))?;
        let tools: Vec<&str> = list.tools.iter().map(|tool| tool.get()).collect();
        let answer = raw(format!("{{\"tools\":[{}]}}", tools.join(",")));
        Ok(McpReply::json(StatusCode::OK, result(id, &answer)))
    }
}

#[cfg(test)]
mod tests;
