//! Sessions opened and ended as the product does it, for the tests of this crate.

use super::{SessionOpened, Sessions, TokensExtension, UserEnd};
use systemprompt_audit::{Draft, EntryKind, Ledger, Unit};
use systemprompt_database::{Db, Migration};
use systemprompt_extension::Extension as _;
use systemprompt_models::Millis;
use systemprompt_models::ids::UserId;
use systemprompt_models::session::CreateSessionInput;

pub(crate) fn migrations() -> Vec<Migration> {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(TokensExtension.migrations());
    migrations
}

pub(crate) async fn ledger(db: &Db) -> Ledger {
    systemprompt_audit::testing::ledger(db, &TokensExtension.tables()).await
}

/// Opens a session in the unit of its record.
pub(crate) async fn open(ledger: &Ledger, new: CreateSessionInput, now: Millis) {
    let mut unit = Unit::new();
    unit.record(Draft::system(EntryKind::OauthSessionCreated, "ok"));
    unit.open(SessionOpened::new(new, now));
    drop(ledger.commit(unit).await.unwrap());
}

/// Ends every session of a user. Returns how many were live.
pub(crate) async fn end_user(sessions: &Sessions, db: &Db, user: &UserId, reason: &str) -> usize {
    let mut tx = db.write_tx().await.unwrap();
    let ended = sessions.end_in(&mut tx, user, UserEnd::All, reason).await.unwrap();
    tx.commit().await.unwrap();
    sessions.apply_end(ended)
}
