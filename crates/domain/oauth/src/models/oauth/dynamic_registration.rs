//! What a client says of itself: the members of dynamic registration (RFC 7591 section 2), of metadata documents and of the
//! management API, read by one code.

use crate::error::ErrorCode;
use crate::models::clients::{ApplicationType, ClientRelations, OAuthClient};
use crate::models::oauth::{ClientAuthMethod, GrantType};
use crate::services::validation::client_keys::ClientKeys;
use crate::services::validation::redirect_uri::{self, MAX_URI, MAX_URIS};
use serde_json::{Map, Value};
use std::borrow::Cow;
use systemprompt_models::Permission;
use systemprompt_security::keys::SigningAlgorithm;
use url::Url;

/// Longest name, in characters.
pub const MAX_NAME: usize = 120;
/// Most contacts, and the longest of them in bytes.
const MAX_CONTACTS: usize = 5;
const MAX_CONTACT: usize = 254;
/// Most words of a scope.
const MAX_SCOPES: usize = 64;
/// Longest identifier or version of a piece of software, in characters.
const MAX_SOFTWARE: usize = 255;
/// Largest key set that a client hands in, in bytes.
const MAX_JWKS: usize = 16 * 1024;
/// What a client may ask for that nobody vouches for (ID-18).
pub const OPEN_SCOPES: [&str; 7] = ["openid", "profile", "email", "offline_access", "user", "mcp", "a2a"];
const OPEN_GRANTS: [GrantType; 3] =
    [GrantType::AuthorizationCode, GrantType::RefreshToken, GrantType::DeviceCode];
/// Name of a client that has none.
const UNNAMED: &str = "Unnamed client";

/// Who asks for a client, and so what it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Nobody that we know: what goes beyond [`OPEN_SCOPES`] is left out, a grant of its own is refused.
    Open,
    /// A user, for a client of their own: scopes that are an administrator's to give are refused.
    Owner,
    /// An administrator.
    Full,
}

/// A member that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {rule}")]
pub struct MetadataFault {
    pub code: ErrorCode,
    pub member: &'static str,
    /// What is right.
    pub rule: Cow<'static, str>,
}

/// Checked metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMetadata {
    pub name: String,
    pub auth_method: ClientAuthMethod,
    pub application_type: ApplicationType,
    pub relations: ClientRelations,
    pub jwks: Option<String>,
    pub jwks_uri: Option<String>,
    pub client_uri: Option<String>,
    pub logo_uri: Option<String>,
    pub policy_uri: Option<String>,
    pub tos_uri: Option<String>,
    pub software_id: Option<String>,
    pub software_version: Option<String>,
    pub id_token_signed_response_alg: SigningAlgorithm,
}

fn fault(member: &'static str, rule: impl Into<Cow<'static, str>>) -> MetadataFault {
    MetadataFault { code: ErrorCode::InvalidClientMetadata, member, rule: rule.into() }
}

type Members = Map<String, Value>;

impl ClientMetadata {
    /// Reads the members that are known; others mean nothing. `method` is the authentication of a client that does not say.
    ///
    /// # Errors
    /// The first member that is not valid.
    pub fn read(members: &Members, method: ClientAuthMethod, limits: Limits) -> Result<Self, MetadataFault> {
        if members.contains_key("software_statement") {
            return Err(MetadataFault {
                code: ErrorCode::InvalidSoftwareStatement,
                member: "software_statement",
                rule: "statements are not taken here".into(),
            });
        }
        let redirect_uris = list(members, "redirect_uris", MAX_URIS)?.unwrap_or_default();
        let post_logout = list(members, "post_logout_redirect_uris", MAX_URIS)?.unwrap_or_default();
        let application_type = match text(members, "application_type", 16)? {
            Some(word) => {
                ApplicationType::parse(&word).ok_or_else(|| fault("application_type", "web or native"))?
            }
            None => redirect_uri::application_type_of(
                redirect_uris.iter().chain(&post_logout).map(String::as_str),
            ),
        };
        check_uris("redirect_uris", &redirect_uris, application_type)?;
        check_uris("post_logout_redirect_uris", &post_logout, application_type)?;
        let auth_method = match text(members, "token_endpoint_auth_method", 64)? {
            Some(word) => ClientAuthMethod::parse(&word).ok_or_else(|| {
                fault(
                    "token_endpoint_auth_method",
                    "none, client_secret_basic, client_secret_post or private_key_jwt",
                )
            })?,
            None => method,
        };
        let grant_types = grants(members, auth_method, limits)?;
        let asks_people = grant_types.contains(&GrantType::AuthorizationCode);
        if asks_people && redirect_uris.is_empty() {
            return Err(MetadataFault {
                code: ErrorCode::InvalidRedirectUri,
                member: "redirect_uris",
                rule: "at least one for authorization_code".into(),
            });
        }
        let response_types = response_types(members, asks_people)?;
        let (jwks, jwks_uri) = keys(members, auth_method)?;
        let relations = ClientRelations {
            redirect_uris,
            post_logout_redirect_uris: post_logout,
            scopes: scopes(members, &grant_types, limits)?,
            grant_types,
            response_types,
            contacts: contacts(members)?,
        };
        Ok(Self {
            name: name(members)?,
            auth_method,
            application_type,
            relations: sorted(relations),
            jwks,
            jwks_uri,
            client_uri: link(members, "client_uri")?,
            logo_uri: link(members, "logo_uri")?,
            policy_uri: link(members, "policy_uri")?,
            tos_uri: link(members, "tos_uri")?,
            software_id: text(members, "software_id", MAX_SOFTWARE)?,
            software_version: text(members, "software_version", MAX_SOFTWARE)?,
            id_token_signed_response_alg: algorithm(members)?,
        })
    }
}

/// The order in which rows are read back.
fn sorted(mut relations: ClientRelations) -> ClientRelations {
    for list in [
        &mut relations.redirect_uris,
        &mut relations.post_logout_redirect_uris,
        &mut relations.scopes,
        &mut relations.contacts,
    ] {
        list.sort_unstable();
        list.dedup();
    }
    relations.grant_types.sort_unstable_by_key(|grant| grant.as_str());
    relations.grant_types.dedup();
    relations
}

/// A text of at most `max` characters; null and an empty one count as absent.
fn text(members: &Members, name: &'static str, max: usize) -> Result<Option<String>, MetadataFault> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) if value.is_empty() => Ok(None),
        Some(Value::String(value)) if value.chars().count() <= max && !value.chars().any(is_unprintable) => {
            Ok(Some(value.clone()))
        }
        Some(_) => Err(fault(name, format!("a text of at most {max} characters, none of them invisible"))),
    }
}

fn list(members: &Members, name: &'static str, max: usize) -> Result<Option<Vec<String>>, MetadataFault> {
    let wrong = || fault(name, format!("a list of at most {max} texts"));
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) if items.len() <= max => {
            let text = |item: &Value| item.as_str().map(str::to_owned).ok_or_else(wrong);
            items.iter().map(text).collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(wrong()),
    }
}

/// Control characters, and those that turn the direction of what is read around them.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn name(members: &Members) -> Result<String, MetadataFault> {
    let name = text(members, "client_name", MAX_NAME)?;
    match name.as_deref().map(str::trim) {
        None => Ok(UNNAMED.to_owned()),
        Some("") => Err(fault("client_name", "more than spaces")),
        Some(name) => Ok(name.to_owned()),
    }
}

fn check_uris(
    member: &'static str,
    uris: &[String],
    application: ApplicationType,
) -> Result<(), MetadataFault> {
    uris.iter().try_for_each(|uri| {
        redirect_uri::check(uri, application).map_err(|rule| MetadataFault {
            code: ErrorCode::InvalidRedirectUri,
            member,
            rule: rule.to_string().into(),
        })
    })
}

fn grants(
    members: &Members,
    method: ClientAuthMethod,
    limits: Limits,
) -> Result<Vec<GrantType>, MetadataFault> {
    let words = list(members, "grant_types", 16)?;
    let Some(words) = words.filter(|words| !words.is_empty()) else {
        return Ok(vec![GrantType::AuthorizationCode]);
    };
    let mut grants = Vec::with_capacity(words.len());
    for word in words {
        let grant = GrantType::parse(&word)
            .ok_or_else(|| fault("grant_types", "authorization_code, refresh_token, device_code and, from an administrator, client_credentials and token-exchange"))?;
        if limits == Limits::Open && !OPEN_GRANTS.contains(&grant) {
            return Err(fault(
                "grant_types",
                "client_credentials and token-exchange are not given to whoever registers",
            ));
        }
        // Who exchanges acts with tokens of other people: that is not a user's to give.
        if limits == Limits::Owner && grant == GrantType::TokenExchange {
            return Err(fault("grant_types", "token-exchange is an administrator's to give"));
        }
        let alone = matches!(grant, GrantType::ClientCredentials | GrantType::TokenExchange);
        if alone && method == ClientAuthMethod::None {
            return Err(fault(
                "grant_types",
                "client_credentials and token-exchange need a client that proves itself",
            ));
        }
        grants.push(grant);
    }
    Ok(grants)
}

fn response_types(members: &Members, asks_people: bool) -> Result<Vec<String>, MetadataFault> {
    let words = list(members, "response_types", 16)?.unwrap_or_default();
    if words.iter().any(|word| word != "code") {
        return Err(fault("response_types", "code alone"));
    }
    Ok(if asks_people { vec!["code".to_owned()] } else { Vec::new() })
}

/// Words of `scope`. One that means nothing here is kept for an administrator's client, and means nothing.
fn scopes(members: &Members, grants: &[GrantType], limits: Limits) -> Result<Vec<String>, MetadataFault> {
    let Some(text) = text(members, "scope", 4096)? else {
        let asks_people =
            grants.contains(&GrantType::AuthorizationCode) || grants.contains(&GrantType::DeviceCode);
        return Ok(if asks_people { OPEN_SCOPES.map(str::to_owned).to_vec() } else { Vec::new() });
    };
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let is_word = |word: &&str| {
        word.len() <= 128 && word.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    };
    if words.len() > MAX_SCOPES || !words.iter().all(is_word) {
        return Err(fault("scope", "at most 64 scope words with one space between"));
    }
    let own = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match limits {
        Limits::Full => Ok(own(&words)),
        Limits::Owner => {
            let is_reserved = |word: &&str| {
                word.parse::<Permission>().is_ok_and(|permission| {
                    matches!(permission, Permission::Admin | Permission::Service)
                        || permission.is_hook_scope()
                })
            };
            if words.iter().any(is_reserved) {
                return Err(fault("scope", "admin, service and hook scopes are an administrator's to give"));
            }
            Ok(own(&words))
        }
        Limits::Open => {
            let kept: Vec<&str> = words.into_iter().filter(|word| OPEN_SCOPES.contains(word)).collect();
            if kept.is_empty() {
                return Err(fault("scope", format!("at least one of {}", OPEN_SCOPES.join(" "))));
            }
            Ok(own(&kept))
        }
    }
}

fn contacts(members: &Members) -> Result<Vec<String>, MetadataFault> {
    let contacts = list(members, "contacts", MAX_CONTACTS)?.unwrap_or_default();
    let is_right =
        |contact: &String| (1..=MAX_CONTACT).contains(&contact.len()) && !contact.chars().any(is_unprintable);
    if contacts.iter().all(is_right) {
        Ok(contacts)
    } else {
        Err(fault("contacts", "each of 1 to 254 visible characters"))
    }
}

/// A link for people. One that is not https is left out rather than shown.
fn link(members: &Members, name: &'static str) -> Result<Option<String>, MetadataFault> {
    let Some(uri) = text(members, name, MAX_URI)? else { return Ok(None) };
    if !uri.is_ascii() || uri.contains(|c: char| c == ' ' || "\"'<>\\`".contains(c)) {
        return Err(fault(name, "an https URI"));
    }
    let url = Url::parse(&uri).map_err(|_| fault(name, "an https URI"))?;
    let is_link = url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
    Ok(is_link.then_some(uri))
}

fn keys(
    members: &Members,
    method: ClientAuthMethod,
) -> Result<(Option<String>, Option<String>), MetadataFault> {
    let jwks = match members.get("jwks") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let text = value.to_string();
            if text.len() > MAX_JWKS {
                return Err(fault("jwks", "at most 16 KiB"));
            }
            let keys = ClientKeys::parse(value).map_err(|error| fault("jwks", error.to_string()))?;
            if keys.is_empty() && method == ClientAuthMethod::PrivateKeyJwt {
                return Err(fault(
                    "jwks",
                    "a public key for RS256, PS256, ES256, ES384 or EdDSA that may verify",
                ));
            }
            Some(text)
        }
    };
    let jwks_uri = text(members, "jwks_uri", MAX_URI)?;
    if let Some(uri) = &jwks_uri {
        let url = Url::parse(uri).ok().filter(|url| url.scheme() == "https" && uri.starts_with("https://"));
        let is_right = url.is_some_and(|url| url.username().is_empty() && url.password().is_none());
        if !is_right {
            return Err(fault("jwks_uri", "an https URI"));
        }
    }
    match (&jwks, &jwks_uri) {
        (Some(_), Some(_)) => Err(fault("jwks_uri", "either jwks or jwks_uri")),
        (None, None) if method == ClientAuthMethod::PrivateKeyJwt => {
            Err(fault("jwks", "private_key_jwt needs jwks or jwks_uri"))
        }
        _ => Ok((jwks, jwks_uri)),
    }
}

fn algorithm(members: &Members) -> Result<SigningAlgorithm, MetadataFault> {
    let word = text(members, "id_token_signed_response_alg", 16)?;
    let Some(word) = word else { return Ok(SigningAlgorithm::Rs256) };
    SigningAlgorithm::parse(&word)
        .ok_or_else(|| fault("id_token_signed_response_alg", "RS256, ES256 or EdDSA"))
}

/// The metadata of a client in the words of RFC 7591, as registration answers with it.
pub fn document(client: &OAuthClient) -> Members {
    let mut members = Members::new();
    let mut put = |name: &str, value: Value| {
        let is_there = match &value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        if is_there {
            members.insert(name.to_owned(), value);
        }
    };
    let relations = &client.relations;
    let grants: Vec<&str> = relations.grant_types.iter().map(|grant| grant.as_str()).collect();
    put("client_name", client.name.as_str().into());
    put("redirect_uris", relations.redirect_uris.clone().into());
    put("post_logout_redirect_uris", relations.post_logout_redirect_uris.clone().into());
    put("grant_types", grants.into());
    put("response_types", relations.response_types.clone().into());
    put("scope", relations.scopes.join(" ").into());
    put("contacts", relations.contacts.clone().into());
    put("token_endpoint_auth_method", client.auth_method.as_str().into());
    put("application_type", client.application_type.as_str().into());
    put("id_token_signed_response_alg", client.id_token_signed_response_alg.as_str().into());
    let jwks = client.jwks.as_deref().and_then(|text| serde_json::from_str(text).ok());
    put("jwks", jwks.unwrap_or_default());
    for (name, value) in [
        ("jwks_uri", &client.jwks_uri),
        ("client_uri", &client.client_uri),
        ("logo_uri", &client.logo_uri),
        ("policy_uri", &client.policy_uri),
        ("tos_uri", &client.tos_uri),
        ("software_id", &client.software_id),
        ("software_version", &client.software_version),
    ] {
        put(name, value.clone().into());
    }
    members
}

#[cfg(test)]
#[path = "dynamic_registration/tests.rs"]
mod tests;
