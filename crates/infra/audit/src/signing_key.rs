//! The checkpoint key (AUD-43): Ed25519 in PKCS#8 in a file of mode 0600, or a command that signs; outside the database, used for
//! nothing else. A rotation puts the next key beside the file (`.next`) until the old one has signed the record that names it.

mod command;

pub use command::{CommandError, CommandSigner};

use crate::note::{Checkpoint, SigningKey, VerifierKey, signed_note};
use crate::repository::{checkpoints, streams};
use aws_lc_rs::signature::Ed25519KeyPair;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use systemprompt_database::Db;

/// Largest key file; a PKCS#8 document of Ed25519 has 48 or 83 bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Why there is no checkpoint key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error(
        "the checkpoint key {0} is missing, but this ledger was signed with one; put it back from a copy, or \
         `systemprompt audit repair --accept REASON` begins a new stream with a new key"
    )]
    Missing(PathBuf),
    #[error("{0} can be read by others; run `chmod 600` on it")]
    FileMode(PathBuf),
    #[error("{0} is no Ed25519 key in PKCS#8 (DER)")]
    Content(PathBuf),
    #[error("{path} cannot be read or written")]
    File { path: PathBuf, source: std::io::Error },
    #[error("a key could not be generated")]
    Generate,
    #[error(
        "the checkpoint key {0} is also the {1}; each key has one use, name another file in audit.signing_key_path"
    )]
    Shared(PathBuf, &'static str),
    #[error(
        "the checkpoint key {path} is not the one that signed this ledger ({expected}); put that one back"
    )]
    Other { path: PathBuf, expected: String },
    #[error(
        "the signing command's key is not the one that signed this ledger ({0}); name the one that did, or \
         `systemprompt audit repair --accept REASON` begins a new stream"
    )]
    OtherCommand(String),
    #[error("the checkpoints are signed by {0}, which cannot be rotated from here")]
    NoFile(&'static str),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("the ledger's keys cannot be read")]
    Read(#[from] sqlx::Error),
}

/// The key of the file; `None` if there is no file.
///
/// # Errors
/// A file that others can read, or that holds no key.
pub fn load(path: &Path) -> Result<Option<SigningKey>, SigningKeyError> {
    let io = |source| SigningKeyError::File { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let meta = file.metadata().map_err(io)?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(SigningKeyError::FileMode(path.to_owned()));
    }
    let content = || SigningKeyError::Content(path.to_owned());
    if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
        return Err(content());
    }
    let mut der = zeroize::Zeroizing::new(Vec::with_capacity(meta.len() as usize + 1));
    file.read_to_end(&mut der).map_err(io)?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| content())?;
    Ok(Some(SigningKey::new(pair)))
}

/// What signs checkpoints.
#[derive(Debug)]
pub enum Signer {
    File(SigningKey),
    Command(CommandSigner),
}

impl Signer {
    /// The raw public key.
    pub fn public(&self) -> [u8; 32] {
        match self {
            Self::File(key) => key.public(),
            Self::Command(command) => command.public(),
        }
    }

    /// The verifier key for checkpoints of `origin`.
    pub fn vkey(&self, origin: &str) -> VerifierKey {
        VerifierKey::new(origin, self.public())
    }

    /// The signed note of a checkpoint.
    ///
    /// # Errors
    /// A command that does not sign.
    pub async fn sign(&self, checkpoint: &Checkpoint) -> Result<String, CommandError> {
        match self {
            Self::File(key) => Ok(key.sign(checkpoint)),
            Self::Command(command) => {
                let (text, key) = (checkpoint.to_string(), self.vkey(&checkpoint.origin));
                let signature = command.sign(&text, &key).await?;
                Ok(signed_note(&text, &key, &signature))
            }
        }
    }
}

impl From<SigningKey> for Signer {
    fn from(key: SigningKey) -> Self {
        Self::File(key)
    }
}

/// The keys of a node: what signs, and the file where it lies.
#[derive(Debug)]
pub struct Signers {
    pub current: Signer,
    /// A rotation whose record is written: it signs after the next checkpoint.
    pub next: Option<SigningKey>,
    /// Where a file's key lies; a command has none.
    pub path: Option<PathBuf>,
}

impl Signers {
    /// A key that lies in no file, for tests.
    pub fn of(key: SigningKey) -> Self {
        Self { current: key.into(), next: None, path: None }
    }
}

/// The key of the file, which is made for a ledger that no key has signed yet.
///
/// # Errors
/// As [`load`] and [`make`]; a missing file or another key where the node's stream was signed before.
pub async fn open_or_make(db: &Db, node_id: &str, path: &Path) -> Result<Signers, SigningKeyError> {
    let key = load(path)?;
    let used = used_keys(db, node_id).await?;
    let mut signers = match (key, used.as_slice()) {
        (None, []) => Signers::of(make(path)?),
        (None, [..]) => return Err(SigningKeyError::Missing(path.to_owned())),
        (Some(key), []) => Signers::of(key),
        (Some(key), [.., last]) if *last.public() == key.public() => Signers::of(key),
        (Some(key), [.., before, last]) if *before.public() == key.public() => {
            // A rotation that was recorded and not carried out.
            let next = load(&next_path(path))?.filter(|next| next.public() == *last.public());
            let other = || SigningKeyError::Other { path: path.to_owned(), expected: last.id() };
            Signers { next: Some(next.ok_or_else(other)?), ..Signers::of(key) }
        }
        (Some(_), [.., last]) => {
            return Err(SigningKeyError::Other { path: path.to_owned(), expected: last.id() });
        }
    };
    signers.path = Some(path.to_owned());
    Ok(signers)
}

/// The command that signs.
///
/// # Errors
/// A command that cannot be run, or another key than signed the node's stream before.
pub async fn open_command(
    db: &Db,
    node_id: &str,
    words: &[String],
    path: &str,
) -> Result<Signers, SigningKeyError> {
    let command = CommandSigner::open(words, path).await?;
    match used_keys(db, node_id).await?.last() {
        Some(last) if *last.public() != command.public() => Err(SigningKeyError::OtherCommand(last.id())),
        _ => Ok(Signers { current: Signer::Command(command), next: None, path: None }),
    }
}

/// Whether `signer` can go on with the node's open stream.
pub(crate) async fn goes_on(db: &Db, node_id: &str, signer: Option<&Signer>) -> sqlx::Result<bool> {
    let used = used_keys(db, node_id).await?;
    Ok(used.last().is_none_or(|last| signer.is_some_and(|signer| signer.public() == *last.public())))
}

/// Keys that signed the node's open stream, the oldest first.
async fn used_keys(db: &Db, node_id: &str) -> sqlx::Result<Vec<VerifierKey>> {
    let streams = streams::list(db).await?;
    let own = streams.iter().rev().find(|stream| stream.node_id == node_id && stream.closed_at.is_none());
    let Some(stream) = own else { return Ok(Vec::new()) };
    let rows = checkpoints::keys(db).await?;
    let keys = rows.iter().filter_map(|row| row.vkey.parse().ok());
    Ok(keys.filter(|key: &VerifierKey| key.name() == stream.origin).collect())
}

/// Where the next key waits.
pub(crate) fn next_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

/// Puts the next key in the place of the one that signed until now.
pub(crate) fn promote(path: &Path) -> Result<(), SigningKeyError> {
    let io = |source| SigningKeyError::File { path: path.to_owned(), source };
    fs::rename(next_path(path), path).map_err(io)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

/// Makes a key and its file.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn make(path: &Path) -> Result<SigningKey, SigningKeyError> {
    let io = |source| SigningKeyError::File { path: path.to_owned(), source };
    let pair = Ed25519KeyPair::generate().map_err(|_| SigningKeyError::Generate)?;
    let der = pair.to_pkcs8v1().map_err(|_| SigningKeyError::Generate)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(io)?;
    file.write_all(der.as_ref()).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&temporary, path).map_err(io)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(SigningKey::new(pair))
}
