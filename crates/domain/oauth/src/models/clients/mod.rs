//! OAuth clients.

pub mod api;

use crate::models::oauth::{ClientAuthMethod, GrantType, words};
use serde::{Deserialize, Serialize};
use systemprompt_models::ids::{ClientId, UserId};
use systemprompt_models::{JwtAudience, Millis};
use systemprompt_security::keys::SigningAlgorithm;

words! {
    /// Where a client came from (ID-11).
    ClientKind {
        /// Ours: `sp_*`.
        FirstParty = "first_party";
        /// Dynamically registered: `client_*`.
        Registered = "registered";
        /// Named by the address of its metadata document; has no row.
        MetadataDocument = "metadata_document";
        /// Of the installation itself: `sys_*`.
        System = "system";
        /// Made for a user's bridge: `bridge_*`.
        Bridge = "bridge";
        /// Made by an administrator or by a user.
        Managed = "managed";
    }
}

words! {
    ClientStatus {
        Active = "active";
        Disabled = "disabled";
        Expired = "expired";
    }
}

words! {
    /// Decides which redirect URIs may be registered.
    ApplicationType {
        Web = "web";
        Native = "native";
    }
}

/// A client with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OAuthClient {
    pub client_id: ClientId,
    pub name: String,
    pub kind: ClientKind,
    pub auth_method: ClientAuthMethod,
    pub application_type: ApplicationType,
    pub first_party: bool,
    pub status: ClientStatus,
    /// The user of kind `client` that the client's own tokens stand for (ID-56).
    pub user_id: UserId,
    pub owner_user_id: Option<UserId>,
    pub plugin_id: Option<String>,
    /// Empty: any.
    pub allowed_audiences: Vec<JwtAudience>,
    #[serde(flatten)]
    pub relations: ClientRelations,
    /// A JWK Set, as JSON text.
    #[serde(skip)]
    pub jwks: Option<String>,
    pub jwks_uri: Option<String>,
    pub client_uri: Option<String>,
    pub logo_uri: Option<String>,
    pub policy_uri: Option<String>,
    pub tos_uri: Option<String>,
    pub software_id: Option<String>,
    pub software_version: Option<String>,
    #[serde(serialize_with = "algorithm_name")]
    pub id_token_signed_response_alg: SigningAlgorithm,
    /// Digest of what a person is shown of the client; a consent holds for one.
    #[serde(skip)]
    pub metadata_digest: String,
    pub created_at: Millis,
    pub updated_at: Millis,
    pub last_used_at: Option<Millis>,
    /// Counts changes; the ETag.
    pub version: i64,
}

/// The lists of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRelations {
    pub redirect_uris: Vec<String>,
    pub post_logout_redirect_uris: Vec<String>,
    pub grant_types: Vec<GrantType>,
    /// `code` for whoever may use the authorization endpoint.
    pub response_types: Vec<String>,
    /// Words of a scope; those that are no permission and none of OpenID Connect are kept and mean nothing (ID-53).
    pub scopes: Vec<String>,
    pub contacts: Vec<String>,
}

impl OAuthClient {
    pub fn is_active(&self) -> bool {
        self.status == ClientStatus::Active
    }

    /// Whether it cannot keep a secret.
    pub fn is_public(&self) -> bool {
        self.auth_method == ClientAuthMethod::None
    }

    pub fn has_grant(&self, grant: GrantType) -> bool {
        self.relations.grant_types.contains(&grant)
    }

    pub fn has_scope(&self, word: &str) -> bool {
        self.relations.scopes.iter().any(|scope| scope == word)
    }

    /// Whether anybody may have made it without being asked who they are.
    pub fn is_unverified(&self) -> bool {
        matches!(self.kind, ClientKind::Registered | ClientKind::MetadataDocument)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn algorithm_name<S: serde::Serializer>(
    algorithm: &SigningAlgorithm,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(algorithm.as_str())
}
