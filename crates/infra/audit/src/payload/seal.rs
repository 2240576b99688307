//! From a payload to what is stored of it: values in use out, redacted if its class asks for it, cut to its bound, committed to
//! under a fresh salt, deflated. All of it on the caller's thread; the writer only binds the result.

use super::{
    Class, DEFLATE_ABOVE_BYTES, EXCERPT_BYTES, MAX_INLINE_BYTES, MAX_PAYLOADS, MAX_STORED_BYTES, Mode,
    Payload, PayloadPolicy, Role, SALT_BYTES, Tallied,
};
use crate::record::RecordError;
use aws_lc_rs::{hmac, rand};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use systemprompt_leak::Scanner;

/// `encoding` of a deflated body (RFC 1951, without a header).
pub(crate) const DEFLATE: &str = "deflate";

/// A payload as it is stored.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub role: Role,
    pub class: Class,
    pub commitment: String,
    pub excerpt: Option<String>,
    pub kept: Option<&'static str>,
    pub size: i64,
    pub media_type: &'static str,
    pub subject: Option<Box<str>>,
    pub salt: [u8; SALT_BYTES],
    pub encoding: Option<&'static str>,
    pub body: Option<Bytes>,
    /// Where the body lies, if it was written before.
    pub body_ref: Option<String>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("role", &self.role).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Sealed {
    /// Whether there is a row of it.
    pub(crate) fn has_row(&self) -> bool {
        self.kept != Some("none")
    }

    /// The body, if it is too large for the transaction of its record.
    pub(crate) fn take_large(&mut self) -> Option<Bytes> {
        self.body.take_if(|body| body.len() > MAX_INLINE_BYTES)
    }

    /// Leaves the commitment alone, if the body was to lie elsewhere.
    pub(crate) fn forget_large(&mut self) {
        if self.body_ref.take().is_some() {
            (self.encoding, self.excerpt, self.kept) = (None, None, Some("hash"));
        }
    }

    /// Bytes that go into the transaction of the record.
    pub(crate) fn inline_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// `HMAC-SHA-256(salt, body)` in lower-case hex.
pub(crate) fn commitment(salt: &[u8], body: &[u8]) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), body))
}

/// Seals the payloads of one record; returns how many values in use were taken out.
pub(crate) fn seal(
    payloads: Vec<Payload>,
    actor: Option<&str>,
    policy: &PayloadPolicy,
    leak: &Scanner,
) -> Result<(Vec<Sealed>, u64), RecordError> {
    if payloads.len() > MAX_PAYLOADS {
        return Err(RecordError::TooManyPayloads(payloads.len()));
    }
    let mut scrubbed = 0;
    let mut sealed: Vec<Sealed> = Vec::with_capacity(payloads.len());
    for payload in payloads {
        if sealed.iter().any(|known| known.role == payload.role) {
            return Err(RecordError::SameRole(payload.role.as_str()));
        }
        sealed.push(one(payload, actor, policy, leak, &mut scrubbed)?);
    }
    Ok((sealed, scrubbed))
}

fn one(
    payload: Payload,
    actor: Option<&str>,
    policy: &PayloadPolicy,
    leak: &Scanner,
    scrubbed: &mut u64,
) -> Result<Sealed, RecordError> {
    let Payload { role, body, media_type, subject, is_clean, tallied } = payload;
    let mode = policy.rules.mode(role.class());
    // Of what is not stored the caller's own bytes are committed to.
    let is_stored = tallied.is_none() && matches!(mode, Mode::Full | Mode::Redacted);
    let (body, is_scrubbed) = if is_stored { scrub(body, leak, scrubbed) } else { (body, false) };
    let (body, mode) = match mode {
        Mode::Full | Mode::Redacted if tallied.is_some() => (body, Mode::HashOnly),
        Mode::Redacted if is_clean && !is_scrubbed => (body, mode),
        Mode::Redacted => match redacted(&body, policy) {
            Some(Cow::Borrowed(_)) => (body, mode),
            Some(Cow::Owned(clean)) => (clean.into(), mode),
            None => (body, Mode::HashOnly),
        },
        _ => (body, mode),
    };
    let (salt, commitment_to_all, size) = if let Some(Tallied { salt, commitment, size }) = tallied {
        (salt, commitment, size as i64)
    } else {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| RecordError::Random)?;
        (salt, commitment(&salt, &body), body.len() as i64)
    };
    let mut sealed = Sealed {
        role,
        class: role.class(),
        commitment: commitment_to_all,
        excerpt: None,
        kept: None,
        size,
        media_type,
        subject: subject.or_else(|| actor.map(Into::into)),
        salt,
        encoding: None,
        body: None,
        body_ref: None,
    };
    match mode {
        Mode::Full | Mode::Redacted => {
            let stored = if body.len() > MAX_STORED_BYTES { excerpt(&body) } else { body };
            if stored.len() as i64 != sealed.size {
                sealed.excerpt = Some(commitment(&sealed.salt, &stored));
            }
            (sealed.encoding, sealed.body) = match deflated(&stored) {
                Some(small) => (Some(DEFLATE), Some(small.into())),
                None => (None, Some(stored)),
            };
        }
        Mode::HashOnly => sealed.kept = Some("hash"),
        Mode::Off => sealed.kept = Some("none"),
    }
    Ok(sealed)
}

/// The body without values in use (AUD-8), and whether it is another for that.
fn scrub(body: Bytes, leak: &Scanner, scrubbed: &mut u64) -> (Bytes, bool) {
    if leak.is_empty() || leak.scan(&body).is_empty() {
        return (body, false);
    }
    let text = String::from_utf8_lossy(&body);
    let Some((clean, hits)) = leak.redact_text(&text) else {
        *scrubbed += 1;
        return (Bytes::new(), true);
    };
    *scrubbed += hits.len() as u64;
    // What is left over after one pass, as a value across two marks, does not go to disk.
    if leak.scan(clean.as_bytes()).is_empty() { (clean.into(), true) } else { (Bytes::new(), true) }
}

fn redacted<'b>(body: &'b [u8], policy: &PayloadPolicy) -> Option<Cow<'b, [u8]>> {
    policy.redactor.as_ref()?.redact(body)
}

/// The first and the last bytes, one behind the other.
fn excerpt(body: &[u8]) -> Bytes {
    let mut both = Vec::with_capacity(2 * EXCERPT_BYTES);
    both.extend_from_slice(body.get(..EXCERPT_BYTES).unwrap_or(body));
    both.extend_from_slice(body.get(body.len().saturating_sub(EXCERPT_BYTES)..).unwrap_or_default());
    both.into()
}

/// The body deflated, where that makes it smaller.
fn deflated(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() <= DEFLATE_ABOVE_BYTES {
        return None;
    }
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().filter(|small| small.len() < body.len())
}

/// The member `payloads` of a record in canonical form, with the comma behind it; nothing without payloads.
pub(crate) fn member(out: &mut String, sealed: &[Sealed]) {
    if sealed.is_empty() {
        return;
    }
    out.push_str("\"payloads\":[");
    for (i, one) in sealed.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{{\"commitment\":\"{}\",", one.commitment);
        if let Some(excerpt) = &one.excerpt {
            let _ = write!(out, "\"excerpt\":\"{excerpt}\",");
        }
        if let Some(kept) = one.kept {
            let _ = write!(out, "\"kept\":\"{kept}\",");
        }
        let _ = write!(out, "\"role\":\"{}\",\"size\":{}}}", one.role.as_str(), one.size);
    }
    out.push_str("],");
}
