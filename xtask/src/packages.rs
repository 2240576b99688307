//! Installing what tests need from Debian's packages: one package a call, the lists refreshed once.

use crate::process::{is_installed, run};
use anyhow::{Result, bail};
use std::process::Command;
use std::sync::OnceLock;

/// Whether this process has refreshed the lists of packages.
static REFRESHED: OnceLock<()> = OnceLock::new();

/// Installs a Debian package, unless `found` says that it is not needed.
///
/// # Errors
/// When the machine has no apt-get, we are not root, or the package cannot be installed. The message says what is missing.
pub fn ensure(package: &str, found: impl Fn() -> bool) -> Result<()> {
    if found() {
        return Ok(());
    }
    if !is_installed("apt-get") || !nix::unistd::geteuid().is_root() {
        bail!(
            "the package `{package}` is missing; install it (Debian: apt-get install {package}) and run this again"
        );
    }
    if REFRESHED.get().is_none() {
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        let _ = REFRESHED.set(());
    }
    // With runlevel 1 Debian's scripts install a service without starting it.
    run(Command::new("apt-get")
        .args(["-qq", "--yes", "--no-install-recommends", "install", package])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1"))?;
    if !found() {
        bail!("`{package}` is installed, but what is needed of it is still not found");
    }
    Ok(())
}
