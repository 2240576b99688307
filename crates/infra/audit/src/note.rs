//! Signed notes (C2SP signed-note) and the checkpoints that they carry (C2SP tlog-checkpoint, AUD-41): origin, size and root
//! of a tree, signed with Ed25519.
//!
//! ```text
//! example.com/ledger/node-1a2b3c4d
//! 1742
//! pq68/if0txCs8U+ipeV4Jk2w+pta9Q66FZFZjzKOBuc=
//!
//! — example.com/ledger/node-1a2b3c4d 9FCt…
//! ```

use crate::tree::Hash;
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::fmt;
use std::str::FromStr;

/// Largest note that is read.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// Most signatures of a note.
const MAX_SIGNATURES: usize = 100;
/// The algorithm byte of Ed25519.
const ED25519_TYPE: u8 = 1;

/// What is wrong with a note, a checkpoint or a verifier key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("this is no signed note: a text, an empty line, and lines that begin with an em dash")]
    NotANote,
    #[error("the note is no checkpoint: origin, size and base64 root, one a line")]
    NotACheckpoint,
    #[error("this is no verifier key of the form <name>+<8 hex digits>+<base64>")]
    NotAKey,
    #[error("the verifier key's number is not that of its name and key")]
    KeyId,
    #[error("no signature of a trusted key")]
    Unsigned,
    #[error("the signature does not verify")]
    BadSignature,
}

/// A public key with its name, as `<name>+<8 hex digits>+<base64>` (a vkey).
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    pub(crate) fn new(name: &str, public: [u8; 32]) -> Self {
        Self { name: name.to_owned(), public }
    }

    /// The name, which is the origin of the checkpoints that the key signs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The raw public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Whether this is the public key, in base64 of either alphabet.
    pub fn is_public(&self, base64: &str) -> bool {
        let decoded = STANDARD.decode(base64).or_else(|_| URL_SAFE_NO_PAD.decode(base64));
        decoded.is_ok_and(|key| key == self.public)
    }

    /// First 4 bytes of SHA-256(name, line feed, 0x01, public key).
    fn number(&self) -> [u8; 4] {
        let mut context = Context::new(&SHA256);
        for part in [self.name.as_bytes(), b"\n", &[ED25519_TYPE], &self.public] {
            context.update(part);
        }
        context.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// `<name>+<8 hex digits>`, the beginning of the vkey.
    pub fn id(&self) -> String {
        format!("{}+{}", self.name, hex::encode(self.number()))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<u8> = [&[ED25519_TYPE], self.public.as_slice()].concat();
        write!(f, "{}+{}", self.id(), STANDARD.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(number), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::NotAKey);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::NotAKey)?;
        let Some((&ED25519_TYPE, public)) = key.split_first() else { return Err(NoteError::NotAKey) };
        let public = public.try_into().map_err(|_| NoteError::NotAKey)?;
        if !is_name(name) {
            return Err(NoteError::NotAKey);
        }
        let key = Self { name: name.to_owned(), public };
        if hex::encode(key.number()) == number { Ok(key) } else { Err(NoteError::KeyId) }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

/// A private key that signs checkpoints, and nothing else.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    pub(crate) fn new(pair: Ed25519KeyPair) -> Self {
        Self(pair)
    }

    /// The raw public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// The verifier key for checkpoints of `origin`.
    pub fn vkey(&self, origin: &str) -> VerifierKey {
        VerifierKey { name: origin.to_owned(), public: self.public() }
    }

    /// The signed note of a checkpoint.
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        let text = checkpoint.to_string();
        signed_note(&text, &self.vkey(&checkpoint.origin), self.0.sign(text.as_bytes()).as_ref())
    }
}

/// A text with its signature.
pub(crate) fn signed_note(text: &str, key: &VerifierKey, signature: &[u8]) -> String {
    let signature: Vec<u8> = [&key.number(), signature].concat();
    format!("{text}\n\u{2014} {} {}\n", key.name, STANDARD.encode(signature))
}

/// A tree at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }
}

/// A signed note in its parts. Nothing of it is trusted before [`Note::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    /// Key name, key number and signature.
    signatures: Vec<(String, [u8; 4], Vec<u8>)>,
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        let bad = || NoteError::NotANote;
        let is_text = |c: char| c == '\n' || !c.is_control();
        if note.len() > MAX_NOTE_BYTES || !note.ends_with('\n') || !note.chars().all(is_text) {
            return Err(bad());
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or_else(bad)?;
        let signatures: Vec<_> =
            lines.lines().map(|line| signature(line).ok_or_else(bad)).collect::<Result<_, _>>()?;
        if signatures.is_empty() || signatures.len() > MAX_SIGNATURES {
            return Err(bad());
        }
        Ok(Self { text: format!("{text}\n"), signatures })
    }
}

fn signature(line: &str) -> Option<(String, [u8; 4], Vec<u8>)> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(signature).ok()?;
    let (number, signature) = bytes.split_first_chunk::<4>()?;
    (is_name(name) && !signature.is_empty()).then(|| (name.to_owned(), *number, signature.to_vec()))
}

impl Note {
    /// The signed text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the note says; believe it after [`Note::verify`].
    ///
    /// # Errors
    /// A note that is no checkpoint.
    pub fn unverified_checkpoint(&self) -> Result<Checkpoint, NoteError> {
        let bad = || NoteError::NotACheckpoint;
        let mut lines = self.text.lines();
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(bad());
        };
        let number: u64 = size.parse().map_err(|_| bad())?;
        if origin.is_empty() || number.to_string() != size {
            return Err(bad());
        }
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok()).ok_or_else(bad)?;
        Ok(Checkpoint { origin: origin.to_owned(), size: number, root })
    }

    /// Whether one of `keys` signed the note; signatures of others do not matter.
    ///
    /// # Errors
    /// None of the keys signed it, or a signature in the name of one of them is wrong.
    pub fn verify<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k VerifierKey>,
    ) -> Result<&'k VerifierKey, NoteError> {
        for key in keys {
            let number = key.number();
            let own = self.signatures.iter().find(|(name, of, _)| *name == key.name && *of == number);
            if let Some((_, _, signature)) = own {
                return UnparsedPublicKey::new(&ED25519, key.public)
                    .verify(self.text.as_bytes(), signature)
                    .map(|()| key)
                    .map_err(|_| NoteError::BadSignature);
            }
        }
        Err(NoteError::Unsigned)
    }
}

/// Splits a file of notes, as a file witness writes them: one behind the other, with or without an empty line between.
///
/// # Errors
/// A part that is no note.
pub fn split(text: &str) -> Result<Vec<Note>, NoteError> {
    let mut notes = Vec::new();
    let mut note = String::new();
    let mut signed = false;
    for line in text.lines() {
        let is_signature = line.starts_with("\u{2014} ");
        if signed && !is_signature {
            notes.push(note.parse()?);
            (note, signed) = (String::new(), false);
        }
        if !(note.is_empty() && line.is_empty()) {
            note.push_str(line);
            note.push('\n');
        }
        signed |= is_signature;
    }
    if !note.is_empty() {
        notes.push(note.parse()?);
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
         then you don't know what your problem is.\n\
         \n\
         \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn key() -> SigningKey {
        SigningKey::new(Ed25519KeyPair::generate().unwrap())
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "example.com/ledger/n-1".into(), size: 17, root: [7; 32] }
    }

    #[test]
    fn the_note_of_gos_package_verifies_and_with_one_byte_changed_does_not() {
        let key: VerifierKey = GO_KEY.parse().unwrap();
        assert_eq!(key.to_string(), GO_KEY);
        let note: Note = GO_NOTE.parse().unwrap();
        assert_eq!(note.verify([&key]), Ok(&key));
        let changed: Note = GO_NOTE.replace("answer", "Answer").parse().unwrap();
        assert_eq!(changed.verify([&key]), Err(NoteError::BadSignature));
        let changed: Note = GO_NOTE.replace("x08go/ZJ", "x08go/ZK").parse().unwrap();
        assert_eq!(changed.verify([&key]), Err(NoteError::BadSignature));
        assert_eq!(GO_KEY.replace("c74f20a3", "c74f20a4").parse::<VerifierKey>(), Err(NoteError::KeyId));
        assert_eq!(note.unverified_checkpoint(), Err(NoteError::NotACheckpoint));
    }

    #[test]
    fn a_checkpoint_survives_signing_and_only_its_own_key_verifies_it() {
        let (signer, other) = (key(), key());
        let note = signer.sign(&checkpoint());
        let parsed: Note = note.parse().unwrap();
        assert_eq!(parsed.unverified_checkpoint().unwrap(), checkpoint());
        let (vkey, stranger) = (signer.vkey(&checkpoint().origin), other.vkey(&checkpoint().origin));
        assert_eq!(parsed.verify([&stranger, &vkey]), Ok(&vkey));
        assert_eq!(parsed.verify([&stranger]), Err(NoteError::Unsigned));
        assert_eq!(vkey.to_string().parse(), Ok(vkey));
    }

    #[test]
    fn what_is_no_note_or_no_checkpoint_is_refused() {
        let note = key().sign(&checkpoint());
        for bad in [
            "",
            "a\n",
            "a\n\nb\n",
            &note.replace("\n\n", "\n"),
            note.trim_end(),
            &note.replace('\u{2014}', "-"),
        ] {
            assert_eq!(bad.parse::<Note>(), Err(NoteError::NotANote), "{bad:?}");
        }
        for (from, to) in
            [("\n17\n", "\n017\n"), ("\n17\n", "\n-1\n"), ("\n17\n", "\n17\n18\n"), ("BwcH", "Bwc")]
        {
            let note: Note = note.replacen(from, to, 1).parse().unwrap();
            assert_eq!(note.unverified_checkpoint(), Err(NoteError::NotACheckpoint), "{to:?}");
        }
        for bad in ["", "a+b", "a b+00000000+AQ==", "a+00000000+AQ=="] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_of_notes_is_split_into_its_notes() {
        let key = key();
        let notes: Vec<String> =
            [1, 2, 3].map(|size| key.sign(&Checkpoint { size, ..checkpoint() })).to_vec();
        for between in ["", "\n", "\n\n"] {
            let sizes: Vec<u64> = split(&notes.join(between))
                .unwrap()
                .iter()
                .map(|note| note.unverified_checkpoint().unwrap().size)
                .collect();
            assert_eq!(sizes, [1, 2, 3]);
        }
        assert_eq!(split("").unwrap(), []);
        assert!(split("half a note\n").is_err());
    }
}
