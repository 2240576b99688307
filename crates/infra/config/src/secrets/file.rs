//! The secrets file on disk: who may read it (SCR-7), and changes that are whole or not at all. Every writer holds the lock
//! file beside it, writes a temporary file with mode 0600, syncs it and renames it into place.

use super::{MAX_FILE_BYTES, Secrets, SecretsError, check_value, is_platform, names};
use crate::profile::secrets::SecretsFileMode;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use systemprompt_models::Secret;

/// Reads a file that holds secrets after checking type, owner, mode and folder of what was opened.
pub(crate) fn read_checked(path: &Path, mode: SecretsFileMode) -> Result<Secret<String>, SecretsError> {
    let file = open_checked(path, mode)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|e| io(path, "read", &e))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(SecretsError::TooLarge);
    }
    String::from_utf8(bytes).map(Secret::new).map_err(|_| io(path, "read", &ErrorKind::InvalidData.into()))
}

fn open_checked(path: &Path, mode: SecretsFileMode) -> Result<File, SecretsError> {
    let file =
        OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path).map_err(
            |error| match error.kind() {
                ErrorKind::NotFound => SecretsError::NotFound { path: path.to_owned() },
                _ => io(path, "opened", &error),
            },
        )?;
    let meta = file.metadata().map_err(|e| io(path, "examined", &e))?;
    if !meta.is_file() {
        return Err(SecretsError::NotRegular { path: path.to_owned() });
    }
    let wanted = nix::unistd::geteuid().as_raw();
    let root_may = mode == SecretsFileMode::Group;
    if meta.uid() != wanted && !(root_may && meta.uid() == 0) {
        return Err(SecretsError::FileOwner { path: path.to_owned(), found: meta.uid(), wanted });
    }
    let allowed = match mode {
        SecretsFileMode::Owner => 0o600,
        SecretsFileMode::Group => 0o640,
    };
    let found = meta.mode() & 0o7777;
    if found & !allowed != 0 {
        return Err(SecretsError::FileMode { path: path.to_owned(), found, allowed });
    }
    let real = path.canonicalize().map_err(|e| io(path, "examined", &e))?;
    if let Some(folder) = real.parent() {
        let meta = folder.metadata().map_err(|e| io(path, "examined", &e))?;
        if meta.mode() & 0o002 != 0 {
            return Err(SecretsError::FolderWritable { path: folder.to_owned() });
        }
    }
    Ok(file)
}

fn io(path: &Path, doing: &'static str, error: &std::io::Error) -> SecretsError {
    SecretsError::Io { path: path.to_owned(), doing, error: error.kind() }
}

/// Sets a provider or custom secret, or `database_url`, in the file. The other entries stay as they are written.
pub fn set_secret(
    path: &Path,
    mode: SecretsFileMode,
    name: &str,
    value: &Secret<String>,
) -> Result<(), SecretsError> {
    if is_platform(name) && !name.eq_ignore_ascii_case("database_url") {
        return Err(SecretsError::PlatformSecret { key: name.to_owned() });
    }
    if !names::is_well_formed(name) {
        return Err(SecretsError::BadName { key: name.chars().take(64).collect() });
    }
    if value.expose().is_empty() {
        return Err(SecretsError::Empty { key: name.to_owned() });
    }
    check_value(name, value.expose())?;
    change(path, mode, |entries| {
        remove_any_case(entries, name);
        let key = names::canonical(name).unwrap_or(name);
        entries.insert(key.to_owned(), Value::String(value.expose().clone()));
        true
    })
    .map(|_| ())
}

/// Removes a provider or custom secret from the file; whether it was there.
pub fn remove_secret(path: &Path, mode: SecretsFileMode, name: &str) -> Result<bool, SecretsError> {
    if is_platform(name) {
        return Err(SecretsError::PlatformSecret { key: name.to_owned() });
    }
    change(path, mode, |entries| remove_any_case(entries, name))
}

/// Makes the platform secrets that are absent (256 random bits each) and the file itself if need be. Returns the names made.
/// Existing values are never touched.
pub fn generate_missing(
    path: &Path,
    mode: SecretsFileMode,
    database_url: &str,
) -> Result<Vec<&'static str>, SecretsError> {
    let _lock = lock(path)?;
    let existing = match read_checked(path, mode) {
        Ok(text) => text,
        Err(SecretsError::NotFound { .. }) => Secret::from("{}"),
        Err(other) => return Err(other),
    };
    let present = Secrets::parse(existing.expose())?;
    let mut entries = entries_of(existing.expose())?;
    let mut made = Vec::new();
    for (name, form) in [
        ("jwt_secret", Form::UrlSafe),
        ("oauth_at_rest_pepper", Form::UrlSafe),
        ("manifest_signing_secret_seed", Form::Standard),
        ("database_url", Form::Given(database_url)),
    ] {
        if present.platform_names().contains(&name) {
            continue;
        }
        remove_any_case(&mut entries, name);
        entries.insert(name.to_owned(), Value::String(form.make(path)?));
        made.push(name);
    }
    if !made.is_empty() {
        write(path, &entries)?;
    }
    Ok(made)
}

enum Form<'a> {
    UrlSafe,
    Standard,
    Given(&'a str),
}

impl Form<'_> {
    fn make(&self, path: &Path) -> Result<String, SecretsError> {
        let mut bytes = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io(path, "filled", &ErrorKind::Other.into()))?;
        Ok(match self {
            Self::UrlSafe => URL_SAFE_NO_PAD.encode(bytes),
            Self::Standard => STANDARD.encode(bytes),
            Self::Given(text) => (*text).to_owned(),
        })
    }
}

fn remove_any_case(entries: &mut Map<String, Value>, name: &str) -> bool {
    let before = entries.len();
    entries.retain(|key, _| !key.eq_ignore_ascii_case(name));
    entries.len() != before
}

fn entries_of(text: &str) -> Result<Map<String, Value>, SecretsError> {
    serde_json::from_str(text).map_err(|e| SecretsError::Syntax { line: e.line(), column: e.column() })
}

/// Applies a change under the lock; the result must still parse, else nothing is written.
fn change(
    path: &Path,
    mode: SecretsFileMode,
    edit: impl FnOnce(&mut Map<String, Value>) -> bool,
) -> Result<bool, SecretsError> {
    let _lock = lock(path)?;
    let text = read_checked(path, mode)?;
    Secrets::parse(text.expose())?;
    let mut entries = entries_of(text.expose())?;
    let changed = edit(&mut entries);
    if changed {
        write(path, &entries)?;
    }
    Ok(changed)
}

/// Excludes other writers of the same file until it is dropped.
fn lock(path: &Path) -> Result<Flock<File>, SecretsError> {
    let lock_path = beside(path, ".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|e| io(path, "locked", &e))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io(path, "locked", &errno.into()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn write(path: &Path, entries: &Map<String, Value>) -> Result<(), SecretsError> {
    let text = serde_json::to_string_pretty(entries)
        .map_err(|_| io(path, "written", &ErrorKind::InvalidData.into()))?;
    let text = Secret::new(text + "\n");
    Secrets::parse(text.expose())?;
    let mode = path.metadata().map_or(0o600, |meta| meta.mode() & 0o640);
    write_atomically(path, text.expose().as_bytes(), mode).map_err(|e| io(path, "written", &e))
}

/// Replaces a file whole: temporary name beside it, sync, rename, sync of the folder. A link stays a link.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let temporary = beside(&real, ".new");
    // What an earlier writer left behind when it was killed.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &real)?;
    match real.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
