//! `admin allowlist`: findings of the governance scan that somebody answers for.

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
    /// Entries in force, the oldest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Lets findings of a rule pass; narrow it by --hmac, --tool, --pointer or --for
    Add {
        /// The rule, as findings name it
        rule: String,
        /// The `hmac` of a finding: only that value passes
        #[arg(long, value_name = "HEX")]
        hmac: Option<String>,
        /// Tools; `*` stands for any text
        #[arg(long, value_name = "PATTERN")]
        tool: Option<String>,
        /// JSON pointers; `*` stands for any text
        #[arg(long, value_name = "PATTERN")]
        pointer: Option<String>,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Who answers for it
        #[arg(long, value_name = "NAME")]
        owner: String,
        /// How long, such as 1h or 7d [default: until it is removed]
        #[arg(long = "for", value_name = "TIME", value_parser = parse_span)]
        life: Option<Duration>,
    },
    /// Ends an entry
    Remove {
        id: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const PATH: &str = "/api/v1/admin/allowlist";
const COLUMNS: &[Column] = &[
    column("id", "/id"),
    column("rule", "/rule_id"),
    column("hmac", "/hmac"),
    column("tool", "/tool"),
    column("pointer", "/pointer"),
    column("owner", "/owner"),
    column("reason", "/reason"),
    time("made", "/created_at"),
    time("ends", "/expires_at"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List { paging } => {
            let page = paging.read(client, "the allow list cannot be read", 200, || Ask::get(PATH)).await?;
            out.list(&page, COLUMNS)?;
            Paging::tell_rest(&page)
        }
        Command::Add { rule, hmac, tool, pointer, reason, owner, life } => {
            let body = json!({
                "rule_id": rule,
                "hmac": hmac,
                "tool": tool,
                "pointer": pointer,
                "reason": reason,
                "owner": owner,
                "expires_in_s": life.map(|life| life.as_secs()),
            });
            let what = format!("findings of {rule} were not allowed");
            out.item(&client.json(&what, Ask::post(PATH, &body)).await?, COLUMNS)
        }
        Command::Remove { id, confirm } => {
            confirm.ask(&format!("end the entry {id}"), &id)?;
            let ask = Ask::delete(&format!("{PATH}/{}", encoded(&id)));
            client.success(&format!("the entry `{id}` was not ended"), ask).await?;
            note(&format!("ended the entry {id}"))
        }
    }
}
