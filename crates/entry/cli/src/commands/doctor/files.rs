//! Who may read and write the files that matter.

use super::{Check, State};
use crate::credentials;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use systemprompt_config::{Loaded, ProfileLocation};

const CHECK: &str = "file modes";

pub(super) fn check(location: &ProfileLocation, loaded: Option<&Loaded>, checks: &mut Vec<Check>) {
    if !location.data_dir.is_dir() {
        let detail = format!("there is no data folder at {}", location.data_dir.display());
        checks.push(Check::fail(CHECK, detail, "systemprompt up"));
        return;
    }
    let paths = loaded.map(|loaded| &loaded.paths);
    // What others must not read, and what they must at least not write.
    let mut watched = vec![
        (location.data_dir.clone(), 0o077, State::Warn),
        (location.profile_file(), 0o022, State::Fail),
        (credentials::file_of(location), 0o177, State::Fail),
    ];
    watched.extend(paths.map(|paths| (paths.signing_key_path.clone(), 0o177, State::Fail)));
    watched.extend(paths.map(|paths| (paths.ledger_key_path.clone(), 0o177, State::Fail)));
    let before = checks.len();
    checks.extend(watched.iter().filter_map(|(path, refused, state)| fault(path, *refused, *state)));
    if checks.len() == before {
        checks.push(Check::pass(CHECK, format!("{} and what is in it", location.data_dir.display())));
    }
}

/// What is wrong with a path that exists; a folder that nobody else may enter protects what is in it.
fn fault(path: &Path, refused: u32, state: State) -> Option<Check> {
    let mode = path.metadata().ok()?.mode() & 0o7777;
    let excess = mode & refused;
    if excess == 0 {
        return None;
    }
    let detail = format!("{} has mode {mode:04o}", path.display());
    let fix = format!("chmod {:04o} {}", mode & !refused, path.display());
    Some(Check::of(CHECK, detail, Some((state, fix))))
}
