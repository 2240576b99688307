//! Audiences and resource indicators that a request names (ID-39, ID-54, RFC 8707).

use crate::error::{OauthError, OauthResult};
use crate::services::http::Parameters;
use crate::state::Settings;
use systemprompt_models::JwtAudience;
use url::Url;

/// Most audiences of one token.
pub const MAX_AUDIENCES: usize = 8;
/// Longest resource indicator, in bytes.
pub const MAX_RESOURCE: usize = 256;
/// Surfaces by their path below the external URL; those with a name in the path are told apart in [`is_named_surface`].
pub const SURFACES: [&str; 5] = ["", "/api/v1", "/v1", "/v1/bridge", "/api/v1/hooks"];

/// The canonical form of a resource indicator: scheme and host in lower case, without a default port and a slash at the end.
///
/// # Errors
/// `invalid_target` for what is relative, has a fragment, or is too long.
pub fn canonical(text: &str) -> OauthResult<String> {
    let fault = || OauthError::invalid_target("resource must be an absolute URI without a fragment");
    if text.len() > MAX_RESOURCE {
        return Err(fault());
    }
    let url = Url::parse(text).map_err(|_| fault())?;
    let is_plain = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    if !is_plain || (url.host_str().is_none() && !text.starts_with("urn:")) {
        return Err(fault());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The `resource` parameters in canonical form, each once.
///
/// # Errors
/// As [`canonical`], and too many.
pub fn resources(parameters: &Parameters) -> OauthResult<Vec<String>> {
    let mut found = Vec::new();
    for text in parameters.all("resource") {
        let resource = canonical(text)?;
        if !found.contains(&resource) {
            found.push(resource);
        }
    }
    if found.len() > MAX_AUDIENCES {
        return Err(OauthError::invalid_target("resource stands there too often"));
    }
    Ok(found)
}

/// Whether tokens for this resource, in canonical form, may be asked for: it is a surface of this deployment, or listed.
pub fn is_allowed(settings: &Settings, resource: &str) -> bool {
    let is_listed = |listed: &String| canonical(listed).is_ok_and(|listed| listed == resource);
    is_surface(settings, resource) || settings.allowed_resource_audiences.iter().any(is_listed)
}

fn is_surface(settings: &Settings, resource: &str) -> bool {
    let Ok(base) = canonical(&settings.external_url) else { return false };
    let Some(path) = resource.strip_prefix(&base) else { return false };
    SURFACES.contains(&path) || is_named_surface(path)
}

/// Whether a path has the form of a server's or an agent's, whether or not it exists.
pub fn is_named_surface(path: &str) -> bool {
    let is_name = |name: &str| {
        (1..=128).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let server = path.strip_prefix("/api/v1/mcp/").and_then(|rest| rest.strip_suffix("/mcp"));
    server.or_else(|| path.strip_prefix("/api/v1/agents/")).is_some_and(is_name)
}

/// What a token request names as its audiences, by `audience` and `resource`; empty where it names none.
///
/// # Errors
/// `invalid_target` for what is no name of a surface and no absolute URI, or too many.
pub fn requested(parameters: &Parameters) -> OauthResult<Vec<JwtAudience>> {
    let mut found = Vec::new();
    for text in parameters.all("audience").flat_map(|text| text.split_ascii_whitespace()) {
        let audience = match JwtAudience::from(text) {
            JwtAudience::Resource(uri) => JwtAudience::Resource(canonical(&uri).map_err(|_| {
                OauthError::invalid_target("audience must be the name of a surface or an absolute URI")
            })?),
            named => named,
        };
        if !found.contains(&audience) {
            found.push(audience);
        }
    }
    for resource in resources(parameters)? {
        let audience = JwtAudience::Resource(resource);
        if !found.contains(&audience) {
            found.push(audience);
        }
    }
    if found.len() > MAX_AUDIENCES {
        return Err(OauthError::invalid_target("too many audiences"));
    }
    Ok(found)
}

/// The part of `granted` that a request keeps: all of it where the request names nothing.
///
/// # Errors
/// `invalid_target` for a resource that is none of them.
pub fn subset(parameters: &Parameters, granted: &[String]) -> OauthResult<Vec<String>> {
    let asked = resources(parameters)?;
    if asked.is_empty() {
        return Ok(granted.to_vec());
    }
    if asked.iter().all(|resource| granted.contains(resource)) {
        Ok(asked)
    } else {
        Err(OauthError::invalid_target("resource is none that was granted"))
    }
}

/// The audiences of a token for `resources`; where there is none, those of the configuration.
pub fn of_resources(settings: &Settings, resources: &[String]) -> Vec<JwtAudience> {
    if resources.is_empty() {
        return settings.audiences.clone();
    }
    resources.iter().map(|resource| JwtAudience::from(resource.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_compared_in_canonical_form() {
        for (text, want) in [
            ("HTTPS://API.example.org:443/v1/", Some("https://api.example.org/v1")),
            ("http://localhost:8080", Some("http://localhost:8080")),
            ("urn:example:a", Some("urn:example:a")),
            ("https://api.example.org/#x", None),
            ("https://u@api.example.org/", None),
            ("/relative", None),
            ("mailto", None),
        ] {
            assert_eq!(canonical(text).ok().as_deref(), want, "{text}");
        }
        assert!(canonical(&format!("https://h/{}", "a".repeat(MAX_RESOURCE))).is_err());
    }

    #[test]
    fn a_request_may_only_narrow_what_was_granted() {
        let granted = ["https://a.example/x".to_owned(), "https://b.example".to_owned()];
        let of = |text: &str| subset(&Parameters::parse(text.as_bytes()).unwrap(), &granted).ok();
        assert_eq!(of("scope=a"), Some(granted.to_vec()));
        assert_eq!(of("resource=https://B.example/"), Some(vec!["https://b.example".to_owned()]));
        assert_eq!(of("resource=https://c.example"), None);
    }

    #[test]
    fn audiences_are_names_of_surfaces_or_absolute_uris() {
        let of = |text: &str| {
            let found = requested(&Parameters::parse(text.as_bytes()).unwrap()).ok()?;
            Some(found.iter().map(|a| a.as_str().to_owned()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of("audience=hook&audience=mcp&audience=hook").as_deref(), Some("hook mcp"));
        assert_eq!(of("audience=api&resource=https://X.example/").as_deref(), Some("api https://x.example"));
        assert_eq!(of("scope=x").as_deref(), Some(""));
        assert_eq!(of("audience=elsewhere"), None);
    }
}
