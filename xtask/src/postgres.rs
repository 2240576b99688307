//! A PostgreSQL server for one run: made by initdb in a folder of its own, reached over loopback TCP, stopped by its process
//! id and removed with its folder.

use crate::packages;
use crate::process::{find, run, stop, target};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Names the server for tests (`systemprompt_database::testing` reads it).
pub const VARIABLE: &str = "SYSTEMPROMPT_TEST_POSTGRES";

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// No fsync: a killed server loses nothing, a machine that loses power may. For tests.
    Process,
    /// As in production. For measurements.
    Disk,
}

/// A running server. It ends when this value is dropped, and also when this process ends in any other way.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
    durability: Durability,
    folder: TempDir,
}

impl Postgres {
    /// Installs the server if it is missing, and starts one.
    ///
    /// # Errors
    /// When it cannot be installed, initialised or started.
    pub fn start(durability: Durability) -> Result<Self> {
        packages::ensure("postgresql", || binaries().is_some())?;
        let binaries = binaries().context("no PostgreSQL server")?;
        let folder = folder()?;
        let data = folder.path().join("data");
        run(as_server_user(&binaries.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg("--pgdata")
            .arg(&data)
            .current_dir(folder.path())
            .stdout(Stdio::null()))?;
        for _ in 0..3 {
            let port = free_port()?;
            let mut child = serve(&binaries, &data, port, durability)?;
            if is_ready(&mut child, &data)? {
                return Ok(Self { child, port, durability, folder });
            }
        }
        bail!("PostgreSQL did not start; its last words are above")
    }

    /// The URL of its first database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The process id of its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the server in the middle of its work, as a crash does, and starts it again after `pause`.
    ///
    /// # Errors
    /// When it does not start again.
    pub fn crash(&mut self, pause: Duration) -> Result<()> {
        // SIGQUIT is its "immediate shutdown": nothing is finished, the next start recovers from the log.
        stop(&mut self.child, Signal::SIGQUIT, Duration::from_secs(20));
        std::thread::sleep(pause);
        let binaries = binaries().context("no PostgreSQL server")?;
        let data = self.folder.path().join("data");
        self.child = serve(&binaries, &data, self.port, self.durability)?;
        if is_ready(&mut self.child, &data)? { Ok(()) } else { bail!("PostgreSQL did not start again") }
    }

    /// Waits until the server ends.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> Result<()> {
        self.child.wait().map(drop).context("waiting for PostgreSQL")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is its "fast shutdown": clients are cut off, data is kept.
        stop(&mut self.child, Signal::SIGINT, Duration::from_secs(20));
    }
}

/// The folder with `initdb` and `postgres`; Debian keeps them out of PATH.
fn binaries() -> Option<PathBuf> {
    let has_both = |folder: &Path| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    if let Some(folder) =
        find("initdb").and_then(|file| file.canonicalize().ok()?.parent().map(Path::to_path_buf))
        && has_both(&folder)
    {
        return Some(folder);
    }
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| has_both(folder))
        .collect();
    versions.sort();
    versions.pop()
}

/// PostgreSQL refuses to run as root: then its own user, which Debian's package makes, runs it.
fn server_user() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`")
}

/// A command under that user that is interrupted when this process ends, however it ends.
fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if let Ok(Some(user)) = server_user() {
        command.args(["--reuid", &user.name, "--regid", &user.gid.to_string(), "--clear-groups"]);
    }
    command.arg(program);
    command
}

/// A folder that the server's user can reach: below `target`, or else the system's folder for temporary files.
fn folder() -> Result<TempDir> {
    let home = target().join("postgres");
    std::fs::create_dir_all(&home)?;
    remove_left_behind(&home);
    for parent in [home, std::env::temp_dir()] {
        let folder = tempfile::Builder::new().prefix("pg-").tempdir_in(&parent)?;
        if let Some(user) = server_user()? {
            std::os::unix::fs::chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        let reachable = as_server_user(Path::new("test")).arg("-w").arg(folder.path()).status()?;
        if reachable.success() {
            return Ok(folder);
        }
    }
    bail!("no folder that PostgreSQL's user can write to")
}

/// Removes the folders of runs that were killed.
fn remove_left_behind(home: &Path) {
    let Ok(entries) = std::fs::read_dir(home) else { return };
    for folder in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let pid = std::fs::read_to_string(folder.join("data/postmaster.pid"));
        let pid = pid.ok().and_then(|text| text.lines().next()?.parse::<i32>().ok());
        let old = folder.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        let is_running = pid.is_some_and(|pid| kill(Pid::from_raw(pid), None).is_ok());
        if !is_running && old.is_some_and(|age| age > Duration::from_hours(1)) {
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn serve(binaries: &Path, data: &Path, port: u16, durability: Durability) -> Result<Child> {
    let mut command = as_server_user(&binaries.join("postgres"));
    command.arg("-D").arg(data).args(["-p", &port.to_string()]);
    let mut settings = vec![
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=300",
        "shared_buffers=128MB",
    ];
    settings.extend(match durability {
        Durability::Process => ["fsync=off", "full_page_writes=off", "log_min_messages=fatal"].as_slice(),
        // Written log files are kept and reused.
        Durability::Disk => ["min_wal_size=1GB"].as_slice(),
    });
    for setting in settings {
        command.args(["-c", setting]);
    }
    let folder = data.parent().unwrap_or(data);
    let log = std::fs::File::create(folder.join("log"))?;
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("starting PostgreSQL (it is started through `setpriv` of util-linux)")
}

/// Waits until the server says in its pid file that it takes connections; `false` when it ended instead.
fn is_ready(child: &mut Child, data: &Path) -> Result<bool> {
    let end = Instant::now() + Duration::from_mins(1);
    while Instant::now() < end {
        let state = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
            return Ok(true);
        }
        if child.try_wait()?.is_some() {
            let log = data.parent().unwrap_or(data).join("log");
            std::io::copy(&mut std::fs::File::open(log)?, &mut std::io::stderr())?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    stop(child, Signal::SIGINT, Duration::from_secs(5));
    Ok(false)
}
