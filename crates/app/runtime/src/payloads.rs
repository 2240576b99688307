//! Reading the body of a payload: for administrators and users with the role `auditor-content`, and never unrecorded.

use crate::context::AppContext;
use systemprompt_audit::payload::read::{Body, PayloadError};
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_models::{Code, Permission, Principal, Refusal, RequestContext};

/// The role that reads bodies.
pub const AUDITOR_CONTENT: &str = "auditor-content";

/// Whether somebody may read bodies of payloads. Who may read records (`auditor`) may not for that alone.
pub fn reads_content(principal: &Principal) -> bool {
    principal.has(Permission::Admin) || principal.roles.iter().any(|role| role == AUDITOR_CONTENT)
}

impl AppContext {
    /// The body of a payload of the entry `id`.
    ///
    /// # Errors
    /// Who may not read it, an entry or a payload that is not there, or a reading that could not be recorded.
    pub async fn read_payload(&self, by: &RequestContext, id: &str, role: &str) -> Result<Body, Refusal> {
        let is_allowed = reads_content(&by.principal);
        let row = match self.ledger.reader().by_id(id).await {
            Ok(row) => row,
            Err(error) => {
                tracing::error!(%error, "an entry cannot be read");
                return Err(Refusal::internal());
            }
        };
        let mut unit = Unit::new();
        let draft = Draft::new(EntryKind::AdminAuditRead, by, if is_allowed { "ok" } else { "denied" });
        // What the caller wrote is repeated only where it is what the ledger has.
        let named = systemprompt_audit::Role::parse(role).map(systemprompt_audit::Role::as_str);
        let draft = draft.with("payload", named.unwrap_or("unknown"));
        unit.record(match &row {
            Some(row) => draft.with_subject("ledger_entry", row.id.as_str()),
            None => draft,
        });
        self.ledger.append(unit).await?;
        if !is_allowed {
            let who = "bodies are read by administrators and by users with the role `auditor-content`";
            return Err(Refusal::denied("audit_content", who));
        }
        let row = row.ok_or_else(|| Refusal::new(Code::NotFound, "there is no such entry"))?;
        self.ledger.reader().payload(&row, role).await.map_err(|error| match error {
            PayloadError::NoSuch(_) | PayloadError::NotStored { .. } => {
                Refusal::new(Code::NotFound, error.to_string())
            }
            PayloadError::Altered(_) => Refusal::new(Code::LedgerDamaged, error.to_string()),
            PayloadError::Read(cause) => {
                tracing::error!(error = %cause, "a payload cannot be read");
                Refusal::internal()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_for_administrators_and_for_the_role_alone() {
        let of = |permission, roles: &[&str]| {
            let mut principal = Principal::anonymous();
            principal.permissions = vec![permission];
            principal.roles = roles.iter().map(|role| (*role).to_owned()).collect();
            reads_content(&principal)
        };
        assert!(of(Permission::Admin, &[]));
        assert!(of(Permission::User, &["user", "auditor-content"]));
        for roles in [&[] as &[&str], &["user"], &["auditor"], &["auditor-contents"]] {
            assert!(!of(Permission::User, roles), "{roles:?}");
        }
    }
}
