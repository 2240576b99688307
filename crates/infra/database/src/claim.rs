//! Who serves a SQLite database: a lock file beside it that one process holds, so that a second one is refused before it takes
//! the ledger's stream away. The system frees the lock with the process, however that ends. Reading needs no claim.

use sqlx::sqlite::SqliteConnectOptions;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest text of a process id that is read back.
const MAX_OWNER: u64 = 20;

/// Why a database was not claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("another process{} works on the database {}", owner(*.pid), .database.display())]
    Held { database: PathBuf, pid: Option<u32> },
    #[error("the lock file {} cannot be used", .path.display())]
    Lock { path: PathBuf, source: io::Error },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" ({pid})"))
}

/// The right to serve a database. It is given back when this value is dropped.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
}

impl Claim {
    /// Claims the file that `url` names; nothing where `url` names none (PostgreSQL, which several nodes may share, or a database
    /// in memory).
    ///
    /// # Errors
    /// Another process holds it, or the lock file cannot be made.
    pub fn take(url: &str) -> Result<Option<Self>, ClaimError> {
        let Some(database) = file_of(url) else { return Ok(None) };
        let path = lock_file(&database);
        let fault = |source| ClaimError::Lock { path: path.clone(), source };
        let mut options = OpenOptions::new();
        let mut lock = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ClaimError::Held { database, pid: written_by(&mut lock) });
            }
            Err(TryLockError::Error(source)) => return Err(fault(source)),
        }
        // The id is for the message alone; the lock is what counts.
        lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(fault)?;
        Ok(Some(Self { _lock: lock }))
    }
}

/// The file of a SQLite URL by its one name, so that two ways to it meet at one lock.
fn file_of(url: &str) -> Option<PathBuf> {
    if !url.starts_with("sqlite:") || url.contains(":memory:") || url.contains("mode=memory") {
        return None;
    }
    let options = SqliteConnectOptions::from_str(url).ok()?;
    let file = options.get_filename();
    let real = file.canonicalize().ok();
    // A file that is still to be made has a folder already.
    let beside = || Some(file.parent()?.canonicalize().ok()?.join(file.file_name()?));
    Some(real.or_else(beside).unwrap_or_else(|| file.to_path_buf()))
}

fn lock_file(database: &Path) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    database.with_file_name(name)
}

fn written_by(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(MAX_OWNER).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_claimed_once_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        let claim = Claim::take(&url("a.db")).unwrap();
        assert!(claim.is_some());
        std::fs::write(folder.path().join("a.db"), "").unwrap();
        std::os::unix::fs::symlink("a.db", folder.path().join("same.db")).unwrap();
        for name in ["a.db", "same.db", "./a.db"] {
            let refused = Claim::take(&url(name)).unwrap_err();
            let ClaimError::Held { pid, .. } = &refused else { panic!("{refused}") };
            assert_eq!(*pid, Some(std::process::id()), "{name}");
            assert!(refused.to_string().contains("a.db"), "{refused}");
        }
        assert!(Claim::take(&url("b.db")).unwrap().is_some(), "another database is free");
        drop(claim);
        assert!(Claim::take(&url("a.db")).unwrap().is_some(), "given back");
    }

    #[test]
    fn what_is_no_file_needs_no_claim() {
        for url in ["postgres://u:p@localhost/d", "sqlite::memory:"] {
            assert!(Claim::take(url).unwrap().is_none(), "{url}");
        }
        let folder = tempfile::tempdir().unwrap();
        let nowhere = format!("sqlite:{}/no/such/a.db", folder.path().display());
        assert!(matches!(Claim::take(&nowhere), Err(ClaimError::Lock { .. })));
    }
}
