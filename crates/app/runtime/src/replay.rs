//! Replay of recorded decisions against a draft of rules: recorded as an act of whoever asks, and otherwise without effect.

use crate::context::AppContext;
use aws_lc_rs::digest::{SHA256, digest};
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_config::services::draft::PolicyDraft;
use systemprompt_models::{Millis, RequestContext};
use systemprompt_security::authz::AuthzError;
use systemprompt_security::authz::replay::{ReplayReport, ReplayScope, replay};

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Rules(#[from] AuthzError),
    #[error("the replay could not be recorded")]
    Ledger(#[from] LedgerError),
    #[error("the ledger cannot be read")]
    Read(#[from] systemprompt_audit::ReadError),
}

impl AppContext {
    /// Decides what was recorded between `since` and `until` anew, with `draft`.
    ///
    /// # Errors
    /// Rules or a ledger that cannot be read, or a replay that could not be recorded.
    pub async fn replay(
        &self,
        by: &RequestContext,
        draft: &PolicyDraft,
        since: Millis,
        until: Millis,
    ) -> Result<ReplayReport, ReplayError> {
        let tried = self.rules.tried(Some(draft)).await?;
        let text = serde_json::to_vec(draft).unwrap_or_default();
        let mut unit = Unit::new();
        unit.record(
            Draft::new(EntryKind::AdminRuleReplayed, by, "ok")
                .with("draft_sha256", hex::encode(digest(&SHA256, &text)))
                .with("set_hash", tried.rules.set_hash().to_string())
                .with("rules", draft.rules.len())
                .with("since", since)
                .with("until", until),
        );
        self.ledger.append(unit).await?;
        let actors = self.config().profile.governance.authz.actor_check;
        Ok(replay(&self.ledger.reader(), &tried, ReplayScope { since, until, actors }).await?)
    }
}
