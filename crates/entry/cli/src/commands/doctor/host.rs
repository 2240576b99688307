//! What the host gives: disk and file descriptors.

use super::{Check, State};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use systemprompt_config::Loaded;

/// Free space below which an operator should hear of it.
const COMFORT: u64 = 1 << 30;
const MIN_INODES: u64 = 10_000;

pub(super) fn check(loaded: &Loaded, checks: &mut Vec<Check>) {
    checks.push(disk(loaded));
    checks.push(descriptors(loaded));
}

fn disk(loaded: &Loaded) -> Check {
    let folder = loaded.paths.data_dir();
    let stat = match statvfs(folder) {
        Ok(stat) => stat,
        Err(error) => return Check::fail("disk", error, format!("look at {}", folder.display())),
    };
    let free = stat.blocks_available() * stat.fragment_size();
    let (inodes, all) = (stat.files_available(), stat.files());
    let detail = format!("{} MiB free in {}", free >> 20, folder.display());
    let fix = "make room, or move the data folder".to_owned();
    let least = loaded.profile.audit.min_free_bytes.bytes();
    if free < least {
        Check::fail("disk", format!("{detail}: below audit.min_free_bytes nothing new is admitted"), fix)
    } else if free < COMFORT {
        Check::warn("disk", detail, fix)
    } else if all > 0 && inodes < MIN_INODES {
        Check::warn("disk", format!("{inodes} inodes free in {}", folder.display()), fix)
    } else {
        Check::pass("disk", detail)
    }
}

fn descriptors(loaded: &Loaded) -> Check {
    let wanted = 2 * u64::from(loaded.profile.server.max_concurrent_streams);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) => {
            let wrong = (limit < wanted)
                .then(|| (State::Warn, format!("ulimit -n {wanted}, or LimitNOFILE of the unit")));
            Check::of("descriptors", format!("{limit} allowed, {wanted} wanted"), wrong)
        }
        Err(error) => Check::warn("descriptors", error, "look at `ulimit -n`"),
    }
}
