//! A client as it proves itself: what every request for a token reads.

use super::ClientRepository;
use super::queries::OAuthClientRow;
use crate::constants::SP_WEB;
use crate::models::clients::{ClientRelations, OAuthClient};
use crate::models::oauth::GrantType;
use crate::models::oauth::api::Page;
use systemprompt_database::{Db, on, sql};
use systemprompt_models::Millis;

/// Most look-ups of one statement.
pub(super) const SLOTS: usize = 16;

/// What is asked of a client.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    id: String,
    /// Secrets count whose end is later.
    now: Millis,
    /// Key and window of the guesses that may make it wait.
    attempts: (String, Millis),
}

/// A client that proves itself.
#[derive(Debug)]
pub(crate) struct Prover {
    pub client: Option<OAuthClient>,
    /// Digests.
    pub secrets: Vec<String>,
    /// When its next guess is looked at; 0 if it need not wait.
    pub blocked_until: Millis,
}

/// What is read where there is nothing to read.
const STAND_IN: &str = SP_WEB;

struct Found {
    /// Place of the look-up in its statement.
    slot: i64,
    row: Option<OAuthClientRow>,
    /// What stands beside a client, or beside an id that nobody has: a line for each value, behind its kind and a space. A
    /// value never makes a second line, which would be a list of its own.
    lists: String,
}

impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for Found
where
    OAuthClientRow: sqlx::FromRow<'r, R>,
    &'static str: sqlx::ColumnIndex<R>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        let known: Option<String> = row.try_get("client_id")?;
        Ok(Self {
            slot: row.try_get("slot")?,
            row: known.map(|_| OAuthClientRow::from_row(row)).transpose()?,
            lists: row.try_get("lists")?,
        })
    }
}

impl Found {
    fn prover(self, id: &str) -> Prover {
        let (mut secrets, mut blocked_until) = (Vec::new(), 0);
        let mut relations = ClientRelations::default();
        // Which comes first is not told by the database.
        let mut lines: Vec<&str> = self.lists.split('\n').collect();
        lines.sort_unstable();
        for (kind, value) in lines.into_iter().filter_map(|line| line.split_once(' ')) {
            match kind {
                "login" => relations.redirect_uris.push(value.to_owned()),
                "post_logout" => relations.post_logout_redirect_uris.push(value.to_owned()),
                "grant" => relations.grant_types.extend(GrantType::parse(value)),
                "response" => relations.response_types.push(value.to_owned()),
                "scope" => relations.scopes.push(value.to_owned()),
                "contact" => relations.contacts.push(value.to_owned()),
                "secret" => secrets.push(value.to_owned()),
                _ => blocked_until = value.parse().unwrap_or(Millis::MAX),
            }
        }
        let client =
            self.row.map(|row| row.client(relations)).filter(|client| client.client_id.as_str() == id);
        Prover { client, secrets, blocked_until }
    }
}

impl ClientRepository {
    /// A client with the digests of its secrets that count at `now`, and until when the guesses of `attempts` (key and window) must
    /// wait. One reading, for a client that is not there as well: the time tells nothing of it (ID-13), since one of ours is read
    /// then, which says nothing.
    pub(crate) async fn prover(
        &self,
        id: &str,
        now: Millis,
        attempts: (&str, Millis),
    ) -> sqlx::Result<Prover> {
        // No text of PostgreSQL has a NUL, and so no client.
        let id = if id.contains('\0') { "" } else { id };
        let lookup = Lookup { id: id.to_owned(), now, attempts: (attempts.0.to_owned(), attempts.1) };
        self.provers.ask(lookup, |lookups| read(&self.db, lookups)).await
    }

    /// A page of clients, by id; of one owner where one is named.
    pub(crate) async fn page(&self, page: Page<'_>, owner: Option<&str>) -> sqlx::Result<Vec<OAuthClient>> {
        let ids = self.ids(page, owner).await?;
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(SLOTS) {
            let lookup = |id: &String| Lookup {
                id: id.clone(),
                now: Millis::MAX,
                attempts: (String::new(), Millis::MAX),
            };
            found.extend(read(&self.db, ids.iter().map(lookup).collect()).await?);
        }
        Ok(found.into_iter().filter_map(|prover| prover.client).collect())
    }
}

/// The answers to at most [`SLOTS`] look-ups, in their order.
async fn read(db: &Db, lookups: Vec<Lookup>) -> sqlx::Result<Vec<Prover>> {
    let mut found: Vec<Found> = on!(db, pool => {
        let mut query = sqlx::query_as(sql!(
            "SELECT slot, c.client_id, name, kind, auth_method, application_type, first_party, status, user_id, owner_user_id,
                 plugin_id, allowed_audiences, jwks, jwks_uri, client_uri, logo_uri, policy_uri, tos_uri, software_id,
                 software_version, id_token_signed_response_alg, metadata_digest, created_at, updated_at, last_used_at, version,
                 (SELECT STRING_AGG(list || ' ' || REPLACE(value, $1, ' '), $1) FROM (
                     SELECT kind AS list, value FROM oauth_client_redirect_uris WHERE client_id = asked.id
                     UNION ALL SELECT 'grant', value FROM oauth_client_grant_types WHERE client_id = asked.id
                     UNION ALL SELECT 'response', value FROM oauth_client_response_types WHERE client_id = asked.id
                     UNION ALL SELECT 'scope', value FROM oauth_client_scopes WHERE client_id = asked.id
                     UNION ALL SELECT 'contact', value FROM oauth_client_contacts WHERE client_id = asked.id
                     UNION ALL SELECT 'secret', secret_digest FROM oauth_client_secrets
                         WHERE client_id = asked.id AND (expires_at IS NULL OR expires_at > asked.now)
                     UNION ALL SELECT 'wait', CAST(COALESCE(MAX(blocked_until), 0) AS TEXT) FROM auth_attempts
                         WHERE key_digest = asked.attempts AND window_start > asked.since) beside) AS lists
             FROM (SELECT CAST(column1 AS BIGINT) AS slot, CAST(column3 AS BIGINT) AS now, column4 AS attempts,
                       CAST(column5 AS BIGINT) AS since,
                       COALESCE((SELECT client_id FROM oauth_clients WHERE client_id = column2), $2) AS id
                   FROM (VALUES
                     (0, $3, $4, $5, $6), (1, $7, $8, $9, $10), (2, $11, $12, $13, $14), (3, $15, $16, $17, $18),
                     (4, $19, $20, $21, $22), (5, $23, $24, $25, $26), (6, $27, $28, $29, $30), (7, $31, $32, $33, $34),
                     (8, $35, $36, $37, $38), (9, $39, $40, $41, $42), (10, $43, $44, $45, $46), (11, $47, $48, $49, $50),
                     (12, $51, $52, $53, $54), (13, $55, $56, $57, $58), (14, $59, $60, $61, $62), (15, $63, $64, $65, $66)
                   ) asking WHERE column2 IS NOT NULL) asked
                 LEFT JOIN oauth_clients c ON c.client_id = asked.id"
        )).bind("\n").bind(STAND_IN);
        for slot in 0..SLOTS {
            let lookup = lookups.get(slot);
            query = query
                .bind(lookup.map(|lookup| lookup.id.as_str()))
                .bind(lookup.map(|lookup| lookup.now))
                .bind(lookup.map(|lookup| lookup.attempts.0.as_str()))
                .bind(lookup.map(|lookup| lookup.attempts.1));
        }
        query.fetch_all(pool).await
    })?;
    found.sort_unstable_by_key(|found| found.slot);
    Ok(found.into_iter().zip(lookups).map(|(found, lookup)| found.prover(&lookup.id)).collect())
}

#[cfg(test)]
mod tests {
    use crate::repository::testing::fixtures;
    use std::sync::Arc;
    use systemprompt_models::Millis;
    use tokio::task::JoinSet;

    #[tokio::test(flavor = "multi_thread")]
    async fn each_of_many_at_once_is_told_of_its_own_client() {
        for fixture in fixtures().await {
            for number in 0..3 {
                let scopes: &[&str] = if number == 1 { &["user", "mcp"] } else { &["user"] };
                fixture.client(&format!("c{number}"), "https://a.example/cb", scopes).await;
            }
            let clients = Arc::new(fixture.state.clients.clone());
            let mut asking = JoinSet::new();
            for caller in 0..100_i64 {
                let clients = Arc::clone(&clients);
                asking.spawn(async move {
                    // The fourth there is not, and the fifth can be nobody's.
                    let id = if caller % 5 == 4 { "c\0".to_owned() } else { format!("c{}", caller % 5) };
                    let found = clients.prover(&id, 0, ("", Millis::MAX)).await.unwrap();
                    (id, found)
                });
            }
            for (id, found) in asking.join_all().await {
                let Some(client) = found.client else {
                    assert!(id == "c3" || id == "c\0", "{id}");
                    assert_eq!((found.secrets.len(), found.blocked_until), (0, 0));
                    continue;
                };
                assert_eq!(client.client_id.as_str(), id);
                assert_eq!(client.relations.scopes.len(), if id == "c1" { 2 } else { 1 });
            }
        }
    }
}
