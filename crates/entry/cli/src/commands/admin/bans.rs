//! `admin bans`: addresses and networks that are refused before anything else is looked at.

use crate::client::{Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::CliError;
use crate::output::{Column, Output, column, note, time};
use crate::paging::Paging;
use serde_json::json;
use std::time::Duration;
use systemprompt_models::span::parse_span;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Bans in force, the oldest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Bans an address or a network
    Add {
        /// 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48
        network: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// How long, such as 1h or 7d [default: until it is removed]
        #[arg(long = "for", value_name = "TIME", value_parser = parse_span)]
        life: Option<Duration>,
        /// Bans even your own address, loopback or a trusted proxy
        #[arg(long)]
        force: bool,
    },
    /// Ends a ban before its time
    Remove {
        id: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const PATH: &str = "/api/v1/admin/bans";
const COLUMNS: &[Column] = &[
    column("id", "/id"),
    column("network", "/network"),
    column("source", "/source"),
    column("reason", "/reason"),
    time("made", "/created_at"),
    time("ends", "/expires_at"),
    column("hits", "/hits"),
    time("last hit", "/last_hit_at"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List { paging } => {
            let page = paging.read(client, "the bans cannot be listed", 200, || Ask::get(PATH)).await?;
            out.list(&page, COLUMNS)?;
            Paging::tell_rest(&page)
        }
        Command::Add { network, reason, life, force } => {
            let body = json!({
                "network": network,
                "reason": reason.unwrap_or_default(),
                "expires_in_s": life.map(|life| life.as_secs()),
                "force": force,
            });
            let what = format!("{network} was not banned");
            out.item(&client.json(&what, Ask::post(PATH, &body)).await?, COLUMNS)
        }
        Command::Remove { id, confirm } => {
            confirm.ask(&format!("end the ban {id}"), &id)?;
            let ask = Ask::delete(&format!("{PATH}/{}", encoded(&id)));
            client.success(&format!("the ban `{id}` was not ended"), ask).await?;
            note(&format!("ended the ban {id}"))
        }
    }
}
