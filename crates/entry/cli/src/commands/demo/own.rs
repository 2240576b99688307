//! A server of the demo's own: this binary as a child on a temporary folder, gone with the demo.

use crate::client::Client;
use crate::exit::{CliError, Exit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use systemprompt_config::ProfileLocation;
use systemprompt_config::data_dir::DEFAULT_PROFILE;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long it may take until it is ready, and until it has drained.
const START: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_secs(45);
/// Variables that would lead the child elsewhere.
const LEADING: [&str; 4] =
    ["SYSTEMPROMPT_DATA_DIR", "SYSTEMPROMPT_PROFILE", "SYSTEMPROMPT_URL", "SYSTEMPROMPT_TOKEN"];

/// The child. It is stopped with [`Self::stop`], and killed when this value is dropped before.
pub struct OwnServer {
    child: Child,
    ready: Value,
    location: ProfileLocation,
    log: PathBuf,
    _folder: TempDir,
}

impl OwnServer {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the end of its log is the cause.
    pub async fn start() -> Result<Self, CliError> {
        let folder = tempfile::Builder::new().prefix("systemprompt-demo-").tempdir()?;
        let data_dir = folder.path().join("data");
        let log = folder.path().join("server.log");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--data-dir").arg(&data_dir).args(["up", "--demo", "--port", "0", "--json"]);
        for name in LEADING {
            command.env_remove(name);
        }
        // A group of its own: an interrupt ends the demo, which then ends the child.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take();
        let location = ProfileLocation { data_dir, profile_name: DEFAULT_PROFILE.to_owned() };
        let mut own = Self { child, ready: Value::Null, location, log, _folder: folder };
        let line = async {
            let mut line = String::new();
            match stdout {
                Some(stdout) => BufReader::new(stdout).read_line(&mut line).await.map(|_| line),
                None => Ok(line),
            }
        };
        let line = tokio::time::timeout(START, line).await.ok().and_then(Result::ok).unwrap_or_default();
        own.ready = serde_json::from_str(&line).unwrap_or_default();
        if own.ready.is_null() {
            let error = own.not_ready();
            own.stop().await;
            return Err(error);
        }
        Ok(own)
    }

    fn not_ready(&self) -> CliError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let end: Vec<&str> = log.lines().rev().take(3).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        CliError::new(Exit::Failure, "the demo's own server did not start").why(end.join("\n       "))
    }

    /// A client with the administrator's token.
    ///
    /// # Errors
    /// A ready line without an address.
    pub fn client(&self) -> Result<Client, CliError> {
        let text = |pointer: &str| self.ready.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Client::at(&text("/api_url").unwrap_or_default(), text("/demo/admin_token"))
    }

    pub fn location(&self) -> &ProfileLocation {
        &self.location
    }

    /// What it has written to standard error.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Asks it to end, by its id, and waits.
    pub async fn stop(&mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
