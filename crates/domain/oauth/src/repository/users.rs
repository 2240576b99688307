//! Rows of `users` and `user_roles`.

use super::passwords;
use super::turns::turn;
use crate::models::oauth::api::Page;
use crate::users::{User, UserKind, UserStatus};
use systemprompt_audit::{Cell, Guard};
use systemprompt_database::{Db, WriteTx, on, on_tx, sql};
use systemprompt_models::Millis;
use systemprompt_models::ids::UserId;

/// How an insert ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Done,
    /// Somebody else took this field's value meanwhile.
    Clash(&'static str),
    /// Another request came with the same key meanwhile.
    Repeated,
}

/// How a change ended.
pub(crate) enum Updated {
    /// In a transaction that goes on.
    Done(WriteTx),
    /// The row has another version, or is the last active administrator's who would be none any more.
    Not,
    /// Somebody else took this field's value meanwhile.
    Clash(&'static str),
}

/// A creation that may come twice.
pub(crate) struct NewRequest {
    pub owner: String,
    pub key: String,
    /// Of what is asked for.
    pub digest: String,
    pub expires_at: Millis,
}

/// Which users a list has.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserFilter<'a> {
    /// Beginning of a name, a mail or an id.
    pub query: Option<&'a str>,
    /// Those of this status; without one, all that are not deleted.
    pub status: Option<UserStatus>,
    pub role: Option<&'a str>,
    pub department: Option<&'a str>,
}

#[derive(sqlx::FromRow)]
struct UserRow {
    id: String,
    kind: String,
    username: String,
    email: Option<String>,
    email_verified: i64,
    email_vouched: i64,
    display_name: Option<String>,
    status: String,
    department: Option<String>,
    locale: Option<String>,
    created_at: Millis,
    updated_at: Millis,
    version: i64,
    /// Space-separated.
    roles: Option<String>,
}

impl UserRow {
    fn user(self) -> User {
        let mut roles: Vec<String> =
            self.roles.unwrap_or_default().split(' ').filter(|r| !r.is_empty()).map(str::to_owned).collect();
        roles.sort_unstable();
        User {
            id: UserId::new(self.id),
            kind: UserKind::of_row(&self.kind),
            username: self.username,
            email: self.email,
            email_verified: self.email_verified != 0,
            email_vouched: self.email_vouched != 0,
            display_name: self.display_name,
            status: UserStatus::of_row(&self.status),
            roles,
            department: self.department,
            locale: self.locale,
            created_at: self.created_at,
            updated_at: self.updated_at,
            version: self.version,
        }
    }
}

/// Reads and writes users.
#[derive(Clone, Debug)]
pub(crate) struct UserRepository {
    db: Db,
}

impl UserRepository {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }

    pub(crate) async fn by_id(&self, id: &str) -> sqlx::Result<Option<User>> {
        let row: Option<UserRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, kind, username, email, email_verified, email_vouched, display_name, status, department, locale, created_at,
                    updated_at, version,
                    (SELECT STRING_AGG(role, ' ') FROM user_roles WHERE user_id = users.id) AS roles
             FROM users WHERE id = $1"
        )).bind(id).fetch_optional(pool).await)?;
        Ok(row.map(UserRow::user))
    }

    /// `name` in lower case.
    pub(crate) async fn by_username(&self, name: &str) -> sqlx::Result<Option<User>> {
        let row: Option<UserRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, kind, username, email, email_verified, email_vouched, display_name, status, department, locale, created_at,
                    updated_at, version,
                    (SELECT STRING_AGG(role, ' ') FROM user_roles WHERE user_id = users.id) AS roles
             FROM users WHERE username_key = $1 AND status <> 'deleted'"
        )).bind(name).fetch_optional(pool).await)?;
        Ok(row.map(UserRow::user))
    }

    pub(crate) async fn page(&self, page: Page<'_>, filter: &UserFilter<'_>) -> sqlx::Result<Vec<User>> {
        let prefix = filter
            .query
            .map(str::to_lowercase)
            .map(|text| format!("{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")));
        let rows: Vec<UserRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, kind, username, email, email_verified, email_vouched, display_name, status, department, locale, created_at,
                    updated_at, version,
                    (SELECT STRING_AGG(role, ' ') FROM user_roles WHERE user_id = users.id) AS roles
             FROM users
             WHERE id > $1 AND kind <> 'client'
               AND (CAST($2 AS TEXT) IS NULL OR username_key LIKE $2 ESCAPE '\\' OR email_key LIKE $2 ESCAPE '\\'
                    OR id LIKE $2 ESCAPE '\\')
               AND CASE WHEN CAST($3 AS TEXT) IS NULL THEN status <> 'deleted' ELSE status = $3 END
               AND (CAST($4 AS TEXT) IS NULL OR EXISTS
                    (SELECT 1 FROM user_roles r WHERE r.user_id = users.id AND r.role = $4))
               AND (CAST($5 AS TEXT) IS NULL OR department = $5)
             ORDER BY id LIMIT $6"
        ))
            .bind(page.after).bind(prefix).bind(filter.status.map(UserStatus::as_str)).bind(filter.role)
            .bind(filter.department).bind(page.limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(UserRow::user).collect())
    }

    /// The person with this mail, in lower case.
    pub(crate) async fn by_email(&self, mail: &str) -> sqlx::Result<Option<User>> {
        let row: Option<UserRow> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT id, kind, username, email, email_verified, email_vouched, display_name, status, department, locale, created_at,
                    updated_at, version,
                    (SELECT STRING_AGG(role, ' ') FROM user_roles WHERE user_id = users.id) AS roles
             FROM users WHERE email_key = $1 AND status <> 'deleted'"
        )).bind(mail).fetch_optional(pool).await)?;
        Ok(row.map(UserRow::user))
    }

    /// By what authenticators know a user, if any of them does.
    pub(crate) async fn handle(&self, id: &str) -> sqlx::Result<Option<String>> {
        let row: Option<(Option<String>,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT webauthn_handle FROM users WHERE id = $1"
        )).bind(id).fetch_optional(pool).await)?;
        Ok(row.and_then(|(handle,)| handle))
    }

    /// Gives a user a handle, if there is none; returns the one that counts.
    pub(crate) async fn give_handle(&self, id: &str, handle: &str) -> sqlx::Result<Option<String>> {
        let mut tx = self.db.write_tx().await?;
        let row: Option<(Option<String>,)> = on_tx!(tx, conn => sqlx::query_as(sql!(
            "UPDATE users SET webauthn_handle = COALESCE(webauthn_handle, $1) WHERE id = $2 RETURNING webauthn_handle"
        )).bind(handle).bind(id).fetch_optional(&mut *conn).await)?;
        tx.commit().await?;
        Ok(row.and_then(|(handle,)| handle))
    }

    /// A transaction for what ends of a user.
    pub(crate) async fn begin(&self) -> sqlx::Result<WriteTx> {
        self.db.write_tx().await
    }

    /// What was asked for under a key that still counts, and the user that was made: (digest, id).
    pub(crate) async fn request(
        &self,
        owner: &str,
        key: &str,
        now: Millis,
    ) -> sqlx::Result<Option<(String, String)>> {
        on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT digest, user_id FROM user_requests WHERE owner_id = $1 AND key = $2 AND expires_at > $3"
        )).bind(owner).bind(key).bind(now).fetch_optional(pool).await)
    }

    /// The field of `user` that another user has taken, if one is.
    pub(crate) async fn clash(&self, user: &User) -> sqlx::Result<Option<&'static str>> {
        let (name, mail) = keys(user);
        let taken: Option<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT username_key FROM users WHERE id <> $1 AND (username_key = $2 OR email_key = $3)"
        )).bind(user.id.as_str()).bind(&name).bind(&mail).fetch_optional(pool).await)?;
        Ok(taken.map(|(key,)| if key == name { "username" } else { "email" }))
    }

    /// Inserts a user with the hash of an imported password; `request` holds the key that it was asked for under.
    pub(crate) async fn insert(
        &self,
        user: &User,
        hash: Option<&str>,
        request: Option<&NewRequest>,
    ) -> sqlx::Result<Written> {
        let (name, mail) = keys(user);
        let mut tx = self.db.write_tx().await?;
        if let Some(request) = request
            && !remember(&mut tx, request, user).await?
        {
            tx.rollback().await?;
            return Ok(Written::Repeated);
        }
        let inserted = on_tx!(tx, conn => sqlx::query(sql!(
            "INSERT INTO users (id, username, username_key, email, email_key, display_name, status, department, created_at,
                 updated_at, version, kind, email_verified, locale, email_vouched)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, 1, $10, $11, $12, $13)"
        ))
            .bind(user.id.as_str()).bind(&user.username).bind(&name).bind(&user.email).bind(&mail)
            .bind(&user.display_name).bind(user.status.as_str()).bind(&user.department).bind(user.created_at)
            .bind(user.kind.as_str()).bind(i64::from(user.email_verified)).bind(&user.locale)
            .bind(i64::from(user.email_vouched)).execute(&mut *conn).await.map(drop));
        match inserted {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                tx.rollback().await?;
                return Ok(Written::Clash(field_of(&*error)));
            }
            other => other?,
        }
        insert_roles(&mut tx, user).await?;
        if let Some(hash) = hash {
            passwords::insert(&mut tx, user.id.as_str(), hash, user.created_at).await?;
        }
        tx.commit().await?;
        Ok(Written::Done)
    }

    /// Writes a changed user over `version`, in the transaction that it returns. Version and last administrator are tested in the
    /// statement, so two requests cannot race.
    pub(crate) async fn update(&self, user: &User, version: i64, keeps_admin: bool) -> sqlx::Result<Updated> {
        let (name, mail) = keys(user);
        let mut tx = self.db.write_tx().await?;
        if !keeps_admin {
            // Two who stop being administrators at once must see each other.
            turn("administrators", "").holds_in(&mut tx).await?;
        }
        let updated = on_tx!(tx, conn => sqlx::query(sql!(
            "UPDATE users SET email = $1, email_key = $2, display_name = $3, status = $4, department = $5,
                 updated_at = $6, version = version + 1, email_verified = $7, locale = $8, username = $9, username_key = $10,
                 email_vouched = $11
             WHERE id = $12 AND version = $13
               AND ($14 = 1
                    OR NOT EXISTS (SELECT 1 FROM user_roles r WHERE r.user_id = $12 AND r.role = 'admin')
                    OR EXISTS (SELECT 1 FROM users o JOIN user_roles r ON r.user_id = o.id
                               WHERE r.role = 'admin' AND o.status = 'active' AND o.id <> $12))"
        ))
            .bind(&user.email).bind(&mail).bind(&user.display_name).bind(user.status.as_str()).bind(&user.department)
            .bind(user.updated_at).bind(i64::from(user.email_verified)).bind(&user.locale).bind(&user.username)
            .bind(&name).bind(i64::from(user.email_vouched)).bind(user.id.as_str()).bind(version)
            .bind(i64::from(keeps_admin)).execute(&mut *conn).await.map(|done| done.rows_affected()));
        let updated = match updated {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                tx.rollback().await?;
                return Ok(Updated::Clash(field_of(&*error)));
            }
            other => other?,
        };
        if updated == 0 {
            tx.rollback().await?;
            return Ok(Updated::Not);
        }
        on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM user_roles WHERE user_id = $1"))
            .bind(user.id.as_str()).execute(&mut *conn).await.map(drop))?;
        insert_roles(&mut tx, user).await?;
        Ok(Updated::Done(tx))
    }
}

/// Name of the guard of [`stands`].
pub(crate) const USER_CHANGED: &str = "user_changed";

/// Holds while a user is active and has this version. It comes first in a unit, as whoever changes a user locks that row first.
pub(crate) fn stands(id: &str, version: i64) -> Guard {
    Guard {
        name: USER_CHANGED,
        sql: sql!("UPDATE users SET version = version WHERE id = $1 AND version = $2 AND status = 'active'"),
        cells: vec![id.into(), version.into()],
    }
}

/// Ends the grants of a user. Returns how many.
pub(crate) async fn end_grants(tx: &mut WriteTx, id: &str, reason: &str, now: Millis) -> sqlx::Result<u64> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "UPDATE oauth_grants SET revoked_at = $1, revoked_reason = $2 WHERE user_id = $3 AND revoked_at IS NULL"
    )).bind(now).bind(reason).bind(id).execute(&mut *conn).await.map(|done| done.rows_affected()))
}

/// Ends the refresh tokens of a user whose grants ended.
pub(crate) async fn end_refresh_tokens(tx: &mut WriteTx, id: &str, now: Millis) -> sqlx::Result<()> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "UPDATE oauth_refresh_tokens SET revoked_at = $1
         WHERE revoked_at IS NULL AND grant_id IN (SELECT grant_id FROM oauth_grants WHERE user_id = $2)"
    )).bind(now).bind(id).execute(&mut *conn).await.map(drop))
}

/// Ends what would let somebody back into an account whose sessions were ended: API keys, links and codes that are open, and
/// consents that give codes without a word.
pub(crate) async fn close_doors(tx: &mut WriteTx, id: &str, now: Millis) -> sqlx::Result<()> {
    on_tx!(*tx, conn => {
        sqlx::query(sql!("UPDATE user_api_keys SET revoked_at = $1 WHERE user_id = $2 AND revoked_at IS NULL"))
            .bind(now).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("UPDATE oauth_consents SET revoked_at = $1 WHERE user_id = $2 AND revoked_at IS NULL"))
            .bind(now).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("UPDATE setup_tokens SET used_at = $1 WHERE user_id = $2 AND used_at IS NULL"))
            .bind(now).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM user_recovery_codes WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM bridge_exchange_codes WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        Ok(())
    })
}

/// Removes every credential of a user, and what else is theirs alone. Keys that nodes remember end with the next epoch.
pub(crate) async fn erase(tx: &mut WriteTx, id: &str) -> sqlx::Result<()> {
    on_tx!(*tx, conn => {
        sqlx::query(sql!("UPDATE users SET webauthn_handle = NULL WHERE id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM webauthn_credentials WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM webauthn_challenges WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM user_passwords WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM user_recovery_codes WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM user_api_keys WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM bridge_sessions WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM user_notices WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM federated_identities WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM setup_tokens WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM bridge_exchange_codes WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM bridge_host_prefs WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("DELETE FROM oauth_consents WHERE user_id = $1")).bind(id).execute(&mut *conn).await?;
        // Before they had a name that tells of nobody, bridges bore that of their person.
        sqlx::query(sql!(
            "UPDATE users SET display_name = 'Bridge'
             WHERE id IN (SELECT user_id FROM oauth_clients WHERE owner_user_id = $1 AND kind = 'bridge')"
        )).bind(id).execute(&mut *conn).await?;
        sqlx::query(sql!("UPDATE oauth_clients SET name = 'Bridge' WHERE owner_user_id = $1 AND kind = 'bridge'"))
            .bind(id).execute(&mut *conn).await?;
        Ok(())
    })
}

/// Gives what a user owns to another: their identities at other issuers, and the clients that serve them.
pub(crate) async fn hand_over(tx: &mut WriteTx, from: &str, to: &str, now: Millis) -> sqlx::Result<()> {
    on_tx!(*tx, conn => sqlx::query(sql!("UPDATE federated_identities SET user_id = $1 WHERE user_id = $2"))
        .bind(to).bind(from).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!(
        "UPDATE oauth_clients SET owner_user_id = $1, updated_at = $2, version = version + 1 WHERE owner_user_id = $3"
    )).bind(to).bind(now).bind(from).execute(&mut *conn).await.map(drop))
}

/// Takes a key for a user that is being made. False when it is taken.
async fn remember(tx: &mut WriteTx, request: &NewRequest, user: &User) -> sqlx::Result<bool> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "DELETE FROM user_requests WHERE owner_id = $1 AND key = $2 AND expires_at <= $3"
    )).bind(&request.owner).bind(&request.key).bind(user.created_at).execute(&mut *conn).await.map(drop))?;
    let taken = on_tx!(*tx, conn => sqlx::query(sql!(
        "INSERT INTO user_requests (owner_id, key, digest, user_id, expires_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING"
    ))
        .bind(&request.owner).bind(&request.key).bind(&request.digest).bind(user.id.as_str()).bind(request.expires_at)
        .execute(&mut *conn).await.map(|done| done.rows_affected()))?;
    Ok(taken == 1)
}

/// Name of the guard that a free name and mail pass.
pub(crate) const ACCOUNT: &str = "account";

/// Makes a user with its roles; a name or mail that is taken does not hold.
pub(crate) fn add(user: &User, handle: Option<&str>) -> Vec<Guard> {
    let text = |value: &str| Cell::Text(value.into());
    let optional = |value: Option<&str>| value.map_or(Cell::Null, text);
    let (name, mail) = keys(user);
    let account = Guard {
        name: ACCOUNT,
        sql: sql!(
            "INSERT INTO users (id, username, username_key, email, email_key, display_name, status, created_at, updated_at, version,
                 kind, email_verified, webauthn_handle)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 1, $9, $10, $11)
             ON CONFLICT DO NOTHING"
        ),
        cells: vec![
            text(user.id.as_str()),
            text(&user.username),
            text(&name),
            optional(user.email.as_deref()),
            optional(mail.as_deref()),
            optional(user.display_name.as_deref()),
            text(user.status.as_str()),
            Cell::Int(user.created_at),
            text(user.kind.as_str()),
            Cell::Int(i64::from(user.email_verified)),
            optional(handle),
        ],
    };
    let role = |role: &String| Guard {
        name: "role",
        sql: sql!("INSERT INTO user_roles (user_id, role) VALUES ($1, $2)"),
        cells: vec![text(user.id.as_str()), text(role)],
    };
    std::iter::once(account).chain(user.roles.iter().map(role)).collect()
}

/// The field whose value somebody else has.
fn field_of(error: &dyn sqlx::error::DatabaseError) -> &'static str {
    if error.message().contains("email") { "email" } else { "username" }
}

fn keys(user: &User) -> (String, Option<String>) {
    (user.username.to_lowercase(), user.email.as_ref().map(|mail| mail.to_lowercase()))
}

async fn insert_roles(tx: &mut WriteTx, user: &User) -> sqlx::Result<()> {
    for role in &user.roles {
        on_tx!(*tx, conn => sqlx::query(sql!("INSERT INTO user_roles (user_id, role) VALUES ($1, $2)"))
            .bind(user.id.as_str()).bind(role).execute(&mut *conn).await.map(drop))?;
    }
    Ok(())
}
