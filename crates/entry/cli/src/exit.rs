//! Exit codes (contract, `help exit-codes`) and the error of a command: what, why, and what mends it.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    Failure = 1,
    Usage = 2,
    Denied = 3,
    SignInNeeded = 4,
    NotFound = 5,
    Conflict = 6,
    Invalid = 7,
    Unreachable = 8,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that failed.
#[derive(Debug)]
pub struct CliError {
    pub exit: Exit,
    pub what: String,
    pub why: Option<String>,
    pub fix: Option<String>,
    pub trace_id: Option<String>,
}

impl CliError {
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: None, fix: None, trace_id: None }
    }

    pub fn why(mut self, why: impl ToString) -> Self {
        self.why = Some(why.to_string());
        self
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub fn trace(mut self, trace_id: Option<String>) -> Self {
        self.trace_id = trace_id;
        self
    }

    /// The credential of this command line was not renewed when the server started, for a ledger that refuses takes no sign-in;
    /// and the session of the one that it holds is not in the database.
    pub fn refused_by_ledger(self, code: &str) -> Self {
        let cause = match code {
            "ledger_rollback" => {
                "the database is older than its last checkpoint, so an older copy was put back"
            }
            _ => "the end of the ledger does not verify",
        };
        self.why(format!(
            "the server answers `{code}`: {cause}; until that is settled no credential can be issued, and the one that is kept here \
             belongs to a session that this database does not have"
        ))
        .fix(
            "`systemprompt audit verify --offline` shows what is missing; put the right database back, or stop the server and run \
             `systemprompt audit repair --accept REASON`",
        )
    }

    /// The reader of standard output is gone: nobody is there to be told anything. It is no success: what a command would
    /// have said by its exit code it may not have found out.
    fn closed_pipe() -> Self {
        Self::new(Exit::Failure, "")
    }

    /// One line each: what, why, fix, trace id.
    pub fn lines(&self) -> Vec<String> {
        if self.what.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!("error: {}", self.what)];
        lines.extend(self.why.iter().map(|why| format!("  why: {why}")));
        lines.extend(self.fix.iter().map(|fix| format!("  fix: {fix}")));
        lines.extend(self.trace_id.iter().map(|id| format!("  trace id: {id}")));
        lines
    }
}

/// The error of something that a person can do nothing about but read.
impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::closed_pipe();
        }
        Self::new(Exit::Failure, "input or output failed").why(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn an_error_tells_what_why_fix_and_trace_each_on_its_line() {
        let error = CliError::new(Exit::NotFound, "no user `x`").why("it is not there").fix("look again");
        let lines = error.trace(Some("trc_1".to_owned())).lines();
        assert_eq!(
            lines,
            ["error: no user `x`", "  why: it is not there", "  fix: look again", "  trace id: trc_1"]
        );
    }

    #[test]
    fn a_closed_pipe_is_no_error_to_speak_of() {
        let closed = CliError::from(Error::from(ErrorKind::BrokenPipe));
        assert_eq!((closed.exit, closed.lines().len()), (Exit::Failure, 0));
        let other = CliError::from(Error::from(ErrorKind::PermissionDenied));
        assert_eq!((other.exit, other.lines().len()), (Exit::Failure, 2));
    }

    #[test]
    fn a_credential_that_the_ledger_kept_from_being_renewed_is_told_as_such() {
        let error = CliError::new(Exit::SignInNeeded, "the ledger was not read")
            .why("the credential does not count here");
        let error = error.refused_by_ledger("ledger_rollback");
        assert_eq!(error.exit, Exit::SignInNeeded);
        let lines = error.lines().join("\n");
        assert!(
            lines.contains("an older copy was put back") && lines.contains("audit verify --offline"),
            "{lines}"
        );
    }
}
