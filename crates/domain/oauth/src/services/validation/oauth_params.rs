//! Parameters of an authorization request: PKCE (RFC 7636, ID-37), scopes (ID-38), resources (RFC 8707, ID-39).

use crate::error::{OauthError, OauthResult};
use crate::models::clients::OAuthClient;
use crate::state::Settings;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use systemprompt_models::permission::OIDC_SCOPES;
use systemprompt_models::{JwtAudience, Permission};
use url::Url;

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

/// Permissions that no person's grant ever carries: they belong to clients that act for themselves.
const NEVER_BY_CONSENT: [Permission; 4] =
    [Permission::Service, Permission::HookGovern, Permission::HookTrack, Permission::Anonymous];

/// Whether a word of a scope means something in a grant that a person gives.
fn is_known(word: &str) -> bool {
    OIDC_SCOPES.contains(&word) || word.parse::<Permission>().is_ok_and(|p| !NEVER_BY_CONSENT.contains(&p))
}

/// The words of a scope that mean something, each once; `None` without a scope.
///
/// # Errors
/// `invalid_scope` when a scope was asked for and nothing of it is known.
pub fn known_scopes(scope: Option<&str>) -> OauthResult<Option<Vec<String>>> {
    let Some(scope) = scope else { return Ok(None) };
    let mut words: Vec<String> = Vec::new();
    for word in scope.split_ascii_whitespace().filter(|word| is_known(word)) {
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    if words.is_empty() {
        Err(OauthError::invalid_scope("scope names nothing that can be granted"))
    } else {
        Ok(Some(words))
    }
}

/// What a person may grant: what was asked for (or, if nothing was, what the client may have, without `admin`), as far as the
/// client may have it and the person has it.
///
/// # Errors
/// `invalid_scope` when nothing is left.
pub fn grantable(
    asked: Option<&[String]>,
    client: &OAuthClient,
    permissions: &[Permission],
) -> OauthResult<Vec<String>> {
    let is_theirs = |word: &str| {
        OIDC_SCOPES.contains(&word) || word.parse().is_ok_and(|permission| permissions.contains(&permission))
    };
    let all: Vec<String> = match asked {
        Some(asked) => asked.to_vec(),
        None => client
            .relations
            .scopes
            .iter()
            .filter(|word| *word != Permission::Admin.as_str())
            .cloned()
            .collect(),
    };
    let granted: Vec<String> =
        all.into_iter().filter(|word| is_known(word) && client.has_scope(word) && is_theirs(word)).collect();
    if granted.is_empty() {
        return Err(OauthError::invalid_scope(
            "nothing of the scope can be granted to this client by this account",
        ));
    }
    Ok(granted)
}

/// The resources of a request in canonical form, each once.
///
/// # Errors
/// `invalid_target` for what is no URI of a surface of this deployment and not configured either, and for too many.
pub fn resources<'a>(settings: &Settings, named: impl Iterator<Item = &'a str>) -> OauthResult<Vec<String>> {
    let mut resources: Vec<String> = Vec::new();
    for uri in named {
        let uri = resource(settings, uri)?;
        if !resources.contains(&uri) {
            resources.push(uri);
        }
    }
    if resources.len() > MAX_RESOURCES {
        return Err(OauthError::invalid_target("at most four resources"));
    }
    Ok(resources)
}

/// One resource in canonical form: scheme and host in lower case, no default port, no slash at the end.
///
/// # Errors
/// As [`resources`].
pub fn resource(settings: &Settings, uri: &str) -> OauthResult<String> {
    let wrong = || OauthError::invalid_target("resource is not an absolute URI without fragment");
    if uri.len() > 2048 || uri.contains('#') {
        return Err(wrong());
    }
    let url = Url::parse(uri).map_err(|_| wrong())?;
    if url.cannot_be_a_base() && !settings.allowed_resource_audiences.iter().any(|known| known == uri) {
        return Err(wrong());
    }
    let canonical = url.as_str().trim_end_matches('/').to_owned();
    let is_allowed = settings.allowed_resource_audiences.iter().any(|known| {
        known == uri || Url::parse(known).is_ok_and(|known| known.as_str().trim_end_matches('/') == canonical)
    });
    if is_allowed || is_surface(settings, &canonical) {
        Ok(canonical)
    } else {
        Err(OauthError::invalid_target("resource names nothing of this deployment"))
    }
}

/// Paths of the surfaces that publish a document of their own (RFC 9728).
pub const SURFACES: [&str; 5] = ["", "/api/v1", "/v1", "/v1/bridge", "/api/v1/hooks"];

/// Whether a URI has the form of a surface, whether or not what it names exists.
pub fn is_surface(settings: &Settings, uri: &str) -> bool {
    let Some(path) = uri.strip_prefix(settings.external_url.as_str()) else { return false };
    SURFACES.contains(&path) || is_named_surface(path)
}

/// `/api/v1/mcp/{server}/mcp` and `/api/v1/agents/{name}`.
pub fn is_named_surface(path: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 128
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let server = path.strip_prefix("/api/v1/mcp/").and_then(|rest| rest.strip_suffix("/mcp"));
    let agent = path.strip_prefix("/api/v1/agents/");
    server.or(agent).is_some_and(is_name)
}

/// The audiences of a token for these resources; without any, those of the configuration.
pub fn audiences(settings: &Settings, resources: &[String]) -> Vec<JwtAudience> {
    if resources.is_empty() {
        settings.audiences.clone()
    } else {
        resources.iter().cloned().map(JwtAudience::Resource).collect()
    }
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
        assert_eq!(known("openid user phone openid"), Ok(vec!["openid".to_owned(), "user".to_owned()]));
        assert_eq!(known("service hook:govern hook:track anonymous phone"), Err("invalid_scope"));
        assert_eq!(known_scopes(None).unwrap(), None);
    }
}
