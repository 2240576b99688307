//! `governance_decisions`: one row a decided call, written in the ledger's units and otherwise only read.

use serde::Serialize;
use serde_json::Value;
use systemprompt_audit::{Cell, Col, EntryKind, OpenRow, Table, Unit};
use systemprompt_database::{Db, on, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::{DecisionId, EntryId};

/// The table, as the ledger writes it.
pub static GOVERNANCE_DECISIONS: Table = Table {
    name: "governance_decisions",
    key: "id",
    open: &[
        Col::text("id"),
        Col::text("call_id"),
        Col::text("origin"),
        Col::text("user_id"),
        Col::text("session_id"),
        Col::text("actor_kind"),
        Col::text("actor_id"),
        Col::text("act_chain"),
        Col::text("agent_id"),
        Col::text("agent_scope"),
        Col::text("entity_type"),
        Col::text("entity_id"),
        Col::text("tool_name"),
        Col::text("plugin_id"),
        Col::text("decision"),
        Col::text("policy"),
        Col::text("reason"),
        Col::text("source"),
        Col::json("evaluated_rules"),
        Col::json("findings"),
        Col::text("args_sha256"),
        Col::int("rule_epoch"),
        Col::text("context_id"),
        Col::text("task_id"),
        Col::text("trace_id"),
        Col::text("args_payload").later(),
        Col::text("ledger_opened"),
        Col::int("created_at"),
    ],
    close: &[],
    opened_by: Some(EntryKind::GovernanceDecision),
    mirror: &[
        ("actor_kind", "/actor/kind"),
        ("actor_id", "/actor/id"),
        ("session_id", "/session_id"),
        ("entity_type", "/subject_entity/kind"),
        ("entity_id", "/subject_entity/id"),
        ("decision", "/outcome"),
        ("policy", "/policy"),
        ("call_id", "/detail/call_id"),
        ("origin", "/detail/origin"),
        ("tool_name", "/detail/tool"),
        ("rule_epoch", "/detail/rule_epoch"),
        ("context_id", "/context_id"),
        ("task_id", "/task_id"),
        ("trace_id", "/trace_id"),
    ],
    mirror_closed: &[],
};

/// A decision row as it is written. `evaluated_rules` and `findings` are JSON texts in canonical form.
#[derive(Debug)]
pub struct DecisionRow {
    pub call_id: String,
    pub origin: &'static str,
    pub user_id: String,
    pub session_id: Option<String>,
    pub actor_kind: &'static str,
    pub actor_id: String,
    pub act_chain: Option<String>,
    pub agent_id: Option<String>,
    pub agent_scope: Option<String>,
    pub entity: Option<(&'static str, String)>,
    pub tool_name: Option<String>,
    pub plugin_id: Option<String>,
    pub decision: &'static str,
    pub policy: String,
    pub reason: String,
    pub source: &'static str,
    pub evaluated_rules: String,
    pub findings: String,
    pub args_sha256: Option<String>,
    pub rule_epoch: i64,
    pub context_id: Option<String>,
    pub task_id: Option<String>,
    pub trace_id: Option<String>,
    /// Where the arguments are: a reference as `systemprompt_audit::payload::reference` makes it.
    pub args_payload: Option<String>,
    pub ledger_opened: EntryId,
    pub created_at: Millis,
}

impl OpenRow for DecisionRow {
    const TABLE: &'static Table = &GOVERNANCE_DECISIONS;

    fn cells(self) -> Vec<Cell> {
        let (entity_type, entity_id) = self.entity.unzip();
        vec![
            self.ledger_opened.decision().as_str().into(),
            self.call_id.into(),
            self.origin.into(),
            self.user_id.into(),
            self.session_id.into(),
            self.actor_kind.into(),
            self.actor_id.into(),
            self.act_chain.into(),
            self.agent_id.into(),
            self.agent_scope.into(),
            entity_type.into(),
            entity_id.into(),
            self.tool_name.into(),
            self.plugin_id.into(),
            self.decision.into(),
            self.policy.into(),
            self.reason.into(),
            self.source.into(),
            Cell::canonical(self.evaluated_rules),
            Cell::canonical(self.findings),
            self.args_sha256.into(),
            self.rule_epoch.into(),
            self.context_id.into(),
            self.task_id.into(),
            self.trace_id.into(),
            self.args_payload.into(),
            (&self.ledger_opened).into(),
            self.created_at.into(),
        ]
    }
}

/// Adds the row of a decision to the unit that records it. Returns the row's id.
pub fn insert_governance_decision(unit: &mut Unit, row: DecisionRow) -> DecisionId {
    let id = row.ledger_opened.decision();
    unit.open(row);
    id
}

/// A decision row as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, sqlx::FromRow)]
pub struct GovernanceDecision {
    pub id: String,
    pub call_id: String,
    pub origin: String,
    pub user_id: String,
    pub session_id: Option<String>,
    pub actor_kind: String,
    pub actor_id: String,
    pub act_chain: Option<String>,
    pub agent_id: Option<String>,
    pub agent_scope: Option<String>,
    pub entity_type: Option<String>,
    pub entity_id: Option<String>,
    pub tool_name: Option<String>,
    pub plugin_id: Option<String>,
    pub decision: String,
    pub policy: String,
    pub reason: String,
    pub source: String,
    #[sqlx(json)]
    pub evaluated_rules: Value,
    #[sqlx(json)]
    pub findings: Value,
    pub args_sha256: Option<String>,
    pub rule_epoch: i64,
    pub context_id: Option<String>,
    pub task_id: Option<String>,
    pub trace_id: Option<String>,
    pub args_payload: Option<String>,
    pub ledger_opened: String,
    pub ledger_closed: Option<String>,
    pub created_at: Millis,
}

/// A call that was charged to the call limit.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ChargedCall {
    pub call_id: String,
    pub origin: String,
    pub user_id: String,
    pub session_id: String,
    pub created_at: Millis,
}

/// Reads decisions. On SQLite the table carries no key but the id; look-ups by anything else start from the ledger's query,
/// whose entries name their row.
#[derive(Clone, Debug)]
pub struct GovernanceDecisionRepository {
    db: Db,
}

impl GovernanceDecisionRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// One decision.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn by_id(&self, id: &str) -> sqlx::Result<Option<GovernanceDecision>> {
        on!(&self.db, pool => sqlx::query_as(sql!("SELECT * FROM governance_decisions WHERE id = $1"))
            .bind(id).fetch_optional(pool).await)
    }

    /// At most `limit` decisions before `before` (an id; `None` begins with the newest), newest first. With `decision`, only
    /// those of that outcome.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn latest(
        &self,
        before: Option<&str>,
        decision: Option<&str>,
        limit: i64,
    ) -> sqlx::Result<Vec<GovernanceDecision>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT * FROM governance_decisions
             WHERE (CAST($1 AS TEXT) IS NULL OR id < $1) AND (CAST($2 AS TEXT) IS NULL OR decision = $2)
             ORDER BY id DESC LIMIT $3"
        )).bind(before).bind(decision).bind(limit).fetch_all(pool).await)
    }

    /// The allowed calls from the id `since` on, oldest first, for seeding the counters of the call limit.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn charged_since(&self, since: &str, limit: i64) -> sqlx::Result<Vec<ChargedCall>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT call_id, origin, user_id, COALESCE(session_id, '') AS session_id, created_at
             FROM governance_decisions WHERE id >= $1 AND decision = 'allow' ORDER BY id LIMIT $2"
        )).bind(since).bind(limit).fetch_all(pool).await)
    }
}
