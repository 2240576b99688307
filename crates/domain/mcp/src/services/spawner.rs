//! Starts a server's child process: the environment cleared and rebuilt (SCR-30), private folders, a process group of its
//! own, and only after the record of its start is durable.

mod environment;
mod leases;

pub use environment::{BaseEnvironment, ChildEnvironment};
pub use leases::{LeaseRefused, LeaseSet, LeasedSecret};

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use systemprompt_audit::Permit;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// What to start.
pub struct SpawnOrder {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Working folder; the child's private home if absent.
    pub cwd: Option<PathBuf>,
    pub folders: ChildFolders,
    pub environment: ChildEnvironment,
}

/// The private folders of one child (0700), removed when it has ended.
#[derive(Clone, Debug)]
pub struct ChildFolders {
    root: PathBuf,
}

impl ChildFolders {
    /// `<runtime>/<child>` with `home` and `tmp` in it.
    pub fn create(runtime: &Path, child: &str) -> std::io::Result<Self> {
        let root = runtime.join(child);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let folders = Self { root };
        builder.create(folders.home())?;
        builder.create(folders.tmp())?;
        Ok(folders)
    }

    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub async fn remove(&self) {
        if let Err(error) = tokio::fs::remove_dir_all(&self.root).await {
            tracing::warn!(folder = %self.root.display(), %error, "the folder of an ended MCP server stays behind");
        }
    }
}

/// A child that runs, with its standard streams.
pub struct SpawnedServer {
    pub child: Child,
    pub pid: u32,
    pub input: ChildStdin,
    pub output: ChildStdout,
    pub errors: ChildStderr,
}

/// Starts the child. The permit proves that the decision and the leases of its secrets are on record.
///
/// # Errors
/// The program cannot be started.
pub fn spawn_server(_permit: Permit, order: &SpawnOrder) -> std::io::Result<SpawnedServer> {
    let mut command = Command::new(&order.program);
    command
        .args(&order.args)
        .current_dir(order.cwd.clone().unwrap_or_else(|| order.folders.home()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    order.environment.apply(&mut command);
    let mut child = command.spawn()?;
    let broken = || std::io::Error::other("a standard stream of the child is missing");
    Ok(SpawnedServer {
        pid: child.id().ok_or_else(broken)?,
        input: child.stdin.take().ok_or_else(broken)?,
        output: child.stdout.take().ok_or_else(broken)?,
        errors: child.stderr.take().ok_or_else(broken)?,
        child,
    })
}
