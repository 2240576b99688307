//! Turns: what is counted before it is written is counted by one at a time. On PostgreSQL two transactions at once do not see each
//! other's rows, and both would find room for the last one; a row that each must write first keeps them apart. On SQLite the write
//! transaction alone does that.

use aws_lc_rs::digest::{SHA256, digest};
use systemprompt_audit::Guard;
use systemprompt_database::sql;

/// Takes the turn of `whose` in `what`, until the end of the transaction. There are 256 of each kind, so that few wait for somebody
/// else; their rows stay.
pub(crate) fn turn(what: &str, whose: &str) -> Guard {
    let digest = hex::encode(digest(&SHA256, whose.as_bytes()));
    let name = format!("#{what} {}", digest.get(..2).unwrap_or_default());
    Guard {
        name: "turn",
        sql: sql!(
            "INSERT INTO oauth_fetch_budget (name, full_at) VALUES ($1, 0)
             ON CONFLICT (name) DO UPDATE SET full_at = oauth_fetch_budget.full_at"
        ),
        cells: vec![name.as_str().into()],
    }
}
