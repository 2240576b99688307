//! The client of a user's bridge (ID-101): with it the bridge asks for hook tokens by itself, as long as the user may.

use super::{may_act, refuse};
use crate::constants::SP_BRIDGE;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::{ApplicationType, ClientKind, ClientRelations, OAuthClient};
use crate::models::oauth::dynamic_registration::ClientMetadata;
use crate::models::oauth::{ClientAuthMethod, GrantType};
use crate::services::clients::{ClientError, Origin, client_of, create, rotate_secret};
use crate::state::OAuthState;
use crate::users::User;
use systemprompt_models::ids::ClientId;
use systemprompt_models::session::SessionSource;
use systemprompt_models::{JwtAudience, Millis, Permission, RequestContext, Secret};
use systemprompt_security::keys::SigningAlgorithm;

/// What consoles show.
const BRIDGE_NAME: &str = "Bridge";
/// How long the secret before the new one counts.
const OVERLAP: Millis = 86_400_000;
const SCOPES: [Permission; 2] = [Permission::HookGovern, Permission::HookTrack];

/// A bridge's client, with the secret that is shown once.
pub struct BridgeClient {
    pub client_id: ClientId,
    pub secret: Secret<String>,
    pub token_endpoint: String,
    pub scope: String,
}

/// Makes the client of the caller's bridge, or gives it another secret; the one before counts for a day more. Of three within a day
/// the newest alone counts, so that a bridge which has lost its secret is not shut out.
///
/// # Errors
/// `invalid_grant` for whoever is no person with a bridge's token, `access_denied` for a client that was disabled, or what could not be
/// recorded or written.
pub async fn provision(state: &OAuthState, context: &RequestContext) -> OauthResult<BridgeClient> {
    let principal = &context.principal;
    // The secret outlives what asks for it, so that no other client, whatever it was lent, gets one.
    let session = state.sessions.find(&principal.session_id).await?;
    let is_bridge = principal.client_id.as_ref().is_some_and(|id| id.as_str() == SP_BRIDGE)
        && session.is_some_and(|session| session.source == Some(SessionSource::Bridge));
    if !is_bridge {
        return refuse(state, context, "no_bridge_token").await;
    }
    let Some(user) = state.users.find(principal.user_id.as_str()).await?.filter(may_act) else {
        return refuse(state, context, "not_active").await;
    };
    // One for each user, by the digits of the user's id.
    let digits = user.id.uuid().ok_or_else(|| OauthError::invalid_request("the user has no id of ours"))?;
    let id = ClientId::new(format!("bridge_{}", digits.simple()));
    let secret = match state.clients.find_client_by_id(id.as_str()).await? {
        Some(client) => renewed(state, context, &client).await?,
        None => {
            match create(state, context, client(id.clone(), &user, state.now()), Origin::Provided).await {
                Ok(made) => {
                    made.secret.ok_or_else(|| OauthError::Impossible("a bridge client".to_owned()))?
                }
                // Another call was a moment before.
                Err(ClientError::Taken) => {
                    let client = state.clients.find_client_by_id(id.as_str()).await?;
                    renewed(state, context, &client.ok_or(ClientError::NotFound)?).await?
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    let scope = SCOPES.map(Permission::as_str).join(" ");
    let token_endpoint = state.settings().endpoint("/token");
    Ok(BridgeClient { client_id: id, secret, token_endpoint, scope })
}

async fn renewed(
    state: &OAuthState,
    context: &RequestContext,
    client: &OAuthClient,
) -> OauthResult<Secret<String>> {
    // What an administrator has switched off comes back by an administrator alone.
    if !client.is_active() || client.kind != ClientKind::Bridge {
        return Err(OauthError::new(ErrorCode::AccessDenied, "the client of this bridge was disabled"));
    }
    match rotate_secret(state, context, client, OVERLAP).await {
        Err(ClientError::Conflict(_)) => Ok(rotate_secret(state, context, client, 0).await?),
        other => Ok(other?),
    }
}

/// It bears nobody's name: it is there longer than its owner may be.
fn client(id: ClientId, owner: &User, now: Millis) -> OAuthClient {
    let metadata = ClientMetadata {
        name: BRIDGE_NAME.to_owned(),
        auth_method: ClientAuthMethod::ClientSecretBasic,
        application_type: ApplicationType::Native,
        relations: ClientRelations {
            grant_types: vec![GrantType::ClientCredentials],
            scopes: SCOPES.map(|scope| scope.as_str().to_owned()).to_vec(),
            ..ClientRelations::default()
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
    };
    let mut client = client_of(id, ClientKind::Bridge, metadata, now);
    client.owner_user_id = Some(owner.id.clone());
    client.allowed_audiences = vec![JwtAudience::Hook];
    client
}

#[cfg(test)]
mod tests {
    use super::super::{exchange, make_code};
    use super::*;
    use crate::repository::testing::{Fixture, caller, fixtures};
    use crate::services::http::Parameters;
    use crate::services::token::{ClientRequest, token};
    use systemprompt_models::Principal;

    /// A request with the token of `user`'s bridge.
    async fn of(fixture: &Fixture, user: &User) -> RequestContext {
        let code = make_code(&fixture.state, &caller(), user).await.unwrap();
        let token = exchange(&fixture.state, &caller(), &code).await.unwrap().token;
        let mut context = caller();
        let claims = fixture.state.verifier.verify_own(token.expose()).unwrap().claims;
        context.principal = Principal::from_claims(&claims).into();
        context
    }

    async fn asks(fixture: &Fixture, made: &BridgeClient, more: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}{more}",
            made.client_id,
            made.secret.expose()
        );
        let (context, parameters) = (caller(), Parameters::parse(form.as_bytes()).unwrap());
        let request =
            ClientRequest { context: &context, authorization: None, parameters: &parameters, limit: None };
        match token(&fixture.state, request).await {
            Ok(tokens) => tokens.scope,
            Err(error) => error.code().as_str().to_owned(),
        }
    }

    #[tokio::test]
    async fn id_101_a_bridge_gets_one_client_for_hooks_alone_and_a_second_call_rotates_its_secret() {
        const HOOKS: &str = "&scope=hook:govern+hook:track&audience=hook";
        for fixture in fixtures().await {
            let user = fixture.user("bob", &["user"]).await;
            let context = of(&fixture, &user).await;
            let first = provision(&fixture.state, &context).await.unwrap();
            assert_eq!(
                first.client_id.as_str(),
                format!("bridge_{}", user.id.as_str().strip_prefix("usr_").unwrap())
            );
            assert_eq!(asks(&fixture, &first, HOOKS).await, "hook:govern hook:track");
            assert_eq!(asks(&fixture, &first, "&scope=hook:track&audience=api").await, "invalid_target");
            assert_eq!(asks(&fixture, &first, "&scope=user&audience=hook").await, "invalid_scope");

            let second = provision(&fixture.state, &context).await.unwrap();
            assert_eq!(second.client_id, first.client_id);
            for made in [&first, &second] {
                assert_eq!(asks(&fixture, made, HOOKS).await, "hook:govern hook:track");
            }
            let third = provision(&fixture.state, &context).await.unwrap();
            assert_eq!(asks(&fixture, &third, HOOKS).await, "hook:govern hook:track");
            assert_eq!(asks(&fixture, &second, HOOKS).await, "invalid_client", "two secrets at most");
            let fourth = provision(&fixture.state, &context).await.unwrap();
            fixture.clock.advance(OVERLAP + 1);
            assert_eq!(asks(&fixture, &third, HOOKS).await, "invalid_client", "a day is over");
            assert_eq!(asks(&fixture, &fourth, HOOKS).await, "hook:govern hook:track");
        }
    }

    #[tokio::test]
    async fn id_101_neither_a_key_nor_a_program_nor_a_disabled_client_gets_a_secret() {
        for fixture in fixtures().await {
            let user = fixture.user("bob", &["user"]).await;
            let code = |made: OauthResult<BridgeClient>| made.err().map(|error| error.code());
            let bridge = of(&fixture, &user).await;
            // A key has no session of a bridge; a client that was lent the surface is not the bridge.
            for (session, client) in [("key_1", None), (bridge.principal.session_id.as_str(), Some("app"))] {
                let mut other = bridge.clone();
                let principal = Principal {
                    session_id: session.into(),
                    client_id: client.map(ClientId::new),
                    ..(*bridge.principal).clone()
                };
                other.principal = principal.into();
                assert_eq!(code(provision(&fixture.state, &other).await), Some(ErrorCode::InvalidGrant));
            }
            assert_eq!(code(provision(&fixture.state, &caller()).await), Some(ErrorCode::InvalidGrant));
            let made = provision(&fixture.state, &of(&fixture, &user).await).await.unwrap();
            let before = fixture.state.client(made.client_id.as_str()).await.unwrap().unwrap();
            let disabled =
                OAuthClient { status: crate::models::clients::ClientStatus::Disabled, ..before.clone() };
            crate::services::clients::replace(&fixture.state, &caller(), &before, disabled).await.unwrap();
            assert_eq!(
                code(provision(&fixture.state, &of(&fixture, &user).await).await),
                Some(ErrorCode::AccessDenied)
            );
        }
    }
}
