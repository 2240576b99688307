//! Passkeys as they are stored and shown.

use crate::error::{OauthError, OauthResult};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use systemprompt_models::Millis;
use webauthn_rs_core::proto::{Credential, RegisterPublicKeyCredential};

/// Longest name of a passkey, in characters.
pub const MAX_NAME: usize = 64;

/// A stored passkey.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PasskeyRow {
    /// base64url.
    pub credential_id: String,
    pub user_id: String,
    /// The library's record, JSON.
    pub passkey: String,
    pub counter: i64,
    pub backup_eligible: i64,
    pub backup_state: i64,
    pub aaguid: Option<String>,
    /// Space-separated.
    pub transports: String,
    pub name: String,
    /// `active` or `suspect`.
    pub status: String,
    pub created_at: Millis,
    pub last_used_at: Option<Millis>,
}

/// A passkey as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passkey {
    pub id: String,
    pub name: String,
    pub created_at: Millis,
    pub last_used_at: Option<Millis>,
    /// Model of the authenticator, if it says so.
    pub aaguid: Option<String>,
    pub transports: Vec<String>,
    pub backup_eligible: bool,
    pub backup_state: bool,
    /// `suspect`: its counter stood still, so that a copy may exist; it signs nobody in.
    pub status: String,
}

impl From<PasskeyRow> for Passkey {
    fn from(row: PasskeyRow) -> Self {
        Self {
            id: row.credential_id,
            name: row.name,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            aaguid: row.aaguid,
            transports: row.transports.split_ascii_whitespace().map(str::to_owned).collect(),
            backup_eligible: row.backup_eligible != 0,
            backup_state: row.backup_state != 0,
            status: row.status,
        }
    }
}

impl PasskeyRow {
    /// A passkey that was registered just now.
    pub(crate) fn new(
        user_id: &str,
        credential: &Credential,
        answer: &RegisterPublicKeyCredential,
        name: &str,
        now: Millis,
    ) -> OauthResult<Self> {
        let transports = credential.transports.as_deref().unwrap_or_default();
        let transports: Vec<String> = transports
            .iter()
            .filter_map(|transport| serde_json::to_value(transport).ok()?.as_str().map(str::to_owned))
            .collect();
        Ok(Self {
            credential_id: URL_SAFE_NO_PAD.encode(&credential.cred_id),
            user_id: user_id.to_owned(),
            passkey: text(credential)?,
            counter: i64::from(credential.counter),
            backup_eligible: i64::from(credential.backup_eligible),
            backup_state: i64::from(credential.backup_state),
            aaguid: aaguid(&answer.response.attestation_object),
            transports: transports.join(" "),
            name: name.to_owned(),
            status: "active".to_owned(),
            created_at: now,
            last_used_at: None,
        })
    }

    /// The library's record with its counter at zero: what the counter means is decided where it is stored.
    pub(crate) fn credential(&self) -> OauthResult<Credential> {
        let mut credential: Credential = serde_json::from_str(&self.passkey)
            .map_err(|_| OauthError::Impossible("a passkey that cannot be read".into()))?;
        credential.counter = 0;
        Ok(credential)
    }
}

/// A record of the library as it is stored.
pub(crate) fn text(credential: &Credential) -> OauthResult<String> {
    serde_json::to_string(credential)
        .map_err(|_| OauthError::Impossible("a passkey that cannot be written".into()))
}

/// The model of an authenticator: 16 bytes behind the 37 fixed ones of the authenticator data (Web Authentication section 6.1),
/// which is the last member of an attestation object. All zero says nothing.
fn aaguid(attestation: &[u8]) -> Option<String> {
    const MEMBER: &[u8] = b"\x68authData";
    let at = attestation.windows(MEMBER.len()).rposition(|part| part == MEMBER)? + MEMBER.len();
    let data = match attestation.get(at)? {
        0x58 => attestation.get(at + 2..)?,
        0x59 => attestation.get(at + 3..)?,
        _ => return None,
    };
    let id = data.get(37..53).filter(|id| id.iter().any(|byte| *byte != 0))?;
    let parts: Option<Vec<String>> =
        [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().map(|part| id.get(part).map(hex::encode)).collect();
    Some(parts?.join("-"))
}

#[cfg(test)]
mod tests {
    use super::aaguid;

    #[test]
    fn the_model_is_read_where_it_stands() {
        let mut object = b"\xa3\x63fmt\x64none\x68authData\x58\x40".to_vec();
        object.extend([7; 37]);
        object.extend(1..=16);
        assert_eq!(aaguid(&object).as_deref(), Some("01020304-0506-0708-090a-0b0c0d0e0f10"));
        assert_eq!(aaguid(b"\xa0"), None);
    }
}
