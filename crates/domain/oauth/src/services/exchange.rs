//! Token exchange (RFC 8693): a client acts with what it was given on somebody's behalf, and the token says so in `act`.

mod subject;

use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::models::oauth::GrantType;
use crate::repository::oauth::federated::TOKEN_REPLAYED;
use crate::services::generation::{
    JwtConfig, JwtSigningParams, TokenResponse, client_audiences, describe, draft, end_of, generate_jwt,
    life, owner, response, told_to,
};
use crate::services::http::Parameters;
use crate::services::refusals::ip_prefix;
use crate::services::scopes::{Cuts, Scopes};
use crate::services::token::ClientRequest;
use crate::services::validation::audience;
use crate::state::OAuthState;
use subject::Subject;
use systemprompt_audit::{EntryKind, LedgerError, Unit};
use systemprompt_models::auth::MAX_ACT_DEPTH;
use systemprompt_models::ids::SessionId;
use systemprompt_models::session::{CreateSessionInput, SessionSource, SignIn};
use systemprompt_models::{Actor, AuthenticatedUser, JwtAudience};
use systemprompt_security::session::{
    SESSION_ENDED, SessionOpened, TOKEN_ENDED, session_lives, token_stands,
};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// Exchanges a token. `client` has proven itself.
pub(crate) async fn exchange(
    state: &OAuthState,
    request: ClientRequest<'_>,
    client: &OAuthClient,
) -> OauthResult<TokenResponse> {
    let parameters = request.parameters;
    let issued_type = issued_type(parameters)?;
    let token = parameters.need("subject_token")?;
    let kind = parameters.need("subject_token_type")?;
    if ![ACCESS_TOKEN, JWT, ID_TOKEN].contains(&kind) {
        return Err(OauthError::invalid_request("subject_token_type is none that can be exchanged"));
    }
    let actor = actor(state, parameters, client).await?;
    let mut subject = subject::read(state, request.context, client, token, kind == ID_TOKEN).await?;
    check_may_act(subject.may_act.as_ref(), &actor)?;
    let before = subject.scopes.text();
    let (scopes, cuts) = scopes(state, parameters.get("scope"), &mut subject, client).await?;
    let audiences = audiences(state, parameters, client, &subject, &scopes)?;
    let act = Actor { act: subject.act.clone().map(Box::new), ..actor };
    if act.chain().len() > MAX_ACT_DEPTH {
        return Err(OauthError::invalid_request("subject_token has passed through too many actors"));
    }
    issue(state, request, client, subject, (scopes, audiences, act, (before, cuts), issued_type)).await
}

type Terms = (Scopes, Vec<JwtAudience>, Actor, (String, Cuts), &'static str);

async fn issue(
    state: &OAuthState,
    request: ClientRequest<'_>,
    client: &OAuthClient,
    subject: Subject,
    (scopes, audiences, act, (before, cuts), issued_type): Terms,
) -> OauthResult<TokenResponse> {
    let settings = state.settings();
    let left = subject.expires_at - state.clock.now_seconds();
    let session_id = SessionId::generate();
    let chain = act.chain();
    let life = life(&settings, &scopes.permissions).min(left);
    let user = AuthenticatedUser { permissions: scopes.permissions, ..subject.user.clone() };
    let user = told_to(user, client, &scopes.oidc);
    let config = JwtConfig {
        life,
        oidc_scopes: scopes.oidc,
        audiences,
        auth_time: subject.auth_time,
        act: Some(act),
        plugin_id: plugin(subject.plugin_id.as_deref(), client)?,
    };
    if config.life < 1 {
        return Err(subject::invalid());
    }
    let user_id = subject.user.id.clone();
    let params = JwtSigningParams {
        client_id: &client.client_id,
        session_id: &session_id,
        algorithm: settings.algorithm,
    };
    let signed = generate_jwt(state, user, config, params).await?;
    let now = state.now();
    let mut session = CreateSessionInput::new(
        session_id.clone(),
        Some(user_id.clone()),
        SessionSource::Exchange,
        end_of(&signed),
    );
    session.facts = SignIn {
        ends_at: Some(end_of(&signed)),
        auth_time: subject.auth_time,
        ip_prefix: ip_prefix(request.context),
        user_agent: request.context.user_agent.as_deref().map(str::to_owned),
        client_id: Some(client.client_id.clone()),
        owner_id: client.owner_user_id.clone(),
        parent: subject.session.clone(),
        ..SignIn::default()
    };
    let asked = request.parameters.get("scope").map(|scope| Scopes::of(scope).text());
    let mut entry =
        draft(EntryKind::OauthExchange, request.context, "issued", &client.client_id, Some(&user_id))
            .with("issuer", short(&subject.issuer))
            .with("scopes_before", before.as_str())
            .with("scopes_asked", asked)
            .with("cut", cuts);
    entry.act_chain = chain;
    let mut unit = Unit::new();
    unit.record(describe(entry, GrantType::TokenExchange.as_str(), &signed));
    for guard in subject.guards {
        unit.require(guard);
    }
    if let Some(parent) = &subject.session {
        unit.require(session_lives(parent, now));
        if let Some(jti) = &subject.jti {
            unit.require(token_stands(parent, jti));
        }
    }
    unit.open(SessionOpened::new(session, now));
    match state.ledger.commit(unit).await {
        Ok(permit) => drop(permit),
        Err(LedgerError::Guard(SESSION_ENDED | TOKEN_ENDED | TOKEN_REPLAYED)) => {
            return Err(subject::invalid());
        }
        Err(error) => return Err(error.into()),
    }
    Ok(TokenResponse { issued_token_type: Some(issued_type), ..response(signed) })
}

/// As much of a configured text as a record takes.
fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(200)).unwrap_or(text)
}

fn issued_type(parameters: &Parameters) -> OauthResult<&'static str> {
    match parameters.get("requested_token_type") {
        None | Some(ACCESS_TOKEN) => Ok(ACCESS_TOKEN),
        Some(JWT) => Ok(JWT),
        Some(_) => Err(OauthError::invalid_request("requested_token_type is none that is issued")),
    }
}

/// Who acts: the subject of the actor token, else the client itself (ID-62).
async fn actor(state: &OAuthState, parameters: &Parameters, client: &OAuthClient) -> OauthResult<Actor> {
    let itself =
        Actor { client_id: Some(client.client_id.clone()), ..Actor::new(client.user_id.as_str(), None) };
    match (parameters.get("actor_token"), parameters.get("actor_token_type")) {
        (None, None) => Ok(itself),
        (Some(token), Some(ACCESS_TOKEN | JWT)) => {
            let claims = subject::own_access(state, token).await?;
            Ok(Actor { client_id: claims.client_id.clone(), ..Actor::new(claims.sub.as_str(), None) })
        }
        (Some(_), Some(_)) => Err(OauthError::invalid_request("actor_token_type is none that can act")),
        _ => Err(OauthError::invalid_request("actor_token and actor_token_type belong together")),
    }
}

/// RFC 8693 section 4.4: a token may name who alone may act with it.
fn check_may_act(may_act: Option<&serde_json::Value>, actor: &Actor) -> OauthResult<()> {
    let Some(may_act) = may_act else { return Ok(()) };
    let text = |name: &str| may_act.get(name).and_then(serde_json::Value::as_str);
    let is_actor = text("sub").is_some_and(|sub| sub == actor.sub);
    let named =
        text("client_id").is_none_or(|id| actor.client_id.as_ref().is_some_and(|own| own.as_str() == id));
    let has_known_members = may_act
        .as_object()
        .is_some_and(|members| members.keys().all(|name| matches!(name.as_str(), "sub" | "client_id")));
    if is_actor && named && has_known_members { Ok(()) } else { Err(subject::invalid()) }
}

/// What request, subject, client and its owner have in common (ID-61).
async fn scopes(
    state: &OAuthState,
    asked: Option<&str>,
    subject: &mut Subject,
    client: &OAuthClient,
) -> OauthResult<(Scopes, Cuts)> {
    let mut cuts = Cuts::default();
    let asked = asked.map_or_else(|| subject.scopes.clone(), Scopes::of);
    let of_subject = asked.clone().and(&subject.scopes);
    cuts.note("user", &asked, &of_subject);
    let of_client = of_subject.clone().and(&Scopes::of_client(client));
    cuts.note("client", &of_subject, &of_client);
    let mut scopes = of_client.clone();
    if let Some(owner) = owner(state, client).await? {
        scopes = scopes.permitted(&state.settings().permissions_of_user(&owner));
        cuts.note("owner", &of_client, &scopes);
        subject.guards.push(owner.stands());
    }
    // Who somebody is was told to the client that they signed in at.
    scopes.oidc.clear();
    if scopes.permissions.is_empty() {
        Err(OauthError::invalid_scope("nothing of scope is left for this subject and client"))
    } else {
        Ok((scopes, cuts))
    }
}

/// A hook token stays bound to its plugin, whoever acts with it.
fn plugin(of_subject: Option<&str>, client: &OAuthClient) -> OauthResult<Option<String>> {
    match (of_subject, client.plugin_id.as_deref()) {
        (Some(subject), Some(own)) if subject != own => {
            Err(OauthError::invalid_target("subject_token is bound to another plugin"))
        }
        (subject, own) => Ok(subject.or(own).map(str::to_owned)),
    }
}

/// Where the new token counts. Without a word of the request it is not carried further than the old one came.
fn audiences(
    state: &OAuthState,
    parameters: &Parameters,
    client: &OAuthClient,
    subject: &Subject,
    scopes: &Scopes,
) -> OauthResult<Vec<JwtAudience>> {
    let settings = state.settings();
    let mut requested = audience::requested(parameters)?;
    let is_known = |audience: &JwtAudience| match audience {
        JwtAudience::Resource(uri) => audience::is_allowed(&settings, uri),
        _ => true,
    };
    if !requested.iter().all(is_known) {
        return Err(OauthError::invalid_target("audience is no resource of this deployment"));
    }
    if let Some(known) = subject.audiences.as_ref().filter(|_| requested.is_empty()) {
        let own = &client.allowed_audiences;
        requested.extend(known.iter().filter(|one| own.is_empty() || own.contains(one)).cloned());
        if requested.is_empty() {
            return Err(OauthError::invalid_target("subject_token counts nowhere that this client does"));
        }
    }
    client_audiences(&settings, client, requested, &scopes.permissions)
}
