//! Reads of the ledger: pages by place, single entries, and filtered pages in order of time.

use crate::record::EntryKind;
use crate::repository::checkpoints::{self, CheckpointRow};
use crate::repository::streams::{self, Stream};
use systemprompt_database::{Db, on, sql};
use systemprompt_models::Millis;

/// A row of `ledger_entries`. `record` is the canonical text; the other columns are an index of it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct LedgerRow {
    pub stream: String,
    pub seq: i64,
    pub id: String,
    pub at: Millis,
    pub kind: String,
    pub actor_kind: Option<String>,
    pub actor_id: Option<String>,
    pub act_chain: Option<String>,
    pub session_id: Option<String>,
    pub context_id: Option<String>,
    pub task_id: Option<String>,
    pub trace_id: Option<String>,
    pub client_id: Option<String>,
    pub subject_kind: Option<String>,
    pub subject_id: Option<String>,
    pub outcome: Option<String>,
    pub reason: Option<String>,
    pub policy: Option<String>,
    pub record: Option<String>,
    pub prev_hash: String,
    pub hash: String,
    /// Of a stub, whose record retention has taken away: the id of the record that covers it.
    #[sqlx(default)]
    pub pruned_by: Option<String>,
}

impl LedgerRow {
    /// Whether the record was taken away by retention.
    pub fn is_stub(&self) -> bool {
        self.record.is_none() && self.pruned_by.is_some()
    }
}

/// Which entries are wanted; absent members do not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// A kind, or a family as `tool.*`; several with commas between.
    pub kind: Option<String>,
    pub actor: Option<String>,
    pub subject_kind: Option<String>,
    pub subject_id: Option<String>,
    pub outcome: Option<String>,
    pub policy: Option<String>,
    pub trace_id: Option<String>,
    pub session_id: Option<String>,
    pub context_id: Option<String>,
    pub client_id: Option<String>,
    pub stream: Option<String>,
    /// Epoch milliseconds, inclusive.
    pub since: Option<Millis>,
    /// Epoch milliseconds, exclusive.
    pub until: Option<Millis>,
    pub ascending: bool,
}

impl Filter {
    /// Whether the answer needs an index that the SQLite ledger itself does not have.
    pub(crate) fn needs_lookup(&self) -> bool {
        let by_reference =
            [&self.actor, &self.subject_id, &self.trace_id, &self.session_id, &self.context_id];
        by_reference.iter().any(|member| member.is_some())
    }

    /// What the statement compares kinds with: a `LIKE` pattern of one kind or family (`_` and `%` do not occur in kinds but might
    /// in a hostile filter), or several kinds between commas.
    fn kind_pattern(&self) -> Option<String> {
        let kind = self.kind.as_ref()?;
        if !kind.contains(',') {
            let escaped = kind.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            return Some(match escaped.strip_suffix('*') {
                Some(family) => format!("{family}%"),
                None => escaped,
            });
        }
        let of = |word: &str| -> Vec<String> {
            match word.strip_suffix('*') {
                Some(family) => EntryKind::ALL
                    .iter()
                    .map(|kind| kind.as_str())
                    .filter(|kind| kind.starts_with(family))
                    .map(str::to_owned)
                    .collect(),
                None => vec![word.replace('%', "")],
            }
        };
        Some(kind.split(',').flat_map(of).collect::<Vec<_>>().join(","))
    }

    /// Whether an entry fits, for those who read every entry anyway. Order and cursor are not looked at.
    pub fn matches(&self, row: &LedgerRow) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let is_kind = |word: &str| match word.strip_suffix('*') {
            Some(family) => row.kind.starts_with(family),
            None => row.kind == word,
        };
        self.kind.as_ref().is_none_or(|kinds| kinds.split(',').any(is_kind))
            && is(&self.actor, row.actor_id.as_deref())
            && is(&self.subject_kind, row.subject_kind.as_deref())
            && is(&self.subject_id, row.subject_id.as_deref())
            && is(&self.outcome, row.outcome.as_deref())
            && is(&self.policy, row.policy.as_deref())
            && is(&self.trace_id, row.trace_id.as_deref())
            && is(&self.session_id, row.session_id.as_deref())
            && is(&self.context_id, row.context_id.as_deref())
            && is(&self.client_id, row.client_id.as_deref())
            && is(&self.stream, Some(&row.stream))
            && self.since.is_none_or(|since| row.at >= since)
            && self.until.is_none_or(|until| row.at < until)
    }
}

/// Where a page begins: behind this entry in the order of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    pub at: Millis,
    pub stream: String,
    pub seq: i64,
}

/// Reads the ledger of a database.
#[derive(Clone, Debug)]
pub struct LedgerReader {
    db: Db,
}

impl LedgerReader {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// All streams, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn streams(&self) -> sqlx::Result<Vec<Stream>> {
        streams::list(&self.db).await
    }

    /// Names of streams whose entries are there while their own row is gone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn orphan_streams(&self) -> sqlx::Result<Vec<String>> {
        streams::orphans(&self.db).await
    }

    /// At most `limit` checkpoints of a stream with fewer than `before` records, the newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn checkpoints(
        &self,
        stream: &str,
        before: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<CheckpointRow>> {
        checkpoints::page_back(&self.db, stream, before, limit).await
    }

    /// At most `limit` entries of a stream behind `seq`, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn page(&self, stream: &str, after: i64, limit: i64) -> sqlx::Result<Vec<LedgerRow>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT * FROM ledger_entries WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3"
        )).bind(stream).bind(after).bind(limit).fetch_all(pool).await)
    }

    /// One entry.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn by_id(&self, id: &str) -> sqlx::Result<Option<LedgerRow>> {
        on!(&self.db, pool => sqlx::query_as(sql!("SELECT * FROM ledger_entries WHERE id = $1"))
            .bind(id).fetch_optional(pool).await)
    }

    /// The record text of an entry.
    pub(crate) async fn fill_record(&self, row: &mut LedgerRow) -> sqlx::Result<()> {
        let found: Option<(Option<String>, Option<String>)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT record, pruned_by FROM ledger_entries WHERE stream = $1 AND seq = $2"
        )).bind(row.stream.clone()).bind(row.seq).fetch_optional(pool).await)?;
        (row.record, row.pruned_by) = found.unwrap_or_default();
        Ok(())
    }

    /// A page of the entries that `filter` wants, by (`at`, `stream`, `seq`), newest first unless `ascending`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn filtered(
        &self,
        filter: &Filter,
        after: Option<&After>,
        limit: i64,
    ) -> sqlx::Result<Vec<LedgerRow>> {
        let since = filter.since.unwrap_or(0);
        let until = filter.until.unwrap_or(Millis::MAX);
        macro_rules! bound {
            ($query:expr) => {
                $query
                    .bind(since)
                    .bind(until)
                    .bind(filter.kind_pattern())
                    .bind(filter.actor.clone())
                    .bind(filter.subject_kind.clone())
                    .bind(filter.subject_id.clone())
                    .bind(filter.outcome.clone())
                    .bind(filter.policy.clone())
                    .bind(filter.trace_id.clone())
                    .bind(filter.session_id.clone())
                    .bind(filter.context_id.clone())
                    .bind(filter.client_id.clone())
                    .bind(filter.stream.clone())
                    .bind(after.map_or(if filter.ascending { 0 } else { Millis::MAX }, |a| a.at))
                    .bind(after.map(|a| a.stream.clone()).unwrap_or_default())
                    .bind(after.map_or(0, |a| a.seq))
                    .bind(limit)
            };
        }
        if filter.ascending {
            on!(&self.db, pool => bound!(sqlx::query_as(sql!(
                "SELECT * FROM ledger_entries
                 WHERE at >= $1 AND at < $2
                   AND (CAST($3 AS TEXT) IS NULL OR kind LIKE $3 ESCAPE '\\' OR ',' || $3 || ',' LIKE '%,' || kind || ',%')
                   AND (CAST($4 AS TEXT) IS NULL OR actor_id = $4)
                   AND (CAST($5 AS TEXT) IS NULL OR subject_kind = $5)
                   AND (CAST($6 AS TEXT) IS NULL OR subject_id = $6)
                   AND (CAST($7 AS TEXT) IS NULL OR outcome = $7)
                   AND (CAST($8 AS TEXT) IS NULL OR policy = $8)
                   AND (CAST($9 AS TEXT) IS NULL OR trace_id = $9)
                   AND (CAST($10 AS TEXT) IS NULL OR session_id = $10)
                   AND (CAST($11 AS TEXT) IS NULL OR context_id = $11)
                   AND (CAST($12 AS TEXT) IS NULL OR client_id = $12)
                   AND (CAST($13 AS TEXT) IS NULL OR stream = $13)
                   AND at >= $14 AND (at > $14 OR stream > $15 OR (stream = $15 AND seq > $16))
                 ORDER BY at, stream, seq LIMIT $17"
            ))).fetch_all(pool).await)
        } else {
            on!(&self.db, pool => bound!(sqlx::query_as(sql!(
                "SELECT * FROM ledger_entries
                 WHERE at >= $1 AND at < $2
                   AND (CAST($3 AS TEXT) IS NULL OR kind LIKE $3 ESCAPE '\\' OR ',' || $3 || ',' LIKE '%,' || kind || ',%')
                   AND (CAST($4 AS TEXT) IS NULL OR actor_id = $4)
                   AND (CAST($5 AS TEXT) IS NULL OR subject_kind = $5)
                   AND (CAST($6 AS TEXT) IS NULL OR subject_id = $6)
                   AND (CAST($7 AS TEXT) IS NULL OR outcome = $7)
                   AND (CAST($8 AS TEXT) IS NULL OR policy = $8)
                   AND (CAST($9 AS TEXT) IS NULL OR trace_id = $9)
                   AND (CAST($10 AS TEXT) IS NULL OR session_id = $10)
                   AND (CAST($11 AS TEXT) IS NULL OR context_id = $11)
                   AND (CAST($12 AS TEXT) IS NULL OR client_id = $12)
                   AND (CAST($13 AS TEXT) IS NULL OR stream = $13)
                   AND at <= $14 AND (at < $14 OR stream < $15 OR (stream = $15 AND seq < $16))
                 ORDER BY at DESC, stream DESC, seq DESC LIMIT $17"
            ))).fetch_all(pool).await)
        }
    }
}
