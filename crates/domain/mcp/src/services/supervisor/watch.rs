//! The end of a child: every child is waited for, its process group is ended with it, and its leases end on record
//! (SCR-58).

use super::{Instance, LEASES_PER_UNIT, Slot, Supervisor, linger};
use crate::repository::secret_leases::{EndReason, Lease};
use crate::services::spawner::ChildFolders;
use crate::services::stdio::CloseReason;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_leak::Hold;
use systemprompt_models::ids::ChildId;
use tokio::process::Child;

/// What calls under way get when the child is to end.
const DRAIN: Duration = Duration::from_secs(10);
/// From closed input to SIGTERM, and from there to SIGKILL.
const AFTER_INPUT: Duration = Duration::from_secs(2);
const AFTER_TERM: Duration = Duration::from_secs(5);
/// How long the end of a lease is tried to be recorded, and how often.
const RECORD_TRIES: u32 = 60;
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// What ends with a child.
pub(super) struct Watched {
    pub child: ChildId,
    pub server: Box<str>,
    pub leases: Vec<Lease>,
    pub holds: Vec<Hold>,
    pub folders: ChildFolders,
}

pub(super) struct Process {
    pub child: Child,
    pub pid: u32,
}

/// Accompanies a child to its end.
pub(super) async fn watch(
    supervisor: Supervisor,
    instance: Arc<Instance>,
    slot: Arc<Slot>,
    mut process: Process,
    watched: Watched,
) {
    let shutdown = supervisor.0.tasks.shutdown_token();
    let asked = tokio::select! {
        status = process.child.wait() => Asked::No(status.ok()),
        reason = instance.connection().closed() => match reason {
            // It closed its output and may be about to exit by itself.
            CloseReason::Ended => Asked::Kill { wait: AFTER_INPUT },
            CloseReason::LineTooLong | CloseReason::NotJsonRpc => Asked::Kill { wait: Duration::ZERO },
        },
        () = instance.killed.cancelled() => Asked::Kill { wait: Duration::ZERO },
        () = instance.stopping.cancelled() => Asked::Stop,
        () = shutdown.cancelled() => Asked::Stop,
    };
    let (status, reason) = match asked {
        Asked::No(status) => (status, EndReason::Exited),
        Asked::Kill { wait } => {
            let status = within(&mut process.child, wait).await;
            signal(process.pid, Signal::SIGKILL);
            (status.or(process.child.wait().await.ok()), EndReason::Exited)
        }
        Asked::Stop => {
            instance.stop();
            (stop(&instance, &mut process).await, EndReason::Stopped)
        }
    };
    // Whatever the child started goes with it.
    signal(process.pid, Signal::SIGKILL);
    let reason = if instance.hello().is_none() { EndReason::StartFailed } else { reason };
    if reason != EndReason::Stopped {
        let now = supervisor.0.clock.now();
        let mut history = slot.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.is_of(instance.key()) {
            history.ended(now, instance.started.elapsed());
        }
    }
    tracing::info!(server = %watched.server, child = %watched.child, status = ?status, reason = reason.as_str(), "MCP server ended");
    end(&supervisor, watched, status, reason).await;
    instance.ended.cancel();
}

enum Asked {
    No(Option<ExitStatus>),
    Kill { wait: Duration },
    Stop,
}

async fn stop(instance: &Instance, process: &mut Process) -> Option<ExitStatus> {
    tokio::select! {
        () = instance.idle() => {}
        () = instance.killed.cancelled() => {}
        () = tokio::time::sleep(DRAIN) => {}
    }
    instance.connection().end_input();
    if let Some(status) = within(&mut process.child, AFTER_INPUT).await {
        return Some(status);
    }
    signal(process.pid, Signal::SIGTERM);
    if let Some(status) = within(&mut process.child, AFTER_TERM).await {
        return Some(status);
    }
    signal(process.pid, Signal::SIGKILL);
    process.child.wait().await.ok()
}

async fn within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    tokio::time::timeout(limit, child.wait()).await.ok().and_then(Result::ok)
}

/// Signals the process group of a child, which has the child's own number.
fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        // An empty group is what is wanted.
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}

/// The program could not be started; its leases end without having been used.
pub(super) async fn never_started(supervisor: Supervisor, watched: Watched) {
    end(&supervisor, watched, None, EndReason::StartFailed).await;
}

/// Records the end, removes the folders, and lets go of the values after a while.
async fn end(supervisor: &Supervisor, watched: Watched, status: Option<ExitStatus>, reason: EndReason) {
    watched.folders.remove().await;
    let mut leases = watched.leases.chunks(LEASES_PER_UNIT);
    let first = leases.next().unwrap_or_default();
    let exit = exit_draft(&watched, status, reason);
    append(supervisor, &watched.server, || end_unit(supervisor, first, reason, Some(exit.clone()))).await;
    for more in leases {
        append(supervisor, &watched.server, || end_unit(supervisor, more, reason, None)).await;
    }
    linger(&supervisor.0.tasks, watched.holds);
}

/// Appends a unit, again and again for a while. What cannot be recorded at all is found and ended by the next start.
async fn append(supervisor: &Supervisor, server: &str, unit: impl Fn() -> Unit) {
    let shutdown = supervisor.0.tasks.shutdown_token();
    let mut tries = 0;
    while let Err(error) = supervisor.0.ledger.append(unit()).await {
        tries += 1;
        if tries >= RECORD_TRIES || shutdown.is_cancelled() {
            tracing::error!(server, %error, "the end of an MCP server could not be recorded");
            return;
        }
        tokio::time::sleep(RECORD_PAUSE).await;
    }
}

fn end_unit(supervisor: &Supervisor, leases: &[Lease], reason: EndReason, exit: Option<Draft>) -> Unit {
    let inner = &supervisor.0;
    let mut unit = Unit::new();
    if let Some(exit) = exit {
        unit.record(exit);
    }
    for lease in leases {
        inner.leases.end(&mut unit, lease, reason, inner.clock.now());
    }
    unit
}

fn exit_draft(watched: &Watched, status: Option<ExitStatus>, reason: EndReason) -> Draft {
    use std::os::unix::process::ExitStatusExt as _;
    let outcome = if reason == EndReason::Stopped { "ok" } else { "failed" };
    Draft::system(EntryKind::McpChild, outcome)
        .with_subject("mcp_server", watched.server.clone())
        .with_reason(reason.as_str())
        .with("event", "exit")
        .with("child", watched.child.as_str())
        .with("exit_code", status.and_then(|s| s.code()))
        .with("signal", status.and_then(|s| s.signal()))
}
