//! What cannot be undone asks for the name to be typed, or needs `--yes`; without a terminal it never waits (PL-76).

use crate::exit::{CliError, Exit};
use std::io::{IsTerminal, Write};

/// `--yes`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Confirm {
    /// Does it without asking
    #[arg(short, long)]
    yes: bool,
}

impl Confirm {
    /// Returns when it may be done. `what` is the act, `name` what has to be typed.
    ///
    /// # Errors
    /// Nobody to ask, or another answer (2).
    pub fn ask(self, what: &str, name: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        let refused = CliError::new(Exit::Usage, format!("{what}: not done"));
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(refused.why("it cannot be undone, and nobody is here to be asked").fix("add --yes"));
        }
        let mut terminal = anstream::stderr();
        write!(terminal, "{what}. It cannot be undone. Type {name} to go on: ")?;
        terminal.flush()?;
        let mut typed = String::new();
        std::io::stdin().read_line(&mut typed)?;
        if typed.trim() == name { Ok(()) } else { Err(refused.why(format!("that was not {name}"))) }
    }
}
