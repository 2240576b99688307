//! `audit checkpoint`: the newest signed note of each stream, byte for byte, by the server or from the database.

use crate::client::{Ask, Client, encoded};
use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, line, note};
use serde_json::{Value, json};
use systemprompt_audit::LedgerReader;
use systemprompt_audit::proof::ProofError;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this stream
    #[arg(long)]
    stream: Option<String>,
}

const WHAT: &str = "the checkpoints cannot be read";
const STREAMS: &str = "/api/v1/admin/audit/streams";

pub async fn run(globals: &Globals, out: Output, offline: bool, args: Args) -> Result<Exit, CliError> {
    let answered = if offline { None } else { Some(by_server(globals, &args).await) };
    let found = match answered {
        None => on_database(globals, &args).await?,
        Some(Err(error)) if error.exit == Exit::Unreachable && globals.url.is_none() => {
            note("no server answers")?;
            on_database(globals, &args).await?
        }
        Some(found) => found?,
    };
    if found.is_empty() {
        return Err(CliError::new(Exit::NotFound, "there is no such stream, or no checkpoint of it yet")
            .fix(
                "one is made a few seconds after the first record; `audit checkpoint` without --stream shows the streams that \
                 have one, `audit query --output json` names the stream of each record",
            ));
    }
    if out.is_text() {
        // As a file of notes: an empty line between two.
        let notes: Vec<&str> = found.iter().map(|(_, note)| note.as_str()).collect();
        line(notes.join("\n").trim_end_matches('\n'))?;
    } else {
        let items: Vec<Value> =
            found.iter().map(|(stream, note)| json!({"stream": stream, "note": note})).collect();
        out.list(&json!({"items": items, "next": null}), &[])?;
    }
    Ok(Exit::Ok)
}

async fn by_server(globals: &Globals, args: &Args) -> Result<Vec<(String, String)>, CliError> {
    let client = Client::connect(globals)?;
    let names = if let Some(stream) = &args.stream {
        vec![stream.clone()]
    } else {
        let page = client.json(WHAT, Ask::get(STREAMS)).await?;
        let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        items.iter().filter_map(|s| s.get("stream")?.as_str().map(str::to_owned)).collect()
    };
    let mut found = Vec::new();
    for name in names {
        let answer = client.send(Ask::get(&format!("{STREAMS}/{}/checkpoint", encoded(&name)))).await?;
        if answer.status != 404 {
            if !answer.is_success() {
                return Err(answer.refusal(WHAT));
            }
            found.push((name, answer.text()));
        }
    }
    Ok(found)
}

async fn on_database(globals: &Globals, args: &Args) -> Result<Vec<(String, String)>, CliError> {
    let loaded = database::load(globals)?;
    let db = database::open(&loaded).await?;
    let found = read(&LedgerReader::new(db.clone()), args).await;
    db.close().await;
    found.map_err(|error| CliError::new(Exit::Failure, WHAT).why(error))
}

async fn read(reader: &LedgerReader, args: &Args) -> Result<Vec<(String, String)>, ProofError> {
    let mut found = Vec::new();
    for stream in reader.streams().await? {
        if args.stream.as_ref().is_some_and(|name| *name != stream.stream) {
            continue;
        }
        match reader.checkpoint(&stream.stream).await {
            Ok(row) => found.push((stream.stream, row.note)),
            Err(ProofError::NotYet) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
