//! Calls that an unclean end of this node left open are closed by its next start (MCP-14).

use super::McpToolExecutor;
use crate::repository::tool_usage::{Completion, GATEWAY_RESTART, Status};
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};

/// Why what was left open could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("the open rows could not be read")]
    Read(#[from] sqlx::Error),
    #[error("a closing could not be recorded")]
    Ledger(#[from] LedgerError),
}

impl McpToolExecutor {
    /// Closes what an unclean end of this node left open (MCP-14). Called once, before the first call.
    ///
    /// # Errors
    /// When the rows cannot be read or the closings not be recorded.
    pub async fn close_left_open(&self) -> Result<usize, RecoveryError> {
        let mut closed = 0;
        loop {
            let open = self.usage.left_open(self.supervisor.node(), 256).await?;
            if open.is_empty() {
                return Ok(closed);
            }
            for execution in open {
                let now = self.clock.now();
                let end = Completion {
                    status: Status::Failed,
                    error_kind: Some(GATEWAY_RESTART),
                    error_message: Some("the gateway ended during the call".into()),
                    is_error: None,
                    output_digest: None,
                    output_bytes: None,
                    output: None,
                    completed_at: now,
                    elapsed_ms: (now - execution.started_at).max(0),
                    leaks: 0,
                    secrets: std::collections::BTreeMap::new(),
                };
                let mut unit = Unit::new();
                let base = Draft::system(EntryKind::ToolClosed, "interrupted").with_reason(GATEWAY_RESTART);
                self.usage.finish_execution(&mut unit, base, &execution, &end);
                self.ledger.append(unit).await?;
                closed += 1;
            }
        }
    }
}
