//! The table `ai_requests`: the rows that a call's units open and close, and the reads on it.

use serde_json::{Map, Value};
use systemprompt_audit::{Cell, CloseRow, Col, EntryKind, OpenRow, Table};
use systemprompt_database::{Db, on, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::{AiRequestId, DecisionId, EntryId};
use uuid::Uuid;

/// One row a model call. On SQLite its keys grow with time: its own id and the opening entry's.
pub static AI_REQUESTS: Table = Table {
    name: "ai_requests",
    key: "id",
    open: &[
        Col::text("id"),
        Col::text("ledger_opened"),
        Col::text("ledger_stream"),
        Col::text("user_id"),
        Col::text("client_id"),
        Col::text("api_key_id"),
        Col::text("session_id"),
        Col::text("conversation_id"),
        Col::text("context_id"),
        Col::text("task_id"),
        Col::text("trace_id"),
        Col::text("agent_id"),
        Col::text("parent_agent_id"),
        Col::json("act_chain"),
        Col::text("operation"),
        Col::text("protocol_in"),
        Col::text("protocol_out"),
        Col::text("route"),
        Col::text("provider"),
        Col::text("model_requested"),
        Col::text("model_upstream"),
        Col::int("stream"),
        Col::int("max_tokens"),
        Col::text("decision_id"),
        Col::text("client_body_sha256"),
        Col::text("forwarded_body_sha256"),
        Col::text("body_salt"),
        Col::int("body_bytes"),
        Col::json("edits"),
        Col::json("client_info"),
        Col::int("opened_at"),
    ],
    close: &[
        Col::text("ledger_closed"),
        Col::text("model_response"),
        Col::int("status"),
        Col::text("outcome"),
        Col::text("error_type"),
        Col::text("response_sha256"),
        Col::int("response_bytes"),
        Col::int("input_tokens"),
        Col::int("output_tokens"),
        Col::int("cache_read_tokens"),
        Col::int("cache_write_5m_tokens"),
        Col::int("cache_write_1h_tokens"),
        Col::int("cost_micro"),
        Col::text("price_id"),
        Col::text("price_source"),
        Col::text("usage_source"),
        Col::text("stop_reason"),
        Col::text("provider_request_id"),
        Col::int("tool_calls"),
        Col::int("injected_pings"),
        Col::int("ttft_ms"),
        Col::int("upstream_ms"),
        Col::int("total_ms"),
        Col::int("sent_at"),
        Col::int("closed_at"),
    ],
    opened_by: Some(EntryKind::InferenceOpened),
    mirror: &[
        ("id", "/detail/request_id"),
        ("route", "/detail/route"),
        ("provider", "/detail/provider"),
        ("operation", "/detail/operation"),
        ("decision_id", "/detail/decision_id"),
        ("user_id", "/actor/id"),
        ("trace_id", "/trace_id"),
        ("context_id", "/context_id"),
    ],
    mirror_closed: &[
        ("outcome", "/detail/result"),
        ("status", "/detail/status"),
        ("cost_micro", "/detail/cost_microdollars"),
        ("usage_source", "/detail/usage_source"),
    ],
};

/// A call that is about to be sent.
#[derive(Debug)]
pub struct Opened {
    pub id: AiRequestId,
    pub ledger_opened: EntryId,
    pub ledger_stream: String,
    pub user_id: String,
    pub client_id: Option<String>,
    pub api_key_id: Option<String>,
    pub session_id: Option<String>,
    pub conversation_id: String,
    pub context_id: Option<String>,
    pub task_id: Option<String>,
    pub trace_id: String,
    pub act_chain: Vec<String>,
    pub operation: &'static str,
    pub protocol: &'static str,
    pub route: String,
    pub provider: String,
    pub model_requested: String,
    pub model_upstream: String,
    pub stream: bool,
    pub max_tokens: Option<u64>,
    pub decision_id: DecisionId,
    pub client_body_sha256: String,
    pub forwarded_body_sha256: String,
    /// Key of the commitments in the ledger to this row's hashes.
    pub body_salt: String,
    pub body_bytes: usize,
    /// A JSON array.
    pub edits: String,
    /// Headers of the client that are recorded and not interpreted.
    pub client_info: Map<String, Value>,
    pub opened_at: Millis,
}

impl OpenRow for Opened {
    const TABLE: &'static Table = &AI_REQUESTS;

    fn cells(self) -> Vec<Cell> {
        let note = |name: &str| self.client_info.get(name).and_then(Value::as_str).map(Cell::from);
        let agent_id = note("x-claude-code-agent-id").unwrap_or(Cell::Null);
        let parent_agent_id = note("x-claude-code-parent-agent-id").unwrap_or(Cell::Null);
        vec![
            self.id.as_str().into(),
            (&self.ledger_opened).into(),
            self.ledger_stream.into(),
            self.user_id.into(),
            self.client_id.into(),
            self.api_key_id.into(),
            self.session_id.into(),
            self.conversation_id.into(),
            self.context_id.into(),
            self.task_id.into(),
            self.trace_id.into(),
            agent_id,
            parent_agent_id,
            if self.act_chain.is_empty() {
                Cell::Null
            } else {
                Value::from(self.act_chain).to_string().into()
            },
            self.operation.into(),
            self.protocol.into(),
            self.protocol.into(),
            self.route.into(),
            self.provider.into(),
            self.model_requested.into(),
            self.model_upstream.into(),
            self.stream.into(),
            self.max_tokens.and_then(|n| i64::try_from(n).ok()).into(),
            self.decision_id.as_str().into(),
            self.client_body_sha256.into(),
            self.forwarded_body_sha256.into(),
            self.body_salt.into(),
            (self.body_bytes as i64).into(),
            self.edits.into(),
            Value::Object(self.client_info).to_string().into(),
            self.opened_at.into(),
        ]
    }
}

/// How a call ended. Absent members stay null.
#[derive(Debug, Default)]
pub struct Closed {
    pub id: String,
    pub ledger_closed: Option<EntryId>,
    pub model_response: Option<String>,
    pub status: Option<u16>,
    pub outcome: &'static str,
    pub error_type: Option<String>,
    pub response_sha256: Option<String>,
    pub response_bytes: Option<i64>,
    pub usage: Option<crate::pricing::Usage>,
    pub cost_micro: Option<i64>,
    pub price_id: Option<String>,
    pub price_source: Option<&'static str>,
    pub usage_source: Option<&'static str>,
    pub stop_reason: Option<String>,
    pub provider_request_id: Option<String>,
    pub tool_calls: Option<u32>,
    pub injected_pings: Option<u32>,
    pub ttft_ms: Option<Millis>,
    pub upstream_ms: Option<Millis>,
    pub total_ms: Option<Millis>,
    pub sent_at: Option<Millis>,
    pub closed_at: Millis,
}

impl CloseRow for Closed {
    const TABLE: &'static Table = &AI_REQUESTS;

    fn key(&self) -> &str {
        &self.id
    }

    fn cells(self) -> Vec<Cell> {
        let tokens = |of: fn(&crate::pricing::Usage) -> u64| {
            Cell::from(self.usage.as_ref().map(|usage| i64::try_from(of(usage)).unwrap_or(i64::MAX)))
        };
        vec![
            self.ledger_closed.as_ref().into_cell(),
            self.model_response.into(),
            self.status.map(i64::from).into(),
            self.outcome.into(),
            self.error_type.into(),
            self.response_sha256.into(),
            self.response_bytes.into(),
            tokens(|usage| usage.input),
            tokens(|usage| usage.output),
            tokens(|usage| usage.cache_read),
            tokens(|usage| usage.cache_write_5m),
            tokens(|usage| usage.cache_write_1h),
            self.cost_micro.into(),
            self.price_id.into(),
            self.price_source.into(),
            self.usage_source.into(),
            self.stop_reason.into(),
            self.provider_request_id.into(),
            self.tool_calls.map(i64::from).into(),
            self.injected_pings.map(i64::from).into(),
            self.ttft_ms.into(),
            self.upstream_ms.into(),
            self.total_ms.into(),
            self.sent_at.into(),
            self.closed_at.into(),
        ]
    }
}

trait IntoCell {
    fn into_cell(self) -> Cell;
}

impl IntoCell for Option<&EntryId> {
    fn into_cell(self) -> Cell {
        self.map_or(Cell::Null, Cell::from)
    }
}

/// A row as it is read.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct AiRequest {
    pub id: String,
    pub ledger_opened: String,
    pub ledger_closed: Option<String>,
    pub ledger_stream: String,
    pub user_id: String,
    pub client_id: Option<String>,
    pub api_key_id: Option<String>,
    pub session_id: Option<String>,
    pub conversation_id: String,
    pub context_id: Option<String>,
    pub trace_id: String,
    pub operation: String,
    pub protocol_in: String,
    pub protocol_out: String,
    pub route: String,
    pub provider: String,
    pub model_requested: String,
    pub model_upstream: String,
    pub model_response: Option<String>,
    pub stream: i64,
    pub max_tokens: Option<i64>,
    pub status: Option<i64>,
    pub outcome: Option<String>,
    pub error_type: Option<String>,
    pub decision_id: String,
    pub client_body_sha256: String,
    pub forwarded_body_sha256: String,
    pub response_sha256: Option<String>,
    pub body_salt: String,
    pub body_bytes: i64,
    pub response_bytes: Option<i64>,
    /// A JSON array.
    pub edits: String,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cache_read_tokens: Option<i64>,
    pub cache_write_5m_tokens: Option<i64>,
    pub cache_write_1h_tokens: Option<i64>,
    pub cost_micro: Option<i64>,
    pub price_id: Option<String>,
    pub price_source: Option<String>,
    pub usage_source: Option<String>,
    pub stop_reason: Option<String>,
    pub provider_request_id: Option<String>,
    pub tool_calls: Option<i64>,
    pub injected_pings: Option<i64>,
    pub ttft_ms: Option<i64>,
    pub upstream_ms: Option<i64>,
    pub total_ms: Option<i64>,
    pub opened_at: Millis,
    pub sent_at: Option<Millis>,
    pub closed_at: Option<Millis>,
}

/// A call that a process left open.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OpenRequest {
    pub id: String,
    pub ledger_opened: String,
    pub ledger_stream: String,
    pub route: String,
    pub opened_at: Millis,
}

/// Reads `ai_requests`.
#[derive(Clone, Debug)]
pub struct GatewayRequests {
    db: Db,
}

/// How far apart the ids of one call are made.
const CALL_MILLIS: u64 = 60_000;

impl GatewayRequests {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// # Errors
    /// When the database cannot be read.
    pub async fn by_id(&self, id: &str) -> sqlx::Result<Option<AiRequest>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, ledger_opened, ledger_closed, ledger_stream, user_id, client_id, api_key_id, session_id,
                    conversation_id, context_id, trace_id, operation, protocol_in, protocol_out, route, provider,
                    model_requested, model_upstream, model_response, stream, max_tokens, status, outcome, error_type,
                    decision_id, client_body_sha256, forwarded_body_sha256, response_sha256, body_salt, body_bytes,
                    response_bytes, CAST(edits AS TEXT) AS edits, input_tokens, output_tokens, cache_read_tokens,
                    cache_write_5m_tokens, cache_write_1h_tokens, cost_micro, price_id, price_source, usage_source,
                    stop_reason, provider_request_id, tool_calls, injected_pings, ttft_ms, upstream_ms, total_ms,
                    opened_at, sent_at, closed_at
             FROM ai_requests WHERE id = $1"
        )).bind(id).fetch_optional(pool).await)
    }

    /// The call whose `inference.opened` record is `entry`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn by_decision_entry(&self, entry: &EntryId) -> sqlx::Result<Option<AiRequest>> {
        let found: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id FROM ai_requests WHERE ledger_opened = $1"
        )).bind(entry.as_str()).fetch_optional(pool).await)?;
        self.first(found).await
    }

    /// The call that `decision` let pass. Both ids tell their time, so only the rows around it are read.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn by_decision(&self, decision: &DecisionId) -> sqlx::Result<Option<AiRequest>> {
        let Some((from, to)) = decision.uuid().as_ref().and_then(around) else { return Ok(None) };
        let found: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id FROM ai_requests WHERE id >= $1 AND id < $2 AND decision_id = $3"
        )).bind(from).bind(to).bind(decision.as_str()).fetch_optional(pool).await)?;
        self.first(found).await
    }

    /// The newest calls of a trace. On SQLite a trace that names no time is looked for in the newest `scan` rows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn by_trace(&self, trace_id: &str, scan: i64) -> sqlx::Result<Vec<String>> {
        let found: Vec<(String,)> = match &self.db {
            Db::Postgres(pool) => {
                sqlx::query_as(sql!(
                    "SELECT id FROM ai_requests WHERE trace_id = $1 ORDER BY id DESC LIMIT 100"
                ))
                .bind(trace_id)
                .fetch_all(pool)
                .await?
            }
            Db::Sqlite(db) => {
                sqlx::query_as(sql!(
                    "SELECT id FROM (SELECT id, trace_id FROM ai_requests ORDER BY id DESC LIMIT $1) AS newest
                     WHERE trace_id = $2 LIMIT 100"
                ))
                .bind(scan)
                .bind(trace_id)
                .fetch_all(db.reader())
                .await?
            }
        };
        Ok(found.into_iter().map(|(id,)| id).collect())
    }

    /// At most `limit` calls that `ledger_stream` opened before `before` and nobody closed, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open_of_stream(
        &self,
        ledger_stream: &str,
        before: Millis,
        limit: i64,
    ) -> sqlx::Result<Vec<OpenRequest>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, ledger_opened, ledger_stream, route, opened_at FROM ai_requests
             WHERE ledger_closed IS NULL AND ledger_stream = $1 AND opened_at < $2 ORDER BY id LIMIT $3"
        )).bind(ledger_stream).bind(before).bind(limit).fetch_all(pool).await)
    }

    async fn first(&self, found: Option<(String,)>) -> sqlx::Result<Option<AiRequest>> {
        match found {
            Some((id,)) => self.by_id(&id).await,
            None => Ok(None),
        }
    }
}

/// The range of request ids that were made around the time of a UUIDv7.
fn around(uuid: &Uuid) -> Option<(String, String)> {
    let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
    let at = seconds.saturating_mul(1000) + u64::from(nanos / 1_000_000);
    let bound = |at: u64| format!("{}{at:012x}", AiRequestId::PREFIX);
    Some((bound(at.saturating_sub(CALL_MILLIS)), bound(at.saturating_add(CALL_MILLIS))))
}
