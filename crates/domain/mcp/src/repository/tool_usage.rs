//! The row of a tool call. It opens in the unit of `tool.opened` and closes in the unit of `tool.closed`; neither row nor
//! entry can exist without the other.

use super::rows::{Closing, InTable, Opening};
use bytes::Bytes;
use systemprompt_audit::payload::reference;
use systemprompt_audit::{Cell, Col, Draft, EntryKind, Guard, Payload, Role, Table, Unit};
use systemprompt_database::{Db, on, sql};
use systemprompt_models::ids::{ChildId, DecisionId, EntryId, LeaseId, McpExecutionId};
use systemprompt_models::{Millis, RequestContext};

/// The table of tool calls.
pub static TABLE: Table = Table {
    name: "mcp_tool_executions",
    key: "mcp_execution_id",
    open: &[
        Col::text("mcp_execution_id"),
        Col::text("tool_name"),
        Col::text("server_name"),
        Col::text("server_instance_id"),
        Col::text("method"),
        Col::text("source"),
        Col::text("user_id"),
        Col::text("actor_kind"),
        Col::text("actor_id"),
        Col::json("act_chain"),
        Col::text("client_id"),
        Col::text("session_id"),
        Col::text("context_id"),
        Col::text("task_id"),
        Col::text("trace_id"),
        Col::text("ai_tool_call_id"),
        Col::text("era_client"),
        Col::text("era_upstream"),
        Col::text("decision_id"),
        Col::json("lease_ids"),
        Col::text("node"),
        Col::text("input_digest"),
        Col::int("input_bytes"),
        Col::text("input_payload").later(),
        Col::text("status"),
        Col::int("started_at"),
        Col::text("ledger_opened"),
    ],
    close: &[
        Col::text("output_digest"),
        Col::int("output_bytes"),
        Col::text("output_payload").later(),
        Col::int("is_error"),
        Col::text("status"),
        Col::text("error_kind"),
        Col::text("error_message"),
        Col::int("completed_at"),
        Col::int("execution_time_ms"),
        Col::text("ledger_closed"),
    ],
    opened_by: Some(EntryKind::ToolOpened),
    mirror: &[
        ("mcp_execution_id", "/detail/execution_id"),
        ("server_name", "/detail/server"),
        ("tool_name", "/detail/tool"),
        ("actor_id", "/actor/id"),
        ("trace_id", "/trace_id"),
    ],
    mirror_closed: &[("status", "/detail/status"), ("execution_time_ms", "/detail/elapsed_ms")],
};

/// Name of the guard that refuses a second run of one tool use.
pub const DUPLICATE_CALL: &str = "duplicate_call";

/// Kind of a call that the end of the gateway interrupted.
pub const GATEWAY_RESTART: &str = "gateway_restart";

/// Who asked for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallSource {
    Mcp,
    Agent,
    Cli,
    Console,
    Gateway,
}

impl CallSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Agent => "agent",
            Self::Cli => "cli",
            Self::Console => "console",
            Self::Gateway => "gateway",
        }
    }
}

/// How a call ended (MCP-69). A closed row never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Success,
    Failed,
    Timeout,
    Cancelled,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome of the closing entry.
    fn outcome(self) -> &'static str {
        match self {
            Self::Success => "ok",
            Self::Failed => "error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A call that is about to be made.
#[derive(Clone, Debug)]
pub struct NewExecution<'a> {
    pub tool: &'a str,
    pub server: &'a str,
    pub instance: &'a ChildId,
    pub source: CallSource,
    pub decision: DecisionId,
    pub leases: &'a [LeaseId],
    pub node: &'a str,
    /// Keyed digest of the arguments.
    pub input_digest: String,
    pub input_bytes: usize,
    pub started_at: Millis,
}

/// The end of a call.
#[derive(Clone, Debug)]
pub struct Completion {
    pub status: Status,
    pub error_kind: Option<&'static str>,
    /// Our own words; never what a server said.
    pub error_message: Option<String>,
    pub is_error: Option<bool>,
    pub output_digest: Option<String>,
    pub output_bytes: Option<usize>,
    /// What the caller got, or would have got.
    pub output: Option<Bytes>,
    pub completed_at: Millis,
    pub elapsed_ms: i64,
    /// Values in use that were taken out of the answer.
    pub leaks: usize,
    /// How often which rule found what has the form of a secret in the answer; noted, and nothing is held back for it.
    pub secrets: std::collections::BTreeMap<String, u32>,
}

/// An execution that was opened, with what its closing needs.
#[derive(Clone, Debug)]
pub struct OpenExecution {
    pub id: McpExecutionId,
    pub server: String,
    pub tool: String,
    pub started_at: Millis,
}

/// Rows of [`TABLE`].
struct Executions;

impl InTable for Executions {
    const TABLE: &'static Table = &TABLE;
}

/// Writes and reads executions.
#[derive(Clone, Debug)]
pub struct ToolUsageRepository {
    db: Db,
}

impl ToolUsageRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Puts the opening of a call into `unit`. The tool may be called once the unit is committed, never before.
    pub fn start_execution(
        &self,
        unit: &mut Unit,
        context: &RequestContext,
        new: NewExecution<'_>,
    ) -> OpenExecution {
        let id = McpExecutionId::generate();
        let leases: Vec<&str> = new.leases.iter().map(LeaseId::as_str).collect();
        let draft = Draft::new(EntryKind::ToolOpened, context, "opened")
            .with_subject("mcp_tool", format!("{}/{}", new.server, new.tool))
            .with("execution_id", id.as_str())
            .with("decision_id", new.decision.as_str())
            .with("server", new.server)
            .with("tool", new.tool)
            .with("instance", new.instance.as_str())
            .with("leases", leases.clone())
            .with("args", new.input_digest.as_str())
            .with("source", new.source.as_str());
        let (actor_kind, actor_id) = (draft.actor_kind.as_str(), draft.actor_id.clone());
        let entry = unit.record(draft);
        let principal = &context.principal;
        let text = |value: Option<&str>| Cell::from(value);
        unit.open(Opening::<Executions>::new(vec![
            id.as_str().into(),
            new.tool.into(),
            new.server.into(),
            new.instance.as_str().into(),
            "tools/call".into(),
            new.source.as_str().into(),
            principal.user_id.as_str().into(),
            actor_kind.into(),
            Cell::Text(actor_id),
            json_list(&principal.act_chain),
            text(principal.client_id.as_ref().map(AsRef::as_ref)),
            text((!principal.is_anonymous()).then(|| principal.session_id.as_str())),
            text(context.context_id.as_ref().map(AsRef::as_ref)),
            text(context.task_id.as_ref().map(AsRef::as_ref)),
            context.trace_id.as_str().into(),
            text(context.ai_tool_call_id.as_deref()),
            "legacy".into(),
            "legacy".into(),
            new.decision.as_str().into(),
            json_list(&leases),
            new.node.into(),
            new.input_digest.into(),
            (new.input_bytes as i64).into(),
            // The decision's record has the arguments already.
            reference(new.decision.entry().as_str(), Role::Arguments).into(),
            "pending".into(),
            new.started_at.into(),
            (&entry).into(),
        ]));
        if let Some(tool_use) = &context.ai_tool_call_id {
            unit.require(Guard {
                name: DUPLICATE_CALL,
                sql: sql!(
                    "INSERT INTO mcp_tool_use_claims (user_id, ai_tool_call_id, mcp_execution_id, claimed_at)
                     VALUES ($1, $2, $3, $4) ON CONFLICT (user_id, ai_tool_call_id) DO NOTHING"
                ),
                cells: vec![
                    principal.user_id.as_str().into(),
                    tool_use.as_str().into(),
                    id.as_str().into(),
                    new.started_at.into(),
                ],
            });
        }
        OpenExecution { id, server: new.server.into(), tool: new.tool.into(), started_at: new.started_at }
    }

    /// Puts the closing of a call into `unit`; `base` is a `tool.closed` draft of whoever closes it.
    pub fn finish_execution(
        &self,
        unit: &mut Unit,
        base: Draft,
        open: &OpenExecution,
        end: &Completion,
    ) -> EntryId {
        let interrupted = end.error_kind == Some(GATEWAY_RESTART);
        let outcome = if interrupted { "interrupted" } else { end.status.outcome() };
        let mut draft = base;
        draft.outcome = outcome.into();
        let draft = draft
            .with_subject("mcp_tool", format!("{}/{}", open.server, open.tool))
            .with("execution_id", open.id.as_str())
            .with("status", end.status.as_str())
            .with("error_kind", end.error_kind)
            .with("elapsed_ms", end.elapsed_ms)
            .with("result_bytes", end.output_bytes.map(|n| n as i64))
            .with("result", end.output_digest.as_deref())
            .with("leaks", (end.leaks > 0).then_some(end.leaks as i64))
            .with_payload(end.output.clone().map(|output| Payload::json(Role::Result, output)));
        let entry = unit.record(draft);
        let output = end.output.as_ref().map(|_| reference(entry.as_str(), Role::Result));
        unit.close(Closing::<Executions>::new(
            open.id.as_str(),
            vec![
                end.output_digest.clone().into(),
                end.output_bytes.map(|n| n as i64).into(),
                output.into(),
                end.is_error.map(i64::from).into(),
                end.status.as_str().into(),
                end.error_kind.into(),
                end.error_message.clone().into(),
                end.completed_at.into(),
                end.elapsed_ms.into(),
                (&entry).into(),
            ],
        ));
        entry
    }

    /// Executions of `node` that were never closed, at most `limit`.
    pub async fn left_open(&self, node: &str, limit: i64) -> Result<Vec<OpenExecution>, sqlx::Error> {
        let rows: Vec<(String, String, String, i64)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT mcp_execution_id, server_name, tool_name, started_at FROM mcp_tool_executions
             WHERE ledger_closed IS NULL AND node = $1 ORDER BY mcp_execution_id LIMIT $2"
        )).bind(node).bind(limit).fetch_all(pool).await)?;
        let open = |(id, server, tool, started_at): (String, String, String, i64)| OpenExecution {
            id: McpExecutionId::new(id),
            server,
            tool,
            started_at,
        };
        Ok(rows.into_iter().map(open).collect())
    }

    /// Tool, status, kind of error and closing entry of every execution, oldest first.
    #[cfg(test)]
    pub(crate) async fn outcomes(&self) -> Result<Vec<Outcome>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT tool_name, status, error_kind, ledger_closed FROM mcp_tool_executions ORDER BY mcp_execution_id"
        )).fetch_all(pool).await)
    }

    /// One execution, for `explain` and for its owner.
    pub async fn find(&self, id: &McpExecutionId) -> Result<Option<Execution>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT mcp_execution_id, tool_name, server_name, server_instance_id, source, user_id, trace_id, decision_id,
                    status, error_kind, error_message, input_bytes, output_bytes, started_at, completed_at,
                    execution_time_ms, ledger_opened, ledger_closed
             FROM mcp_tool_executions WHERE mcp_execution_id = $1"
        )).bind(id.as_str()).fetch_optional(pool).await)
    }

    /// The executions of one request.
    pub async fn by_trace(&self, trace_id: &str, since: Millis) -> Result<Vec<Execution>, sqlx::Error> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT mcp_execution_id, tool_name, server_name, server_instance_id, source, user_id, trace_id, decision_id,
                    status, error_kind, error_message, input_bytes, output_bytes, started_at, completed_at,
                    execution_time_ms, ledger_opened, ledger_closed
             FROM mcp_tool_executions WHERE trace_id = $1 AND started_at >= $2 ORDER BY mcp_execution_id LIMIT 100"
        )).bind(trace_id).bind(since).fetch_all(pool).await)
    }
}

#[cfg(test)]
pub(crate) type Outcome = (String, String, Option<String>, Option<String>);

/// A stored execution.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Execution {
    pub mcp_execution_id: String,
    pub tool_name: String,
    pub server_name: String,
    pub server_instance_id: String,
    pub source: String,
    pub user_id: String,
    pub trace_id: String,
    pub decision_id: String,
    pub status: String,
    pub error_kind: Option<String>,
    pub error_message: Option<String>,
    pub input_bytes: i64,
    pub output_bytes: Option<i64>,
    pub started_at: Millis,
    pub completed_at: Option<Millis>,
    pub execution_time_ms: Option<i64>,
    pub ledger_opened: String,
    pub ledger_closed: Option<String>,
}

fn json_list<T: serde::Serialize>(items: &[T]) -> Cell {
    if items.is_empty() { Cell::Null } else { serde_json::to_string(items).ok().into() }
}
