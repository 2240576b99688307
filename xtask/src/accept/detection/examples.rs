//! Labelled examples of other projects. They are fetched when a run needs them and kept below `target/accept`, so that none of them,
//! secrets to look at, is in this tree; each is pinned, by the digest of a wheel or the id of a commit.

use crate::accept::clients;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::packages;
use xtask::process::{is_installed, output, root, run};

/// A build of kingfisher that carries its rules with their examples, as PyPI has it.
const KINGFISHER: &str = "1.79.0";
const KINGFISHER_SHA256: &str = "b77cfc6e94c86a066ea44f201981adb96a2fe5275936dfd17f81dfa99a799143";
/// How many rule files are in it.
const KINGFISHER_FILES: &str = "272";

/// A folder of a repository at one commit.
pub(super) struct Snapshot {
    /// What the run calls it.
    pub(super) name: &'static str,
    url: &'static str,
    commit: &'static str,
    folder: &'static str,
}

/// The snapshot that the bounds were set on, of 20 June 2025.
pub(super) const KINGFISHER_2025: Snapshot = Snapshot {
    name: "kingfisher 2025-06",
    url: "https://github.com/mongodb/kingfisher",
    commit: "ee7c0db3ef87575768f817820c24736249ffcdef",
    folder: "data/rules",
};
/// Its last rules: the project has ended.
pub(super) const NOSEYPARKER: Snapshot = Snapshot {
    name: "noseyparker 2026-02",
    url: "https://github.com/praetorian-inc/noseyparker",
    commit: "2e6e7f36ce36619852532bbe698d8cb7a26d2da7",
    folder: "crates/noseyparker/data/default/builtin/rules",
};
/// The packages on PyPI carry no tests.
pub(super) const PRESIDIO: Snapshot = Snapshot {
    name: "presidio 2.2.363",
    url: "https://github.com/microsoft/presidio",
    commit: "5c0ac333534955601f0649cff3e323ca5d5d7345",
    folder: "presidio-analyzer/tests",
};

impl Snapshot {
    /// The folder that was named on the command line, or the one that git fetches. `None`, with a word about it, where the repository
    /// is out of reach: not every machine that runs this reaches more than the registries of packages.
    pub(super) fn get(&self, named: Option<&Path>) -> Result<Option<PathBuf>> {
        if let Some(folder) = named {
            ensure!(folder.is_dir(), "{} is no folder", folder.display());
            return Ok(Some(folder.to_path_buf()));
        }
        let clone = clients::home().join("examples").join(self.commit);
        let folder = clone.join(self.folder);
        let complete = clone.join("complete");
        if complete.is_file() {
            return Ok(Some(folder));
        }
        packages::ensure("git", || is_installed("git"))?;
        if let Err(error) = self.fetch(&clone) {
            println!("skip  {}: {error:#}; the folder can be named instead", self.name);
            return Ok(None);
        }
        std::fs::write(complete, self.commit)?;
        Ok(Some(folder))
    }

    /// Git takes nothing else for a commit than what its id is the digest of.
    fn fetch(&self, clone: &Path) -> Result<()> {
        let git = |words: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"]).arg("-C").arg(clone);
            let done = git.args(words).env("GIT_TERMINAL_PROMPT", "0").output()?;
            let said = String::from_utf8_lossy(&done.stderr);
            ensure!(done.status.success(), "{}", said.trim().lines().last().unwrap_or("git failed"));
            Ok(())
        };
        std::fs::create_dir_all(clone)?;
        git(&["init", "--quiet"])?;
        git(&["config", "remote.origin.url", self.url])?;
        git(&["fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", self.commit])?;
        git(&["checkout", "--quiet", self.commit, "--", self.folder])
    }
}

/// The rule files of the build of kingfisher that PyPI has, which every machine with pip can get.
pub(super) fn kingfisher(python: &Path) -> Result<(String, PathBuf)> {
    let name = format!("kingfisher {KINGFISHER}");
    let home = clients::home().join("examples").join(KINGFISHER_SHA256);
    let folder = home.join("rules");
    if folder.is_dir() {
        return Ok((name, folder));
    }
    std::fs::create_dir_all(&home)?;
    let wanted = home.join("requirements.txt");
    std::fs::write(&wanted, format!("kingfisher-bin=={KINGFISHER} --hash=sha256:{KINGFISHER_SHA256}\n"))?;
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"];
    run(Command::new(python)
        .args(pip)
        .args(["--only-binary", ":all:", "--require-hashes", "--requirement"])
        .arg(&wanted)
        .arg("--dest")
        .arg(&home))
    .context("kingfisher-bin of PyPI is needed for its examples")?;
    let wheel = home.join(format!("kingfisher_bin-{KINGFISHER}-py3-none-any.whl"));
    let written = home.join("rules.new");
    let files = output(
        Command::new(python)
            .arg(root().join("xtask/accept/embedded_rules.py"))
            .arg(&wheel)
            .arg("kingfisher/bin/kingfisher")
            .arg(&written),
    )?;
    ensure!(files == KINGFISHER_FILES, "{files} rule files in {}", wheel.display());
    std::fs::rename(written, &folder)?;
    std::fs::remove_file(wheel)?;
    Ok((name, folder))
}
