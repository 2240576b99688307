//! What is written of other issuers: the links of their subjects, and the ids of their tokens, which are taken once.

use systemprompt_audit::Guard;
use systemprompt_database::sql;
use systemprompt_models::Millis;

/// Name of the guard that one use of a foreign token passes.
pub(crate) const TOKEN_REPLAYED: &str = "oauth_foreign_token_replayed";
/// Name of the guard that the first link of a subject passes.
pub(crate) const ALREADY_LINKED: &str = "oauth_subject_linked";

/// Links a subject, unless it is linked.
pub(crate) fn linked(issuer: &str, subject: &str, user: &str, now: Millis) -> Guard {
    Guard {
        name: ALREADY_LINKED,
        sql: sql!(
            "INSERT INTO federated_identities (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (issuer, subject) DO NOTHING"
        ),
        cells: vec![issuer.into(), subject.into(), user.into(), now.into()],
    }
}

/// Takes the id of a foreign token, once.
pub(crate) fn foreign_token_used(issuer: &str, jti: &str, expires_at: Millis) -> Guard {
    Guard {
        name: TOKEN_REPLAYED,
        sql: sql!(
            "INSERT INTO oauth_assertion_jtis (issuer, jti, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (issuer, jti) DO NOTHING"
        ),
        cells: vec![issuer.into(), jti.into(), expires_at.into()],
    }
}
