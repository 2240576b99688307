//! Rows of passkeys and of the ceremonies that make and use them.

use super::turns::turn;
use crate::services::webauthn::registry::PasskeyRow;
use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;

/// Most ceremonies that are open at once, 100,000, in 256 parts by the beginning of their ids: each is counted by itself, in a
/// moment. Ids are random, so that the parts fill up together.
pub(crate) const MAX_OF_PART: i64 = 100_000 / 256;
/// Most passkeys of one user.
pub(crate) const MAX_PASSKEYS: i64 = 20;

/// A ceremony that begins.
pub(crate) struct NewChallenge<'a> {
    pub id: &'a str,
    pub kind: &'static str,
    pub state: &'a str,
    pub user_id: Option<&'a str>,
    pub flow_digest: &'a str,
    pub now: Millis,
    pub expires_at: Millis,
}

/// Stores a ceremony, whose id is hex digits. False when too many are open in its part.
pub(crate) async fn insert_challenge(db: &Db, new: &NewChallenge<'_>) -> sqlx::Result<bool> {
    let mut tx = db.write_tx().await?;
    let part = new.id.get(..2).unwrap_or(new.id);
    turn("challenge", part).holds_in(&mut tx).await?;
    // A few of those that have ended go; the clean-up job deletes the others.
    on_tx!(tx, conn => sqlx::query(sql!(
        "DELETE FROM webauthn_challenges WHERE challenge_id IN
             (SELECT challenge_id FROM webauthn_challenges WHERE expires_at <= $1 ORDER BY expires_at LIMIT 10)"
    )).bind(new.now).execute(&mut *conn).await.map(drop))?;
    let stored = on_tx!(tx, conn => sqlx::query(sql!(
        "INSERT INTO webauthn_challenges (challenge_id, kind, state, user_id, flow_digest, created_at, expires_at)
         SELECT $1, $2, $3, $4, $5, CAST($6 AS BIGINT), CAST($7 AS BIGINT)
         WHERE (SELECT COUNT(*) FROM webauthn_challenges
                WHERE challenge_id >= $8 AND challenge_id < $9 AND expires_at > $6) < CAST($10 AS BIGINT)"
    ))
        .bind(new.id).bind(new.kind).bind(new.state).bind(new.user_id).bind(new.flow_digest).bind(new.now)
        .bind(new.expires_at).bind(part).bind(format!("{part}g")).bind(MAX_OF_PART)
        .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(stored == 1)
}

/// An open ceremony of this kind and browser: (state, user).
pub(crate) async fn challenge(
    db: &Db,
    id: &str,
    kind: &str,
    (flow, flow_previous): (&str, &str),
    now: Millis,
) -> sqlx::Result<Option<(String, Option<String>)>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT state, user_id FROM webauthn_challenges
         WHERE challenge_id = $1 AND kind = $2 AND flow_digest IN ($3, $4) AND expires_at > $5"
    )).bind(id).bind(kind).bind(flow).bind(flow_previous).bind(now).fetch_optional(pool).await)
}

/// Takes a ceremony of this kind and browser: (state, user). Only one call gets it.
pub(crate) async fn take_challenge(
    db: &Db,
    id: &str,
    kind: &str,
    (flow, flow_previous): (&str, &str),
    now: Millis,
) -> sqlx::Result<Option<(String, Option<String>)>> {
    let mut tx = db.write_tx().await?;
    let taken = on_tx!(tx, conn => sqlx::query_as(sql!(
        "DELETE FROM webauthn_challenges
         WHERE challenge_id = $1 AND kind = $2 AND flow_digest IN ($3, $4) AND expires_at > $5
         RETURNING state, user_id"
    )).bind(id).bind(kind).bind(flow).bind(flow_previous).bind(now).fetch_optional(&mut *conn).await)?;
    tx.commit().await?;
    Ok(taken)
}

/// The passkeys of a user, the oldest first.
pub(crate) async fn passkeys_of(db: &Db, user_id: &str) -> sqlx::Result<Vec<PasskeyRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT credential_id, user_id, passkey, counter, backup_eligible, backup_state, aaguid, transports, name, status,
                created_at, last_used_at
         FROM webauthn_credentials WHERE user_id = $1 ORDER BY created_at, credential_id"
    )).bind(user_id).fetch_all(pool).await)
}

/// Whoever may sign in and has this mail, in lower case, with the ids of at most `most` passkeys: those that were used last come first.
/// For a mail that nobody has somebody else's are read, and dropped, so that both take the same time (ID-86).
pub(crate) async fn named_by(db: &Db, mail: &str, most: i64) -> sqlx::Result<Option<(String, Vec<String>)>> {
    type Named = (Option<String>, Option<String>, Option<String>);
    let (of, user, ids): Named = on!(db, pool => sqlx::query_as(sql!(
        "SELECT MAX(n.email_key), MAX(n.user_id),
                STRING_AGG(n.credential_id, ' ' ORDER BY n.used DESC, n.created_at, n.credential_id)
         FROM (SELECT CASE WHEN u.kind = 'person' AND u.status = 'active' THEN u.email_key END AS email_key, u.id AS user_id,
                   c.credential_id, c.created_at, COALESCE(c.last_used_at, c.created_at) AS used
               FROM users u LEFT JOIN webauthn_credentials c ON c.user_id = u.id AND c.status = 'active'
               WHERE u.id = COALESCE(
                   (SELECT id FROM users WHERE email_key = $1 AND kind = 'person' AND status = 'active'),
                   (SELECT user_id FROM webauthn_credentials ORDER BY credential_id LIMIT 1))
               ORDER BY used DESC, c.created_at, c.credential_id LIMIT $2) n"
    )).bind(mail).bind(most).fetch_one(pool).await)?;
    let ids: Vec<String> = ids.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    Ok(user.filter(|_| of.as_deref() == Some(mail)).map(|user| (user, ids)))
}

/// One passkey.
pub(crate) async fn passkey(db: &Db, id: &str) -> sqlx::Result<Option<PasskeyRow>> {
    on!(db, pool => sqlx::query_as(sql!(
        "SELECT credential_id, user_id, passkey, counter, backup_eligible, backup_state, aaguid, transports, name, status,
                created_at, last_used_at
         FROM webauthn_credentials WHERE credential_id = $1"
    )).bind(id).fetch_optional(pool).await)
}

/// Gives a passkey another name. False if the user has none of this id.
pub(crate) async fn rename(db: &Db, user_id: &str, id: &str, name: &str) -> sqlx::Result<bool> {
    let mut tx = db.write_tx().await?;
    let done = on_tx!(tx, conn => sqlx::query(sql!(
        "UPDATE webauthn_credentials SET name = $1 WHERE credential_id = $2 AND user_id = $3"
    )).bind(name).bind(id).bind(user_id).execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(done == 1)
}

/// Name of the guard of [`lock_user`].
pub(crate) const USER: &str = "user";

/// Takes a user's row for this unit, so that what follows sees the passkeys of all units before it.
pub(crate) fn lock_user(user_id: &str) -> Guard {
    Guard {
        name: USER,
        sql: sql!("UPDATE users SET updated_at = updated_at WHERE id = $1 AND status = 'active'"),
        cells: vec![Cell::Text(user_id.into())],
    }
}

/// Adds a passkey; not one too many, and none that is known.
pub(crate) fn add(row: &PasskeyRow) -> Guard {
    let text = |value: &str| Cell::Text(value.into());
    Guard {
        name: "passkey",
        sql: sql!(
            "INSERT INTO webauthn_credentials (credential_id, user_id, passkey, counter, backup_eligible, backup_state, aaguid,
                 transports, name, status, created_at)
             SELECT $1, $2, $3, CAST($4 AS BIGINT), CAST($5 AS BIGINT), CAST($6 AS BIGINT), $7, $8, $9, 'active', CAST($10 AS BIGINT)
             WHERE (SELECT COUNT(*) FROM webauthn_credentials WHERE user_id = $2) < CAST($11 AS BIGINT)
             ON CONFLICT (credential_id) DO NOTHING"
        ),
        cells: vec![
            text(&row.credential_id),
            text(&row.user_id),
            text(&row.passkey),
            Cell::Int(row.counter),
            Cell::Int(row.backup_eligible),
            Cell::Int(row.backup_state),
            row.aaguid.as_deref().map_or(Cell::Null, text),
            text(&row.transports),
            text(&row.name),
            Cell::Int(row.created_at),
            Cell::Int(MAX_PASSKEYS),
        ],
    }
}

/// Notes the use of a passkey, whose counter must have risen or stand still at zero.
pub(crate) fn used(id: &str, passkey: &str, counter: i64, backup_state: bool, now: Millis) -> Guard {
    Guard {
        name: "counter",
        sql: sql!(
            "UPDATE webauthn_credentials SET passkey = $1, counter = $2, backup_state = $3, last_used_at = $4
             WHERE credential_id = $5 AND status = 'active' AND (counter < $2 OR (counter = 0 AND $2 = 0))"
        ),
        cells: used_cells(id, passkey, counter, backup_state, now),
    }
}

/// As [`used`], whatever the counter says.
pub(crate) fn used_anyway(id: &str, passkey: &str, counter: i64, backup_state: bool, now: Millis) -> Guard {
    Guard {
        name: "counter",
        sql: sql!(
            "UPDATE webauthn_credentials SET passkey = $1, counter = $2, backup_state = $3, last_used_at = $4
             WHERE credential_id = $5 AND status = 'active'"
        ),
        cells: used_cells(id, passkey, counter, backup_state, now),
    }
}

fn used_cells(id: &str, passkey: &str, counter: i64, backup_state: bool, now: Millis) -> Vec<Cell> {
    vec![
        Cell::Text(passkey.into()),
        Cell::Int(counter),
        Cell::Int(i64::from(backup_state)),
        Cell::Int(now),
        Cell::Text(id.into()),
    ]
}

/// Removes a passkey of a user, so that another has room.
pub(crate) fn make_room(user_id: &str, id: &str) -> Guard {
    Guard {
        name: "passkey",
        sql: sql!("DELETE FROM webauthn_credentials WHERE credential_id = $1 AND user_id = $2"),
        cells: vec![Cell::Text(id.into()), Cell::Text(user_id.into())],
    }
}

/// Takes a passkey out of use that may have been copied.
pub(crate) fn suspect(id: &str) -> Guard {
    Guard {
        name: "passkey",
        sql: sql!("UPDATE webauthn_credentials SET status = 'suspect' WHERE credential_id = $1"),
        cells: vec![Cell::Text(id.into())],
    }
}

/// Removes a passkey, unless it is the user's last way to sign in. Comes behind [`lock_user`].
pub(crate) fn remove(user_id: &str, id: &str, has_passwords: bool) -> Guard {
    Guard {
        name: "last",
        sql: sql!(
            "DELETE FROM webauthn_credentials WHERE credential_id = $1 AND user_id = $2
               AND (EXISTS (SELECT 1 FROM webauthn_credentials o
                            WHERE o.user_id = $2 AND o.credential_id <> $1 AND o.status = 'active')
                    OR ($3 = 1 AND EXISTS (SELECT 1 FROM user_passwords p WHERE p.user_id = $2)))"
        ),
        cells: vec![Cell::Text(id.into()), Cell::Text(user_id.into()), Cell::Int(i64::from(has_passwords))],
    }
}

/// Whether a user could sign in without this passkey, by what [`remove`] asks for.
pub(crate) async fn has_another_way(
    db: &Db,
    user_id: &str,
    id: &str,
    has_passwords: bool,
) -> sqlx::Result<bool> {
    let (others, passwords): (i64, i64) = on!(db, pool => sqlx::query_as(sql!(
        "SELECT (SELECT COUNT(*) FROM webauthn_credentials
                 WHERE user_id = $1 AND credential_id <> $2 AND status = 'active'),
                (SELECT COUNT(*) FROM user_passwords WHERE user_id = $1)"
    )).bind(user_id).bind(id).fetch_one(pool).await)?;
    Ok(others > 0 || (has_passwords && passwords > 0))
}

/// Whether a user has a passkey that signs in, as the transaction sees it.
pub(crate) async fn has_usable(tx: &mut WriteTx, user_id: &str) -> sqlx::Result<bool> {
    let (count,): (i64,) = on_tx!(*tx, conn => sqlx::query_as(sql!(
        "SELECT COUNT(*) FROM webauthn_credentials WHERE user_id = $1 AND status = 'active'"
    )).bind(user_id).fetch_one(&mut *conn).await)?;
    Ok(count > 0)
}
