//! Which child holds which secret. A lease opens in the unit that permits the start of the child and closes when the child
//! has ended.

use super::rows::{Closing, InTable, Opening};
use systemprompt_audit::{Cell, Col, Draft, EntryKind, Table, Unit};
use systemprompt_database::{Db, on, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::{ChildId, LeaseId};

/// The table of leases.
pub static TABLE: Table = Table {
    name: "secret_leases",
    key: "id",
    open: &[
        Col::text("id"),
        Col::text("node"),
        Col::text("secret_name"),
        Col::text("server"),
        Col::text("principal_id"),
        Col::text("child_id"),
        Col::text("inject"),
        Col::int("granted_at"),
        Col::text("ledger_opened"),
    ],
    close: &[Col::int("ended_at"), Col::text("end_reason"), Col::text("ledger_closed")],
    opened_by: Some(EntryKind::SecretLeased),
    mirror: &[
        ("id", "/detail/lease"),
        ("secret_name", "/detail/name"),
        ("server", "/detail/server"),
        ("child_id", "/detail/child"),
    ],
    mirror_closed: &[("end_reason", "/reason")],
};

/// Why a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The child was stopped by us.
    Stopped,
    /// The child ended by itself.
    Exited,
    /// The child never became ready.
    StartFailed,
    /// The gateway ended without telling; its next start closed the lease.
    GatewayRestart,
}

impl EndReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Exited => "exited",
            Self::StartFailed => "start_failed",
            Self::GatewayRestart => "gateway_restart",
        }
    }
}

/// A lease that was granted.
#[derive(Clone, Debug)]
pub struct Lease {
    pub id: LeaseId,
    pub secret: String,
    pub server: String,
    pub child: ChildId,
}

/// Rows of [`TABLE`].
struct Leases;

impl InTable for Leases {
    const TABLE: &'static Table = &TABLE;
}

/// Writes and reads leases.
#[derive(Clone, Debug)]
pub struct LeaseRepository {
    db: Db,
}

impl LeaseRepository {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Puts a lease into `unit`; `base` is a `secret.leased` draft of whoever caused the start.
    pub fn grant(&self, unit: &mut Unit, base: Draft, node: &str, lease: &Lease, now: Millis) {
        let principal = Cell::Text(base.actor_id.clone());
        let draft = base
            .with_subject("mcp_server", lease.server.as_str())
            .with("lease", lease.id.as_str())
            .with("name", lease.secret.as_str())
            .with("server", lease.server.as_str())
            .with("child", lease.child.as_str())
            .with("inject", "env");
        let entry = unit.record(draft);
        unit.open(Opening::<Leases>::new(vec![
            lease.id.as_str().into(),
            node.into(),
            lease.secret.as_str().into(),
            lease.server.as_str().into(),
            principal,
            lease.child.as_str().into(),
            "env".into(),
            now.into(),
            (&entry).into(),
        ]));
    }

    /// Puts the end of a lease into `unit`.
    pub fn end(&self, unit: &mut Unit, lease: &Lease, reason: EndReason, now: Millis) {
        let draft = Draft::system(EntryKind::SecretEnded, "ok")
            .with_subject("mcp_server", lease.server.as_str())
            .with_reason(reason.as_str())
            .with("lease", lease.id.as_str())
            .with("name", lease.secret.as_str())
            .with("child", lease.child.as_str());
        let entry = unit.record(draft);
        let cells = vec![now.into(), reason.as_str().into(), (&entry).into()];
        unit.close(Closing::<Leases>::new(lease.id.as_str(), cells));
    }

    /// Leases of `node` that were never ended, at most `limit`.
    pub async fn left_open(&self, node: &str, limit: i64) -> Result<Vec<Lease>, sqlx::Error> {
        let rows: Vec<(String, String, String, String)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, secret_name, server, child_id FROM secret_leases
             WHERE ledger_closed IS NULL AND node = $1 ORDER BY id LIMIT $2"
        )).bind(node).bind(limit).fetch_all(pool).await)?;
        let lease = |(id, secret, server, child): (String, String, String, String)| Lease {
            id: LeaseId::new(id),
            secret,
            server,
            child: ChildId::new(child),
        };
        Ok(rows.into_iter().map(lease).collect())
    }
}
