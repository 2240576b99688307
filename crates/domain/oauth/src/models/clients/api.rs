//! What whoever manages a client sends and is answered (ID-16): the members that there are, and the forms of those that registration
//! does not know.

use super::OAuthClient;
use crate::constants;
use crate::error::ErrorCode;
use crate::models::oauth::dynamic_registration::{MetadataFault, document};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use systemprompt_models::{JwtAudience, Secret};

const MAX_AUDIENCES: usize = 32;

/// Members that say what a client may, beside those of registration.
const OWN_MEMBERS: [&str; 6] =
    ["client_id", "owner_user_id", "plugin_id", "allowed_audiences", "status", "first_party"];
const METADATA_MEMBERS: [&str; 18] = [
    "client_name",
    "redirect_uris",
    "post_logout_redirect_uris",
    "grant_types",
    "response_types",
    "scope",
    "contacts",
    "token_endpoint_auth_method",
    "application_type",
    "id_token_signed_response_alg",
    "jwks",
    "jwks_uri",
    "client_uri",
    "logo_uri",
    "policy_uri",
    "tos_uri",
    "software_id",
    "software_version",
];
/// Members of an answer that a caller may send back and that mean nothing.
const READ_ONLY: [&str; 5] = ["kind", "user_id", "created_at", "updated_at", "last_used_at"];

/// A client as it was made, with the secrets that are shown once.
pub struct Created {
    pub client: OAuthClient,
    pub secret: Option<Secret<String>>,
    pub registration_token: Option<Secret<String>>,
}

/// A client as records and answers have it: never with a secret, and its keys are public ones.
pub fn shown(client: &OAuthClient) -> Map<String, Value> {
    let mut members = document(client);
    let audiences: Vec<&str> = client.allowed_audiences.iter().map(JwtAudience::as_str).collect();
    for (name, value) in [
        ("client_id", json!(client.client_id)),
        ("kind", client.kind.as_str().into()),
        ("status", client.status.as_str().into()),
        ("first_party", client.first_party.into()),
        ("user_id", json!(client.user_id)),
        ("owner_user_id", json!(client.owner_user_id)),
        ("plugin_id", client.plugin_id.clone().into()),
        ("allowed_audiences", json!(audiences)),
        ("created_at", client.created_at.into()),
        ("updated_at", client.updated_at.into()),
        ("last_used_at", client.last_used_at.into()),
    ] {
        members.insert(name.to_owned(), value);
    }
    members
}

pub(crate) fn fault(member: &'static str, rule: impl Into<Cow<'static, str>>) -> MetadataFault {
    MetadataFault { code: ErrorCode::InvalidClientMetadata, member, rule: rule.into() }
}

/// An id that an administrator may choose: none of a family that means something, and no colon, which splits Basic credentials.
pub(crate) fn is_client_id(id: &str) -> bool {
    let families = ["sp_", "client_", "sys_", "bridge_", "http"];
    (3..=128).contains(&id.len())
        && id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
        && !families.iter().any(|family| id.starts_with(family))
        && ![constants::SP_WEB, constants::SP_CLI].contains(&id)
}

/// Unknown members are refused here, where a misspelt one would mean a client that may more or less than was meant.
pub(crate) fn check_members(is_admin: bool, members: &Map<String, Value>) -> Result<(), MetadataFault> {
    let known = |name: &str| {
        OWN_MEMBERS.contains(&name) || METADATA_MEMBERS.contains(&name) || READ_ONLY.contains(&name)
    };
    if !members.keys().all(|name| known(name)) {
        let names = METADATA_MEMBERS.into_iter().chain(OWN_MEMBERS).collect::<Vec<_>>().join(", ");
        return Err(fault("body", format!("unknown member; allowed: {names}")));
    }
    if is_admin {
        return Ok(());
    }
    let reserved = ["owner_user_id", "plugin_id", "allowed_audiences", "status", "first_party", "client_id"];
    let is_set = |name: &&&str| members.get(**name).is_some_and(|value| !value.is_null());
    match reserved.iter().find(is_set) {
        Some(name) => Err(fault(name, "only an administrator sets it")),
        None => Ok(()),
    }
}

/// The audiences that a client is held to, each once; nothing for what is no list of surfaces and absolute URIs.
pub(crate) fn audiences(value: &Value) -> Option<Vec<JwtAudience>> {
    let items = value.as_array().filter(|items| items.len() <= MAX_AUDIENCES)?;
    let mut audiences: Vec<JwtAudience> = Vec::with_capacity(items.len());
    for item in items {
        let text = item.as_str().filter(|text| !text.contains(char::is_whitespace) && text.len() <= 2048)?;
        let audience = JwtAudience::from(text);
        if matches!(audience, JwtAudience::Resource(_)) {
            let url = url::Url::parse(text).ok()?;
            if url.fragment().is_some() {
                return None;
            }
        }
        if !audiences.contains(&audience) {
            audiences.push(audience);
        }
    }
    Some(audiences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_11_an_administrator_chooses_ids_of_no_family() {
        for id in ["acme-ci", "abc", "A.b_c~d-e", "123"] {
            assert!(is_client_id(id), "{id}");
        }
        let long = "x".repeat(129);
        for id in [
            "",
            "ab",
            "-abc",
            "a:b",
            "a b",
            "sp_web",
            "sp_x",
            "client_x",
            "sys_x",
            "bridge_x",
            "https://a.example/x",
            "httpx",
            "\u{e4}bc",
            long.as_str(),
        ] {
            assert!(!is_client_id(id), "{id}");
        }
    }
}
