//! Who reads the ledger (AUD-60): administrators, and users with the role `auditor`.

use systemprompt_models::{Permission, Principal, Refusal, RequestContext};

/// The role that reads and verifies.
pub(crate) const AUDITOR: &str = "auditor";
/// Permissions of a credential that may ask at all; who is no administrator needs the role.
pub(crate) const READERS: &[Permission] = &[Permission::Admin, Permission::User];

/// Whether somebody may read everything.
pub(crate) fn is_reader(principal: &Principal) -> bool {
    principal.has(Permission::Admin) || principal.roles.iter().any(|role| role == AUDITOR)
}

/// Refuses who may not.
///
/// # Errors
/// 403 `denied`.
pub(crate) fn may_read(caller: &RequestContext) -> Result<(), Refusal> {
    if is_reader(&caller.principal) {
        return Ok(());
    }
    Err(Refusal::denied(
        "audit_access",
        "the ledger is read by administrators and by users with the role `auditor`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn administrators_and_auditors_read_and_nobody_else() {
        let of = |permission: Permission, roles: &[&str]| Principal {
            permissions: vec![permission],
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Principal::anonymous()
        };
        assert!(is_reader(&of(Permission::Admin, &[])));
        assert!(is_reader(&of(Permission::User, &["user", "auditor"])));
        for roles in [&[] as &[&str], &["user"], &["auditors"], &["auditor-content"]] {
            assert!(!is_reader(&of(Permission::User, roles)), "{roles:?}");
        }
    }
}
