//! `audit proof`: the proof of one entry, as JSON.

use crate::client::{Ask, Client, encoded};
use crate::exit::{CliError, Exit};
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id of the entry, as `audit query` shows it
    #[arg(value_name = "ID")]
    id: String,
}

pub async fn run(client: &Client, out: Output, args: Args) -> Result<Exit, CliError> {
    let ask = Ask::get(&format!("/api/v1/admin/audit/{}/proof", encoded(&args.id)));
    let proof = client.json("there is no proof", ask).await?;
    let text = serde_json::to_string_pretty(&proof).unwrap_or_default();
    out.document(&proof, &text)?;
    Ok(Exit::Ok)
}
