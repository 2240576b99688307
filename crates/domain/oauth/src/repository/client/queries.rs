//! Reading clients.

use super::ClientRepository;
use crate::models::clients::{ApplicationType, ClientKind, ClientRelations, ClientStatus, OAuthClient};
use crate::models::oauth::ClientAuthMethod;
use crate::models::oauth::api::Page;
use systemprompt_database::{on, sql};
use systemprompt_models::ids::{ClientId, UserId};
use systemprompt_models::{JwtAudience, Millis};
use systemprompt_security::keys::SigningAlgorithm;

/// A row of `oauth_clients`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct OAuthClientRow {
    client_id: String,
    name: String,
    kind: String,
    auth_method: String,
    application_type: String,
    first_party: i64,
    status: String,
    user_id: String,
    owner_user_id: Option<String>,
    plugin_id: Option<String>,
    allowed_audiences: String,
    jwks: Option<String>,
    jwks_uri: Option<String>,
    client_uri: Option<String>,
    logo_uri: Option<String>,
    policy_uri: Option<String>,
    tos_uri: Option<String>,
    software_id: Option<String>,
    software_version: Option<String>,
    id_token_signed_response_alg: String,
    metadata_digest: String,
    created_at: Millis,
    updated_at: Millis,
    last_used_at: Option<Millis>,
    version: i64,
}

impl OAuthClientRow {
    /// A word that this version does not know makes a client that may do nothing.
    pub(super) fn client(self, relations: ClientRelations) -> OAuthClient {
        let (kind, method) = (ClientKind::parse(&self.kind), ClientAuthMethod::parse(&self.auth_method));
        let algorithm = SigningAlgorithm::parse(&self.id_token_signed_response_alg);
        let known = kind.is_some() && method.is_some() && algorithm.is_some();
        let status = ClientStatus::parse(&self.status).filter(|_| known).unwrap_or(ClientStatus::Disabled);
        OAuthClient {
            client_id: ClientId::new(self.client_id),
            name: self.name,
            kind: kind.unwrap_or(ClientKind::Registered),
            auth_method: method.unwrap_or(ClientAuthMethod::PrivateKeyJwt),
            application_type: ApplicationType::parse(&self.application_type).unwrap_or(ApplicationType::Web),
            first_party: self.first_party != 0,
            status,
            user_id: UserId::new(self.user_id),
            owner_user_id: self.owner_user_id.map(UserId::from),
            plugin_id: self.plugin_id,
            allowed_audiences: self
                .allowed_audiences
                .split_ascii_whitespace()
                .map(JwtAudience::from)
                .collect(),
            relations,
            jwks: self.jwks,
            jwks_uri: self.jwks_uri,
            client_uri: self.client_uri,
            logo_uri: self.logo_uri,
            policy_uri: self.policy_uri,
            tos_uri: self.tos_uri,
            software_id: self.software_id,
            software_version: self.software_version,
            id_token_signed_response_alg: algorithm.unwrap_or(SigningAlgorithm::Rs256),
            metadata_digest: self.metadata_digest,
            created_at: self.created_at,
            updated_at: self.updated_at,
            last_used_at: self.last_used_at,
            version: self.version,
        }
    }
}

impl ClientRepository {
    /// The client of this id, whatever its status.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn find_client_by_id(&self, id: &str) -> sqlx::Result<Option<OAuthClient>> {
        Ok(self.prover(id, Millis::MAX, ("", Millis::MAX)).await?.client)
    }

    /// Digests of the secrets of a client that count at `now`.
    pub(crate) async fn live_secrets(&self, id: &str, now: Millis) -> sqlx::Result<Vec<String>> {
        let rows: Vec<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT secret_digest FROM oauth_client_secrets
             WHERE client_id = $1 AND (expires_at IS NULL OR expires_at > $2) ORDER BY created_at"
        )).bind(id).bind(now).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(digest,)| digest).collect())
    }

    /// How many clients have registered themselves.
    pub(crate) async fn count_registered(&self) -> sqlx::Result<i64> {
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM oauth_clients WHERE kind = 'registered'"
        )).fetch_one(pool).await)?;
        Ok(count)
    }

    /// How many active clients have their ID tokens signed with an algorithm.
    pub(crate) async fn count_signed_with(&self, algorithm: SigningAlgorithm) -> sqlx::Result<i64> {
        let (count,): (i64,) = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM oauth_clients WHERE id_token_signed_response_alg = $1 AND status = 'active'"
        )).bind(algorithm.as_str()).fetch_one(pool).await)?;
        Ok(count)
    }

    /// Ids of a page of clients, in their order; of one owner where one is named.
    pub(crate) async fn ids(&self, page: Page<'_>, owner: Option<&str>) -> sqlx::Result<Vec<String>> {
        let rows: Vec<(String,)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT client_id FROM oauth_clients
             WHERE client_id > $1 AND (CAST($2 AS TEXT) IS NULL OR owner_user_id = $2) ORDER BY client_id LIMIT $3"
        )).bind(page.after).bind(owner).bind(page.limit).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Digests of the management token of a client that count at `now`: the present one and, for a minute, the one before.
    pub(crate) async fn registration_digests(&self, id: &str, now: Millis) -> sqlx::Result<Vec<String>> {
        let row: Option<(Option<String>, Option<String>)> = on!(&self.db, pool => sqlx::query_as(sql!(
            "SELECT registration_digest, CASE WHEN registration_old_until > $1 THEN registration_digest_old END
             FROM oauth_clients WHERE client_id = $2"
        )).bind(now).bind(id).fetch_optional(pool).await)?;
        Ok(row.into_iter().flat_map(|(present, old)| [present, old]).flatten().collect())
    }
}
