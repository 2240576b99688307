//! Why a server has no child.

use super::MAX_CHILDREN;
use crate::services::definitions::ListError;
use crate::services::spawner::LeaseRefused;
use crate::services::stdio::StdioError;
use systemprompt_audit::LedgerError;
use systemprompt_leak::LeakError;
use systemprompt_models::Millis;

/// Why there is no child to call. The texts are for operators; clients get the code alone.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Leases(#[from] LeaseRefused),
    #[error("secret_too_short_to_guard: {0}")]
    Guard(#[from] LeakError),
    #[error("the start could not be recorded: {0}")]
    Ledger(#[from] LedgerError),
    #[error("the program could not be started: {0}")]
    Spawn(#[source] std::io::Error),
    #[error("no handshake: {0}")]
    Handshake(#[from] StdioError),
    #[error("no handshake: {0}")]
    Hello(&'static str),
    #[error("no list of tools: {0}")]
    List(#[from] ListError),
    #[error("it ended {exits} times within five minutes; next try in {retry_s} s")]
    CrashLoop { exits: usize, retry_s: i64 },
    #[error("it ended a moment ago; next try in {0} ms")]
    Backoff(Millis),
    #[error("{MAX_CHILDREN} servers run on this node already")]
    Capacity,
    #[error("the node is draining")]
    Draining,
}
