//! A disk that runs full (AUD-18): below a threshold opening records are refused, and a reserve file is given up so that
//! closing records can still be written.

use crate::condition::Condition;
use crate::ledger::Shared;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_models::Tasks;

/// Size of `ledger.reserve`.
pub const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
const CHECK_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct DiskGuard {
    folder: PathBuf,
    reserve: PathBuf,
    min_free: u64,
}

impl DiskGuard {
    pub(crate) fn new(folder: &Path, min_free: u64) -> Self {
        let guard = Self { folder: folder.to_path_buf(), reserve: folder.join("ledger.reserve"), min_free };
        guard.keep_reserve();
        guard
    }

    /// Bytes that an unprivileged writer may still use, or `None` when the folder cannot be asked.
    fn free(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.folder).ok()?;
        Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
    }

    /// Gives the reserve up, so that what must still be written finds room.
    pub(crate) fn release_reserve(&self) {
        if std::fs::remove_file(&self.reserve).is_ok() {
            tracing::warn!("the ledger gave up its disk reserve");
        }
    }

    /// Makes the reserve again once there is room for it beyond the threshold.
    fn keep_reserve(&self) {
        let room = self.free().is_some_and(|free| free > self.min_free.saturating_add(2 * RESERVE_BYTES));
        if room && !self.reserve.exists() && self.make_reserve().is_err() {
            let _ = std::fs::remove_file(&self.reserve);
        }
    }

    fn make_reserve(&self) -> io::Result<()> {
        let mut file = File::create(&self.reserve)?;
        let block = vec![0_u8; 64 * 1024];
        for _ in 0..RESERVE_BYTES / block.len() as u64 {
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    /// Watches the free space each second.
    pub(crate) fn watch(self, shared: Arc<Shared>, tasks: &Tasks) {
        tasks.spawn_loop("ledger-disk", CHECK_EVERY, move || {
            let (guard, shared) = (self.clone(), Arc::clone(&shared));
            async move {
                let _ = tokio::task::spawn_blocking(move || guard.check(&shared)).await;
            }
        });
    }

    fn check(&self, shared: &Shared) {
        let low = self.free().is_some_and(|free| free < self.min_free);
        let condition = shared.condition.load();
        match (&**condition, low) {
            (Condition::Ready, true) => {
                tracing::error!(
                    min_free_bytes = self.min_free,
                    "disk nearly full: opening records are refused"
                );
                shared.condition.store(Arc::new(Condition::DiskLow));
            }
            (Condition::DiskLow, false) => {
                tracing::info!("disk has room again: opening records are taken");
                shared.condition.store(Arc::new(Condition::Ready));
            }
            (Condition::Ready, false) => self.keep_reserve(),
            _ => {}
        }
    }
}
