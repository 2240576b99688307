//! How a client proves who it is (ID-13, RFC 6749 section 2.3).

use super::client_assertion;
use crate::at_rest::Label;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::clients::{ClientKind, OAuthClient};
use crate::models::oauth::ClientAuthMethod;
use crate::services::attempts::{self, Subject};
use crate::services::http::Parameters;
use crate::services::token::ClientRequest;
use crate::state::OAuthState;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use systemprompt_models::{RequestContext, Secret};

/// What is compared where there is nothing to compare with.
const DUMMY_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A client that has shown who it is; one without a secret has only said so.
#[derive(Clone, Debug)]
pub struct AuthenticatedClient {
    pub client: OAuthClient,
    pub method: ClientAuthMethod,
}

impl AuthenticatedClient {
    /// # Errors
    /// `invalid_client` for a client that cannot keep a secret.
    pub fn confidential(self) -> OauthResult<Self> {
        if self.method == ClientAuthMethod::None { Err(OauthError::invalid_client()) } else { Ok(self) }
    }
}

enum Proof {
    /// A signed token, and the `client_id` beside it.
    Assertion(String, Option<String>),
    /// Pairs of id and secret that the header may mean: decoded, and as it stands.
    Basic(Vec<(String, Secret<String>)>),
    Post((String, Secret<String>)),
    None(String),
}

/// How often a client may ask, as the surface counts it: told of each that has shown who it is, it answers with the seconds to wait if
/// that was too often (ID-94).
#[derive(Clone)]
pub struct ClientLimit(Arc<Ask>);

type Ask = dyn Fn(&AuthenticatedClient) -> Result<(), u32> + Send + Sync;

impl ClientLimit {
    pub fn new(ask: impl Fn(&AuthenticatedClient) -> Result<(), u32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl std::fmt::Debug for ClientLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientLimit").finish_non_exhaustive()
    }
}

/// The client of a request, by its `Authorization` header or its parameters. Wrong secrets are counted, of clients that there are and
/// of others alike.
///
/// # Errors
/// `invalid_client`, the same for every reason; `invalid_request` for two methods at once or none at all; too many wrong secrets or
/// requests.
pub async fn authenticate(
    state: &OAuthState,
    request: ClientRequest<'_>,
) -> OauthResult<AuthenticatedClient> {
    let proof = proof(request.authorization, request.parameters)?;
    let named: Vec<String> = proof.secrets_of().map(str::to_owned).collect();
    let network = std::iter::once(Subject::ClientPrefix(request.context)).filter(|_| !named.is_empty());
    let guesses: Vec<Subject<'_>> =
        named.iter().map(|id| Subject::Client(id, request.context)).chain(network).collect();
    let authenticated = match prove(state, request.context, proof).await {
        Err(error) if error.code() == ErrorCode::InvalidClient && !guesses.is_empty() => {
            attempts::take(state, &guesses).await?;
            return Err(error);
        }
        other => other?,
    };
    if let Some(ClientLimit(ask)) = request.limit {
        ask(&authenticated).map_err(|retry_after| OauthError::Throttled { retry_after })?;
    }
    let client = &authenticated.client;
    if client.kind != ClientKind::MetadataDocument {
        state.clients.touch(client, state.now()).await?;
    }
    Ok(authenticated)
}

impl Proof {
    /// The ids, each once, whose secret is shown.
    fn secrets_of(&self) -> impl Iterator<Item = &str> {
        let pairs: &[(String, Secret<String>)] = match self {
            Self::Basic(pairs) => pairs,
            Self::Post(pair) => std::slice::from_ref(pair),
            Self::Assertion(..) | Self::None(_) => &[],
        };
        let first = pairs.first().map(|(id, _)| id.as_str());
        let second = pairs.get(1).map(|(id, _)| id.as_str()).filter(|id| Some(*id) != first);
        first.into_iter().chain(second)
    }
}

async fn prove(
    state: &OAuthState,
    context: &RequestContext,
    proof: Proof,
) -> OauthResult<AuthenticatedClient> {
    match proof {
        Proof::Assertion(assertion, named) => {
            let client = client_assertion::verify(state, context, &assertion, named.as_deref()).await?;
            Ok(AuthenticatedClient { client, method: ClientAuthMethod::PrivateKeyJwt })
        }
        Proof::Basic(pairs) => by_secret(state, context, ClientAuthMethod::ClientSecretBasic, &pairs).await,
        Proof::Post(pair) => by_secret(state, context, ClientAuthMethod::ClientSecretPost, &[pair]).await,
        Proof::None(id) => {
            let client = state.client_named(context, &id).await?;
            let client =
                client.filter(|c| c.is_active() && c.is_public()).ok_or_else(OauthError::invalid_client)?;
            Ok(AuthenticatedClient { client, method: ClientAuthMethod::None })
        }
    }
}

fn proof(authorization: Option<&str>, parameters: &Parameters) -> OauthResult<Proof> {
    let (id, secret) = (parameters.get("client_id"), parameters.get("client_secret"));
    if parameters.get("client_assertion").is_some() || parameters.get("client_assertion_type").is_some() {
        if authorization.is_some() || secret.is_some() {
            return Err(OauthError::invalid_request("two methods of client authentication"));
        }
        let assertion = parameters.need("client_assertion")?;
        if parameters.need("client_assertion_type")? != client_assertion::ASSERTION_TYPE {
            return Err(OauthError::invalid_request("client_assertion_type is not supported"));
        }
        return Ok(Proof::Assertion(assertion.to_owned(), id.map(str::to_owned)));
    }
    match (authorization, id, secret) {
        (Some(_), _, Some(_)) => Err(OauthError::invalid_request("two methods of client authentication")),
        (Some(header), id, None) => {
            let pairs = basic(header).ok_or_else(OauthError::invalid_client)?;
            if id.is_some_and(|id| !pairs.iter().any(|(named, _)| named == id)) {
                return Err(OauthError::invalid_request(
                    "client_id is not the client of the Authorization header",
                ));
            }
            Ok(Proof::Basic(pairs))
        }
        (None, Some(id), Some(secret)) => Ok(Proof::Post((id.to_owned(), Secret::from(secret)))),
        (None, Some(id), None) => Ok(Proof::None(id.to_owned())),
        (None, None, _) => Err(OauthError::invalid_request("client_id is missing")),
    }
}

/// The pairs that a Basic header may mean: halves are form-encoded (RFC 6749 section 2.3.1), which some clients forget.
fn basic(header: &str) -> Option<Vec<(String, Secret<String>)>> {
    let (scheme, rest) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let mut pairs = Vec::with_capacity(2);
    let decode = |text: &str| {
        percent_decode_str(&text.replace('+', " ")).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    if let (Some(id), Some(secret)) = (decode(id), decode(secret)) {
        pairs.push((id, Secret::from(secret)));
    }
    if !pairs.iter().any(|(known, value)| known == id && value.expose() == secret) {
        pairs.push((id.to_owned(), Secret::from(secret)));
    }
    Some(pairs)
}

async fn by_secret(
    state: &OAuthState,
    context: &RequestContext,
    method: ClientAuthMethod,
    pairs: &[(String, Secret<String>)],
) -> OauthResult<AuthenticatedClient> {
    let now = state.now();
    for (id, secret) in pairs {
        let (key, since) = attempts::watched(state, Subject::Client(id, context), now);
        let prover = state.clients.prover(id, now, (&key, since)).await?;
        attempts::admit_from(prover.blocked_until, now)?;
        let (client, stored) = (prover.client, prover.secrets);
        let stored_under_previous = |previous: &str, present: &str| {
            previous != present && stored.iter().any(|digest| digest == previous)
        };
        let (present, previous) = state.at_rest.candidates(Label::ClientSecret, secret.expose());
        let is_right =
            stored.iter().map(String::as_str).chain([DUMMY_DIGEST]).fold(false, |found, digest| {
                let same = digest.as_bytes().ct_eq(present.as_bytes())
                    | digest.as_bytes().ct_eq(previous.as_bytes());
                found | bool::from(same)
            });
        let takes = |client: &OAuthClient| {
            // Basic and post replace each other; no other method does.
            matches!(
                client.auth_method,
                ClientAuthMethod::ClientSecretBasic | ClientAuthMethod::ClientSecretPost
            )
        };
        if let Some(client) = client.filter(|client| is_right && client.is_active() && takes(client)) {
            if stored_under_previous(&previous, &present) {
                // The pepper was replaced: the row moves to the present one at its first use.
                let digest = state.at_rest.digest(Label::ClientSecret, secret.expose());
                state.clients.redigest_secret(id, &previous, &digest).await?;
            }
            return Ok(AuthenticatedClient { client, method });
        }
    }
    Err(OauthError::invalid_client())
}
