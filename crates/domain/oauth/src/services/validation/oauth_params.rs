//! Parameters of an authorization request: PKCE (RFC 7636, ID-37), scopes (ID-38), resources (RFC 8707, ID-39).

use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::services::http::Parameters;
use crate::services::scopes::Scopes;
use crate::services::validation::audience;
use crate::state::Settings;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use systemprompt_models::Permission;

/// Fewest different characters of a challenge. A random one of 32 bytes has fewer with a chance below 2^-48.
const MIN_DISTINCT: usize = 8;
/// The same character so often in a row is nobody's digest.
const MAX_REPEAT: usize = 9;
/// S256 of the empty text.
const CHALLENGE_OF_NOTHING: &str = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
/// Most resources that one request may name.
const MAX_RESOURCES: usize = 4;

/// Checks a code challenge of the method S256.
///
/// # Errors
/// `invalid_request` for what cannot be the digest of a good verifier.
pub fn check_challenge(challenge: &str) -> OauthResult<()> {
    let is_digest =
        challenge.len() == 43 && URL_SAFE_NO_PAD.decode(challenge).is_ok_and(|bytes| bytes.len() == 32);
    if !is_digest {
        return Err(OauthError::invalid_request("code_challenge is not the base64url of a SHA-256 digest"));
    }
    if distinct(challenge) < MIN_DISTINCT
        || longest_run(challenge) > MAX_REPEAT
        || challenge == CHALLENGE_OF_NOTHING
    {
        return Err(OauthError::invalid_request("code_challenge is not of a random code_verifier"));
    }
    Ok(())
}

fn distinct(text: &str) -> usize {
    let mut seen = [false; 256];
    for byte in text.bytes() {
        if let Some(place) = seen.get_mut(usize::from(byte)) {
            *place = true;
        }
    }
    seen.iter().filter(|is_there| **is_there).count()
}

fn longest_run(text: &str) -> usize {
    let (mut longest, mut run, mut last) = (0, 0, None);
    for byte in text.bytes() {
        run = if last == Some(byte) { run + 1 } else { 1 };
        last = Some(byte);
        longest = longest.max(run);
    }
    longest
}

/// The words of a scope that mean something in a grant of a person, each once; `None` without a scope.
///
/// # Errors
/// `invalid_scope` when a scope was asked for and nothing of it is known.
pub fn known_scopes(scope: Option<&str>) -> OauthResult<Option<String>> {
    let Some(scope) = scope else { return Ok(None) };
    let known = Scopes::of(scope).for_persons().text();
    if known.is_empty() {
        return Err(OauthError::invalid_scope("scope names nothing that can be granted"));
    }
    Ok(Some(known))
}

/// What a person may grant: what was asked for (or, if nothing was, what the client may have, without `admin`), as far as the
/// client may have it and the person has it.
///
/// # Errors
/// `invalid_scope` when nothing is left that a token could be made of.
pub fn grantable(
    asked: Option<&str>,
    client: &OAuthClient,
    permissions: &[Permission],
) -> OauthResult<Vec<String>> {
    let of_client = Scopes::of_client(client);
    let mut wanted = asked.map_or_else(|| of_client.clone(), Scopes::of);
    if asked.is_none() {
        wanted.permissions.retain(|permission| *permission != Permission::Admin);
    }
    let granted = wanted.for_persons().and(&of_client).permitted(permissions);
    if !granted.is_enough() {
        return Err(OauthError::invalid_scope(
            "nothing of the scope can be granted to this client by this account",
        ));
    }
    Ok(granted.text().split(' ').map(str::to_owned).collect())
}

/// The resources of an authorization request in canonical form, each once.
///
/// # Errors
/// `invalid_target` for what is no URI of a surface of this deployment and not configured either, and for too many.
pub fn resources(settings: &Settings, parameters: &Parameters) -> OauthResult<Vec<String>> {
    let resources = audience::resources(parameters)?;
    if resources.len() > MAX_RESOURCES {
        return Err(OauthError::invalid_target("at most four resources"));
    }
    if !resources.iter().all(|resource| audience::is_allowed(settings, resource)) {
        return Err(OauthError::invalid_target("resource names nothing of this deployment"));
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_114_only_digests_of_random_verifiers_are_challenges() {
        // RFC 7636 appendix B.
        assert!(check_challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").is_ok());
        for wrong in [
            "",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "ABCDEFGABCDEFGABCDEFGABCDEFGABCDEFGABCDEFGA",
            "abcdefghijklmAAAAAAAAAAAAAnopqrstuvwxyz0120",
            CHALLENGE_OF_NOTHING,
        ] {
            assert!(check_challenge(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn scopes_that_mean_nothing_here_are_dropped() {
        let known =
            |scope| known_scopes(Some(scope)).map(Option::unwrap_or_default).map_err(|e| e.code().as_str());
        assert_eq!(known("openid user phone openid"), Ok("user openid".to_owned()));
        assert_eq!(known("service hook:govern hook:track anonymous phone"), Err("invalid_scope"));
        assert_eq!(known_scopes(None).unwrap(), None);
    }
}
