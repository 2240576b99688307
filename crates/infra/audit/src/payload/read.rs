//! Reading a payload back: its row, its body inflated, and whether the body is the one that the record committed to.

use super::seal::{DEFLATE, commitment};
use super::{MAX_STORED_BYTES, Named, PayloadRow, Role};
use crate::repository::entries::{LedgerReader, LedgerRow};
use crate::repository::payloads;
use flate2::read::DeflateDecoder;
use std::io::Read as _;

/// A payload of a record as it is found.
#[derive(Clone, Debug)]
pub struct Found {
    pub named: Named,
    pub row: Option<PayloadRow>,
    pub state: State,
}

/// What is left of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The body is there.
    Stored,
    /// Its first and last bytes are there.
    Excerpt,
    /// The salt is there, by its class's mode.
    HashOnly,
    /// Nothing was stored, by its class's mode.
    NotKept,
    Erased,
    /// Its time is over, or it is gone; verification tells which.
    Gone,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Excerpt => "excerpt",
            Self::HashOnly => "hash_only",
            Self::NotKept => "not_kept",
            Self::Erased => "erased",
            Self::Gone => "gone",
        }
    }
}

/// A body that was read, and checked against its record.
#[derive(Clone, Debug)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub media_type: String,
    /// Bytes of the whole; `bytes` are its two ends if there are fewer of them.
    pub size: i64,
}

/// Why a payload cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("the record has no payload `{0}`")]
    NoSuch(String),
    #[error("the body of `{role}` is not stored: {}", state.as_str())]
    NotStored { role: String, state: State },
    #[error("the body of `{0}` is not the one that the record names")]
    Altered(String),
    #[error("the payload cannot be read")]
    Read(#[from] sqlx::Error),
}

impl LedgerReader {
    /// The payloads that a record names, with what is left of each.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn payloads(&self, entry: &LedgerRow) -> sqlx::Result<Vec<Found>> {
        let record = entry.record.as_deref().unwrap_or_default();
        let record = serde_json::from_str(record).unwrap_or_default();
        let mut found = Vec::new();
        for named in Named::of(&record) {
            let row = match Role::parse(&named.role) {
                Some(role) => payloads::row(self.db(), role, &entry.stream, entry.seq).await?,
                None => None,
            };
            let state = state(&named, row.as_ref());
            found.push(Found { named, row, state });
        }
        Ok(found)
    }

    /// The body of one payload. It is shown only when it is the one that the record committed to.
    ///
    /// # Errors
    /// No such payload, none stored, or one that was altered.
    pub async fn payload(&self, entry: &LedgerRow, role: &str) -> Result<Body, PayloadError> {
        let found = self.payloads(entry).await?;
        let found = found.into_iter().find(|found| found.named.role == role);
        self.open(found.ok_or_else(|| PayloadError::NoSuch(role.into()))?).await
    }

    /// The body of the payload that a record at this place names, for who reads the record himself.
    ///
    /// # Errors
    /// As [`Self::payload`].
    pub async fn named_payload(&self, stream: &str, seq: i64, named: Named) -> Result<Body, PayloadError> {
        let row = match Role::parse(&named.role) {
            Some(role) => payloads::row(self.db(), role, stream, seq).await?,
            None => None,
        };
        let state = state(&named, row.as_ref());
        self.open(Found { named, row, state }).await
    }

    async fn open(&self, found: Found) -> Result<Body, PayloadError> {
        let Found { named, row, state } = found;
        let role = named.role.as_str();
        let not_stored = || PayloadError::NotStored { role: role.into(), state };
        if !matches!(state, State::Stored | State::Excerpt) {
            return Err(not_stored());
        }
        let row = row.ok_or_else(not_stored)?;
        let (salt, stored) = payloads::body(self.db(), &row).await?;
        let bytes = check(&named, row.encoding.as_deref(), salt.as_deref(), stored.as_deref());
        let bytes = bytes.ok_or_else(|| PayloadError::Altered(role.into()))?;
        Ok(Body { bytes, media_type: row.media_type, size: named.size })
    }
}

fn state(named: &Named, row: Option<&PayloadRow>) -> State {
    match (named.kept.as_deref(), row) {
        (Some("none"), _) => State::NotKept,
        (_, None) => State::Gone,
        (_, Some(row)) if row.erased_at.is_some() => State::Erased,
        (Some(_), Some(_)) => State::HashOnly,
        (None, Some(_)) if named.excerpt.is_some() => State::Excerpt,
        (None, Some(_)) => State::Stored,
    }
}

/// The body, if it is what the record committed to.
pub(crate) fn check(
    named: &Named,
    encoding: Option<&str>,
    salt: Option<&[u8]>,
    stored: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let (salt, stored) = salt.zip(stored)?;
    let body = match encoding {
        None => stored.to_vec(),
        Some(DEFLATE) => inflated(stored)?,
        Some(_) => return None,
    };
    let expected = named.excerpt.as_ref().unwrap_or(&named.commitment);
    let is_whole = named.excerpt.is_some() || body.len() as i64 == named.size;
    (is_whole && commitment(salt, &body) == *expected).then_some(body)
}

/// Never more than a stored body can have.
fn inflated(stored: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let most = MAX_STORED_BYTES as u64 + 1;
    DeflateDecoder::new(stored).take(most).read_to_end(&mut body).ok()?;
    (body.len() <= MAX_STORED_BYTES).then_some(body)
}
