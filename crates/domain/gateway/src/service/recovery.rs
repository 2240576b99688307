//! What an earlier process of this node left open is closed before the node turns ready (AUD-55).

use super::ClaudeGatewayService;
use crate::repository::{Closed, OpenRequest};
use crate::settle::Outcome;
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_models::Millis;

/// Rows that are closed in one unit: a unit holds at most sixteen records.
const UNIT: usize = 16;
/// Rows that are read at once.
const PAGE: i64 = 512;

/// Why what was left open could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("the open model requests could not be read")]
    Read(#[source] sqlx::Error),
    #[error("a closing record could not be written")]
    Ledger(#[source] LedgerError),
}

impl ClaudeGatewayService {
    /// Closes the calls that `ledger_stream` opened before `before` (epoch milliseconds) and nobody closed, and tells how many
    /// they were. `reason` is `node_restart`, or `node_lost` for a node that stays dead. Two nodes may run it at once: each
    /// row is closed once.
    ///
    /// # Errors
    /// When the database or the ledger fails; what was closed until then stays closed.
    pub async fn recover(
        &self,
        ledger_stream: &str,
        before: Millis,
        reason: &'static str,
    ) -> Result<u64, RecoveryError> {
        let mut closed = 0;
        loop {
            let rows = self.requests().open_of_stream(ledger_stream, before, PAGE).await;
            let rows = rows.map_err(RecoveryError::Read)?;
            if rows.is_empty() {
                return Ok(closed);
            }
            let mut progress = 0;
            for chunk in rows.chunks(UNIT) {
                progress += self.close_interrupted(chunk, reason).await?;
            }
            closed += progress;
            if progress == 0 {
                // Another node is closing these very rows.
                return Ok(closed);
            }
        }
    }

    async fn close_interrupted(
        &self,
        rows: &[OpenRequest],
        reason: &'static str,
    ) -> Result<u64, RecoveryError> {
        match self.0.closer.ledger.append(self.interrupted(rows, reason)).await {
            Ok(_) => Ok(rows.len() as u64),
            // One of them was closed meanwhile: each for itself, then.
            Err(LedgerError::Row { .. } | LedgerError::Guard(_)) if rows.len() > 1 => {
                let mut closed = 0;
                for row in rows.chunks(1) {
                    match self.0.closer.ledger.append(self.interrupted(row, reason)).await {
                        Ok(_) => closed += 1,
                        Err(LedgerError::Row { .. } | LedgerError::Guard(_)) => {}
                        Err(error) => return Err(RecoveryError::Ledger(error)),
                    }
                }
                Ok(closed)
            }
            Err(LedgerError::Row { .. } | LedgerError::Guard(_)) => Ok(0),
            Err(error) => Err(RecoveryError::Ledger(error)),
        }
    }

    fn interrupted(&self, rows: &[OpenRequest], reason: &'static str) -> Unit {
        let now = self.0.closer.clock.now();
        let mut unit = Unit::new();
        for row in rows {
            let outcome = Outcome::Expired;
            let ledger_closed = unit.record(
                Draft::system(EntryKind::InferenceClosed, outcome.entry())
                    .with_subject("gateway_route", row.route.as_str())
                    .with_reason(reason)
                    .with("request_id", row.id.as_str())
                    .with("opened", row.ledger_opened.as_str())
                    .with("opened_stream", row.ledger_stream.as_str())
                    .with("result", outcome.as_str()),
            );
            unit.close(Closed {
                id: row.id.clone(),
                ledger_closed: Some(ledger_closed),
                outcome: outcome.as_str(),
                error_type: Some(reason.to_owned()),
                total_ms: Some((now - row.opened_at).max(0)),
                closed_at: now,
                ..Closed::default()
            });
        }
        unit
    }
}
