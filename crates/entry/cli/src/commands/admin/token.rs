//! `admin token issue`: a session token of a user. The token alone goes to standard output, so that a script can take it.

use crate::client::{Ask, Client};
use crate::exit::CliError;
use crate::output::{Output, note};
use crate::span::parse_span;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Issues a token for the command line of a user
    Issue {
        /// Id or name
        user: String,
        /// Space-separated permissions [default: all that the user has]
        #[arg(long)]
        scope: Option<String>,
        /// How long it counts, such as 90s, 15m or 8h; at most 24h
        #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_span)]
        ttl: Duration,
    },
}

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    let Command::Issue { user, scope, ttl } = command;
    let body = json!({"user": user, "scope": scope, "ttl_s": ttl.as_secs()});
    let ask = Ask::post("/api/v1/admin/tokens", &body);
    let issued = client.json(&format!("no token was issued for `{user}`"), ask).await?;
    out.document(&issued, issued.get("token").and_then(Value::as_str).unwrap_or_default())?;
    if out.is_text() {
        note(&format!("it counts for {} s and is shown only here", ttl.as_secs()))
    } else {
        Ok(())
    }
}
