//! The authorization code grant with PKCE (RFC 6749 section 4.1.3, RFC 7636 section 4.6): a code is good for one exchange, by
//! the client that it was made for, with the verifier of its challenge.

use super::ClientRequest;
use super::family::{Family, SignedIn, is_of, lost, unknown, words};
use crate::at_rest::Label;
use crate::constants::AUTH_CODE_PREFIX;
use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::models::oauth::GrantType;
use crate::repository::oauth::auth_code::{AuthCode, CODE_SPENT, CodeState, code_spent};
use crate::services::generation::TokenResponse;
use crate::services::grants;
use crate::services::http::Parameters;
use crate::services::scopes::Scopes;
use crate::services::validation::audience;
use crate::state::OAuthState;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::HashSet;
use subtle::ConstantTimeEq as _;
use systemprompt_audit::{Draft, EntryKind, LedgerError};
use systemprompt_models::Millis;
use systemprompt_models::session::SessionSource;
use systemprompt_security::opaque;
use systemprompt_security::session::SessionOpened;

/// Fewest characters of a verifier that differ (ID-37).
const MIN_DISTINCT: usize = 5;

pub(super) async fn exchange(
    state: &OAuthState,
    request: ClientRequest<'_>,
    client: &OAuthClient,
) -> OauthResult<TokenResponse> {
    let text = request.parameters.need("code")?;
    if !opaque::has_form(AUTH_CODE_PREFIX, text) {
        return Err(unknown("code"));
    }
    let found = state.oauth.find_code(&state.at_rest.candidates(Label::AuthCode, text)).await?;
    // Another client's code is unknown to this one, and stays unspent.
    let code = found.filter(|code| is_of(client, &code.client_id)).ok_or_else(|| unknown("code"))?;
    match code.state(state.now())? {
        CodeState::Fresh => {}
        CodeState::Expired => return Err(unknown("code")),
        CodeState::Used { at } => return Err(reused(state, request, &code, Some(at)).await),
    }
    match issue(state, request, client, &code).await {
        Err(Failed::Spent) => Err(reused(state, request, &code, None).await),
        Err(Failed::Refused(error)) => {
            // A code that was shown with something wrong is worth nothing any more.
            if !error.is_ours() && !state.oauth.spend_code(&code.code_digest, state.now()).await? {
                return Err(reused(state, request, &code, None).await);
            }
            Err(error)
        }
        Ok(tokens) => Ok(tokens),
    }
}

enum Failed {
    /// Another use was before.
    Spent,
    Refused(OauthError),
}

impl<E: Into<OauthError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

async fn issue(
    state: &OAuthState,
    request: ClientRequest<'_>,
    client: &OAuthClient,
    code: &AuthCode,
) -> Result<TokenResponse, Failed> {
    check_redirect(request.parameters, code)?;
    check_verifier(request.parameters.get("code_verifier"), &code.code_challenge)?;
    let resources = audience::subset(request.parameters, &words(&code.resources))?;
    let family = Family::open(state, request.context, client, &code.grant_id).await?;
    let signed_in = SignedIn {
        auth_time: code.auth_time,
        acr: code.acr.clone(),
        amr: code.amr.clone(),
        nonce: code.nonce(),
    };
    let asked = Scopes::of(&code.scopes);
    let scopes = family.granted(&asked)?;
    let access = family.access(scopes, &resources, &signed_in).await?;
    let mut unit = family.unit(GrantType::AuthorizationCode, &access, &asked);
    unit.require(code_spent(&code.code_digest, &code.client_id, state.now()));
    unit.open(SessionOpened::new(family.session(SessionSource::Oauth, &signed_in, &access), state.now()));
    let refresh = family.first_refresh(&mut unit, &access)?;
    let answer = family.answer(access, refresh, &signed_in)?;
    match state.ledger.commit(unit).await {
        Ok(permit) => {
            drop(permit);
            Ok(answer)
        }
        Err(LedgerError::Guard(CODE_SPENT)) => Err(Failed::Spent),
        Err(error) => Err(Failed::Refused(lost(error))),
    }
}

/// A second use of a code: whoever came first may be the wrong one, so nobody keeps anything.
async fn reused(
    state: &OAuthState,
    request: ClientRequest<'_>,
    code: &AuthCode,
    used_at: Option<Millis>,
) -> OauthError {
    let now = state.now();
    let grant = match state.oauth.find_grant(&code.grant_id).await {
        Ok(grant) => grant,
        Err(error) => return error.into(),
    };
    if grant.is_some_and(|grant| grant.revoked_at.is_none()) {
        let mut draft = Draft::new(EntryKind::OauthCodeReuse, request.context, "revoked")
            .with("client", code.client_id.as_str())
            .with("user_id", code.user_id.as_str())
            .with("issued_ago_ms", now - code.created_at)
            .with("used_ago_ms", used_at.map(|at| now - at));
        draft.client_id = Some(code.client_id.as_str().into());
        if let Err(error) = grants::end(state, draft, &code.grant_id, "code_reuse", None).await {
            return error;
        }
    }
    unknown("code")
}

fn check_redirect(parameters: &Parameters, code: &AuthCode) -> OauthResult<()> {
    let given = parameters.get("redirect_uri");
    let fits = match given {
        Some(uri) => uri == code.redirect_uri,
        None => code.redirect_uri_given == 0,
    };
    if fits { Ok(()) } else { Err(unknown("redirect_uri")) }
}

/// RFC 7636 section 4.6, method `S256`.
fn check_verifier(verifier: Option<&str>, challenge: &str) -> OauthResult<()> {
    let verifier = verifier.ok_or_else(|| unknown("code_verifier"))?;
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let distinct = verifier.bytes().collect::<HashSet<_>>().len();
    let has_form = (43..=128).contains(&verifier.len()) && verifier.bytes().all(is_unreserved);
    let hashed = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let is_its = bool::from(hashed.as_bytes().ct_eq(challenge.as_bytes()));
    if has_form && distinct >= MIN_DISTINCT && is_its { Ok(()) } else { Err(unknown("code_verifier")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_114_a_verifier_is_checked_in_form_and_against_its_challenge() {
        // RFC 7636 appendix B.
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(check_verifier(Some(verifier), challenge).is_ok());
        let hash = |text: &str| URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()));
        let (short, long, same) = ("abcde".repeat(8), "abcde".repeat(26), "abcd".repeat(11));
        for (verifier, challenge) in [
            (None, challenge.to_owned()),
            (Some(verifier), String::new()),
            (Some(verifier), verifier.to_owned()),
            (Some(challenge), challenge.to_owned()),
            (Some(short.as_str()), hash(&short)),
            (Some(long.as_str()), hash(&long)),
            (Some(same.as_str()), hash(&same)),
        ] {
            assert!(check_verifier(verifier, &challenge).is_err(), "{verifier:?} {challenge}");
        }
    }
}
