//! The file of the checkpoint key (AUD-43): Ed25519 in PKCS#8, mode 0600, outside the database, used for nothing else.

use crate::note::{SigningKey, VerifierKey};
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

/// The key of the file, which is made for a ledger that no key has signed yet.
///
/// # Errors
/// As [`load`] and [`make`]; a missing file or another key where the node's stream was signed before.
pub async fn open_or_make(db: &Db, node_id: &str, path: &Path) -> Result<SigningKey, SigningKeyError> {
    let key = load(path)?;
    let streams = streams::list(db).await?;
    let own = streams.iter().rev().find(|stream| stream.node_id == node_id && stream.closed_at.is_none());
    let used: Vec<VerifierKey> = match own {
        Some(stream) => checkpoints::keys(db)
            .await?
            .iter()
            .filter_map(|row| row.vkey.parse().ok())
            .filter(|key: &VerifierKey| key.name() == stream.origin)
            .collect(),
        None => Vec::new(),
    };
    match (key, used.last()) {
        (None, None) => make(path),
        (None, Some(_)) => Err(SigningKeyError::Missing(path.to_owned())),
        (Some(key), Some(expected)) if *expected.public() != key.public() => {
            Err(SigningKeyError::Other { path: path.to_owned(), expected: expected.id() })
        }
        (Some(key), _) => Ok(key),
    }
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
