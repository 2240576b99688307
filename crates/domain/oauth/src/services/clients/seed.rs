//! The clients of the installation itself, made at the start where they are missing (ID-11). What an administrator has changed of
//! them stays.

use super::{ClientError, Origin, client_of, create};
use crate::constants::{SP_BRIDGE, SP_CLI, SP_GATEWAY, SP_WEB};
use crate::models::clients::{ApplicationType, ClientKind, ClientRelations};
use crate::models::oauth::dynamic_registration::ClientMetadata;
use crate::models::oauth::{ClientAuthMethod, GrantType};
use crate::state::OAuthState;
use systemprompt_models::RequestContext;
use systemprompt_models::ids::ClientId;
use systemprompt_security::keys::SigningAlgorithm;

/// A client of ours. All are public: what runs at a person keeps no secret.
struct Own {
    id: &'static str,
    name: &'static str,
    application: ApplicationType,
    grants: &'static [GrantType],
    scopes: &'static [&'static str],
}

const PEOPLE: [GrantType; 2] = [GrantType::AuthorizationCode, GrantType::RefreshToken];
const TERMINAL: [GrantType; 3] =
    [GrantType::AuthorizationCode, GrantType::RefreshToken, GrantType::DeviceCode];
const OWN: [Own; 4] = [
    Own {
        id: SP_WEB,
        name: "systemprompt console",
        application: ApplicationType::Web,
        grants: &PEOPLE,
        scopes: &["admin", "email", "offline_access", "openid", "profile", "user"],
    },
    Own {
        id: SP_CLI,
        name: "systemprompt command line",
        application: ApplicationType::Native,
        grants: &TERMINAL,
        scopes: &["a2a", "admin", "email", "mcp", "offline_access", "openid", "profile", "user"],
    },
    Own {
        id: SP_BRIDGE,
        name: "systemprompt bridge",
        application: ApplicationType::Native,
        grants: &TERMINAL,
        scopes: &["a2a", "email", "mcp", "offline_access", "openid", "profile", "user"],
    },
    Own {
        id: SP_GATEWAY,
        name: "systemprompt gateway sign-in",
        application: ApplicationType::Native,
        grants: &TERMINAL,
        scopes: &["email", "offline_access", "openid", "profile", "user"],
    },
];

/// Makes what is missing. Two nodes that start together make each once.
///
/// # Errors
/// What could not be recorded or written.
pub async fn first_party(state: &OAuthState, by: &RequestContext) -> Result<(), ClientError> {
    for own in &OWN {
        if state.clients.find_client_by_id(own.id).await?.is_some() {
            continue;
        }
        let client = client_of(
            ClientId::new(own.id),
            ClientKind::FirstParty,
            own.metadata(&state.settings().external_url),
            state.now(),
        );
        match create(state, by, client, Origin::Provided).await {
            Ok(_) | Err(ClientError::Taken) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Own {
    fn metadata(&self, external_url: &str) -> ClientMetadata {
        let redirect_uris = match self.application {
            ApplicationType::Web => vec![format!("{external_url}/console/callback")],
            // The program listens on a port of its choice and may use either family.
            ApplicationType::Native => {
                vec!["http://127.0.0.1/callback".to_owned(), "http://[::1]/callback".to_owned()]
            }
        };
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ClientMetadata {
            name: self.name.to_owned(),
            auth_method: ClientAuthMethod::None,
            application_type: self.application,
            relations: ClientRelations {
                redirect_uris,
                post_logout_redirect_uris: Vec::new(),
                grant_types: self.grants.to_vec(),
                response_types: owned(&["code"]),
                scopes: owned(self.scopes),
                contacts: Vec::new(),
            },
            jwks: None,
            jwks_uri: None,
            client_uri: None,
            logo_uri: None,
            policy_uri: None,
            tos_uri: None,
            software_id: None,
            software_version: None,
            id_token_signed_response_alg: SigningAlgorithm::Rs256,
        }
    }
}
