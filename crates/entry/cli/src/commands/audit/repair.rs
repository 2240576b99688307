//! `audit repair`: closes a stream that does not verify, or whose database is older than its checkpoints, and begins another.

use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::Output;
use crate::running;
use serde_json::json;
use systemprompt_audit::repair::RepairError;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Why it is accepted that the records do not verify; kept with the closed stream
    #[arg(long, value_name = "REASON")]
    accept: String,
}

pub async fn run(globals: &Globals, out: Output, args: Args) -> Result<Exit, CliError> {
    let what = "nothing was repaired";
    if args.accept.trim().is_empty() || args.accept.len() > 1024 {
        return Err(CliError::new(Exit::Usage, what).why("--accept needs a reason of at most 1024 bytes"));
    }
    let loaded = database::load(globals)?;
    running::refuse(globals, &loaded.paths.location, "stop the server first").await?;
    let _claim = database::claim(&loaded)?;
    let db = database::open(&loaded).await?;
    let done = systemprompt_runtime::checkpoints::repair(&loaded, &db, args.accept.trim()).await;
    db.close().await;
    let done = done.map_err(|error| {
        let exit = match &error {
            RepairError::NoStream => Exit::NotFound,
            RepairError::Intact(_) => Exit::Conflict,
            _ => Exit::Failure,
        };
        CliError::new(exit, what).why(error)
    })?;
    let (closed, successor) = (&done.closed, &done.successor);
    let text = format!(
        "closed {} at seq {}\nthe next start writes {}, whose first record names {}",
        closed.stream, closed.head_seq, successor.stream, closed.head_hash
    );
    let document = json!({
        "closed": {"stream": closed.stream, "head_seq": closed.head_seq, "head_hash": closed.head_hash},
        "successor": successor.stream,
    });
    out.document(&document, &text)?;
    Ok(Exit::Ok)
}
