//! Which addresses are client ids, and which documents describe a client (ID-22, ID-25).

use crate::models::cimd::CimdFault;
use crate::models::oauth::ClientAuthMethod;
use crate::models::oauth::dynamic_registration::{ClientMetadata, Limits};
use serde_json::{Map, Value};
use systemprompt_config::profile::identity::CimdConfig;
use systemprompt_models::json::check_object;
use systemprompt_net::egress::HostPattern;
use url::{Host, Url};

/// Longest address, in bytes.
const MAX_ADDRESS: usize = 512;
/// Deepest nesting of a document.
const MAX_DEPTH: usize = 8;

/// Looks at the address as it is written, since a parser would remove what must not be there. Returns its host.
///
/// # Errors
/// What is wrong with it.
pub fn check_address(id: &str) -> Result<String, CimdFault> {
    let wrong = |what| Err(CimdFault::Address(what));
    if id.len() > MAX_ADDRESS {
        return wrong("length");
    }
    if !id.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\') {
        return wrong("characters");
    }
    let Some(rest) = id.strip_prefix("https://") else { return wrong("scheme") };
    if rest.contains('#') {
        return wrong("fragment");
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if authority.contains('@') {
        return wrong("user name");
    }
    let path = tail.split('?').next().unwrap_or_default();
    if path.len() < 2 {
        return wrong("path");
    }
    let is_dots = |segment: &str| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    };
    if path.split('/').any(is_dots) {
        return wrong("dot segment");
    }
    let Ok(url) = Url::parse(id) else { return wrong("form") };
    let Some(Host::Domain(host)) = url.host() else { return wrong("host") };
    // The parser takes escapes and other alphabets for a host; the name must be written as it is looked up.
    let written = authority.split(':').next().unwrap_or_default();
    let is_name = written.eq_ignore_ascii_case(host)
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    if !is_name {
        return wrong("host");
    }
    if tail.contains('?') {
        tracing::warn!(host, "a client id has a query, which is allowed and unwise");
    }
    Ok(host.to_owned())
}

/// Whether documents of `host` count (ID-27).
///
/// # Errors
/// [`CimdFault::Host`]; a list that cannot be read lets nobody in.
pub fn check_host(config: &CimdConfig, host: &str) -> Result<(), CimdFault> {
    let named = |list: &[String]| -> Result<bool, CimdFault> {
        let patterns: Vec<HostPattern> =
            list.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| CimdFault::Host)?;
        Ok(patterns.iter().any(|pattern| pattern.matches(host)))
    };
    let is_allowed = config.allow_hosts.is_empty() || named(&config.allow_hosts)?;
    if is_allowed && !named(&config.deny_hosts)? { Ok(()) } else { Err(CimdFault::Host) }
}

/// Reads the document that was found at `url`.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(url: &str, document: &[u8]) -> Result<ClientMetadata, CimdFault> {
    check_object(document, MAX_DEPTH).map_err(|_| CimdFault::NotAnObject)?;
    let members: Map<String, Value> = serde_json::from_slice(document).map_err(|_| CimdFault::NotAnObject)?;
    match members.get("client_id") {
        None => return Err(CimdFault::Missing("client_id")),
        Some(id) if id.as_str() == Some(url) => {}
        Some(_) => return Err(CimdFault::OtherClient),
    }
    for secret in ["client_secret", "client_secret_expires_at"] {
        if members.contains_key(secret) {
            return Err(CimdFault::Forbidden(secret));
        }
    }
    for needed in ["client_name", "redirect_uris"] {
        let is_there = match members.get(needed) {
            Some(Value::String(text)) => !text.trim().is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Null) | None => false,
            Some(_) => true,
        };
        if !is_there {
            return Err(CimdFault::Missing(needed));
        }
    }
    let metadata = ClientMetadata::read(&members, ClientAuthMethod::None, Limits::Open)
        .map_err(|fault| CimdFault::Member(fault.member))?;
    match metadata.auth_method {
        ClientAuthMethod::ClientSecretBasic | ClientAuthMethod::ClientSecretPost => {
            Err(CimdFault::Forbidden("token_endpoint_auth_method"))
        }
        ClientAuthMethod::None | ClientAuthMethod::PrivateKeyJwt => Ok(metadata),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn id_22_an_address_is_read_as_it_is_written() {
        let long = format!("https://a.example/{}", "x".repeat(495));
        for address in [
            "https://app.example/client.json",
            "https://app.example:8443/a/b",
            "https://APP.example/client",
            "https://app.example/client?v=1",
            "https://localhost:9443/client",
            "https://app.example/a//b/...",
        ] {
            assert!(check_address(address).is_ok(), "{address}");
        }
        for address in [
            "http://app.example/client",
            "HTTPS://app.example/client",
            "https://app.example",
            "https://app.example/",
            "https://app.example?x=/y",
            "https://app.example/?x",
            "https://app.example/client#x",
            "https://user@app.example/client",
            "https://user:pass@app.example/client",
            "https://app.example/./client",
            "https://app.example/a/../client",
            "https://app.example/a/%2e%2E/client",
            "https://app.example/a/.%2e",
            "https://app.example/a/%2e",
            "https://app.example/a b",
            "https://app.example/a\tb",
            "https://app.example/a\u{7f}",
            "https://app.example\\client",
            "https://app.example/\u{e4}",
            "https://192.0.2.7/client",
            "https://[2001:db8::1]/client",
            "https://0x7f000001/client",
            "https://2130706433/client",
            "https://app%2eexample/client",
            "https://app.example:port/client",
            "https:///client",
            "https://a..example/client",
            long.as_str(),
        ] {
            assert!(check_address(address).is_err(), "{address}");
        }
    }

    #[test]
    fn id_27_hosts_are_allowed_and_denied_by_name_and_by_domain() {
        let config = |allow: &[&str], deny: &[&str]| CimdConfig {
            allow_hosts: allow.iter().map(ToString::to_string).collect(),
            deny_hosts: deny.iter().map(ToString::to_string).collect(),
            ..CimdConfig::default()
        };
        for (allow, deny, host, want) in [
            (&[][..], &[][..], "app.example", true),
            (&["app.example"], &[], "app.example", true),
            (&["app.example"], &[], "other.example", false),
            (&["*.app.example"], &[], "a.app.example", true),
            (&["*.app.example"], &[], "app.example", false),
            (&["*.app.example"], &[], "evilapp.example", false),
            (&[], &["bad.example"], "bad.example", false),
            (&["*.example"], &["bad.example"], "bad.example", false),
            (&["not a host"], &[], "app.example", false),
        ] {
            assert_eq!(check_host(&config(allow, deny), host).is_ok(), want, "{allow:?} {deny:?} {host}");
        }
    }

    #[test]
    fn id_25_what_a_document_must_and_must_not_hold() {
        const URL: &str = "https://app.example/client.json";
        let with = |changes: Value| {
            let mut document =
                json!({"client_id": URL, "client_name": "App", "redirect_uris": ["https://app.example/cb"]});
            for (name, value) in changes.as_object().unwrap() {
                document[name] = value.clone();
            }
            read(URL, document.to_string().as_bytes())
        };
        let plain = with(json!({"unknown": {"a": [1]}})).unwrap();
        assert_eq!(plain.auth_method, ClientAuthMethod::None);
        assert_eq!(plain.relations.grant_types, [crate::models::oauth::GrantType::AuthorizationCode]);
        for (changes, reason) in [
            (json!({"client_id": "https://app.example/client.json?"}), "other_client_id"),
            (json!({"client_id": "https://APP.example/client.json"}), "other_client_id"),
            (json!({"client_id": 7}), "other_client_id"),
            (json!({"client_id": null}), "other_client_id"),
            (json!({"client_name": null}), "member_missing"),
            (json!({"client_name": ""}), "member_missing"),
            (json!({"client_name": 7}), "member_invalid"),
            (json!({"redirect_uris": []}), "member_missing"),
            (json!({"redirect_uris": ["http://evil.test/"]}), "member_invalid"),
            (json!({"client_secret": "x"}), "member_forbidden"),
            (json!({"client_secret_expires_at": 0}), "member_forbidden"),
            (json!({"token_endpoint_auth_method": "client_secret_basic"}), "member_forbidden"),
            (json!({"token_endpoint_auth_method": "client_secret_post"}), "member_forbidden"),
            (json!({"token_endpoint_auth_method": "private_key_jwt"}), "member_invalid"),
            (json!({"token_endpoint_auth_method": "tls_client_auth"}), "member_invalid"),
            (json!({"grant_types": ["client_credentials"]}), "member_invalid"),
            (json!({"client_name": "a\u{202e}b"}), "member_invalid"),
        ] {
            assert_eq!(with(changes.clone()).unwrap_err().reason(), reason, "{changes}");
        }
        for text in ["[]", "null", "", "{\"client_id\":1,\"client_id\":2}", "{} {}"] {
            assert_eq!(read(URL, text.as_bytes()).unwrap_err().reason(), "not_an_object", "{text}");
        }
    }
}
