//! `admin token`: session tokens of users, and the end of tokens before their time. An issued token alone goes to standard output,
//! so that a script can take it; a token that is looked at or ended comes from standard input, never as an argument.

use crate::client::{Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::{CliError, Exit};
use crate::output::{Column, Output, column, note, time};
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;
use systemprompt_models::span::parse_span;
use systemprompt_security::jwt::UnverifiedClaims;

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
    /// Ends a token that is read from standard input, or what is named
    Revoke {
        #[command(flatten)]
        what: What,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Whose tokens were ended up to which second
    Cutoffs,
    /// The newest sessions of a user
    Sessions {
        /// Id or name
        user: String,
    },
    /// Shows what a token from standard input says, without verifying anything
    Inspect,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct What {
    /// Ends the token with this id
    #[arg(long, value_name = "JTI")]
    jti: Option<String>,
    /// Ends a session with every token of it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Ends every session and token of a user, and API keys, consents, recovery codes and open links (id or name)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Ends every token that was issued to a client up to now
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// Ends every token that was issued to anybody up to now, your own too
    #[arg(long)]
    all: bool,
}

const PATH: &str = "/api/v1/admin/tokens";
/// Most bytes that are read of a token; the longest one has 8192.
const MAX_TOKEN: u64 = 64 * 1024;
const REVOCATION: &[Column] = &[
    column("revoked", "/revoked"),
    column("id", "/id"),
    column("was live", "/was_live"),
    time("issued up to", "/not_before"),
    time("kept until", "/expires_at"),
    column("sessions ended", "/sessions_ended"),
];
const CUTOFFS: &[Column] = &[
    column("kind", "/kind"),
    column("id", "/id"),
    time("issued up to", "/not_before"),
    column("reason", "/reason"),
    time("kept until", "/expires_at"),
];
const SESSIONS: &[Column] = &[
    column("id", "/id"),
    column("source", "/source"),
    time("begun", "/created_at"),
    time("last seen", "/last_seen_at"),
    time("ends", "/expires_at"),
    time("ended", "/revoked_at"),
    column("why", "/revoked_reason"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::Issue { user, scope, ttl } => issue(client, out, &user, scope.as_deref(), ttl).await,
        Command::Revoke { what, reason, confirm } => revoke(client, out, what, &reason, confirm).await,
        Command::Cutoffs => {
            let ask = Ask::get(&format!("{PATH}/cutoffs"));
            out.list(&client.json("the cutoffs cannot be listed", ask).await?, CUTOFFS)
        }
        Command::Sessions { user } => {
            let ask = Ask::get("/api/v1/admin/sessions").query("user", Some(&user));
            out.list(
                &client.json(&format!("the sessions of `{user}` cannot be listed"), ask).await?,
                SESSIONS,
            )
        }
        Command::Inspect => inspect(out),
    }
}

async fn issue(
    client: &Client,
    out: Output,
    user: &str,
    scope: Option<&str>,
    ttl: Duration,
) -> Result<(), CliError> {
    let body = json!({"user": user, "scope": scope, "ttl_s": ttl.as_secs()});
    let ask = Ask::post(PATH, &body);
    let issued = client.json(&format!("no token was issued for `{user}`"), ask).await?;
    out.document(&issued, issued.get("token").and_then(Value::as_str).unwrap_or_default())?;
    if out.is_text() {
        note(&format!("it counts for {} s and is shown only here", ttl.as_secs()))
    } else {
        Ok(())
    }
}

async fn revoke(
    client: &Client,
    out: Output,
    what: What,
    reason: &str,
    confirm: Confirm,
) -> Result<(), CliError> {
    let body = match what {
        What { session: Some(id), .. } => {
            let ask = Ask::delete(&format!("/api/v1/admin/sessions/{}", encoded(&id)));
            client.success(&format!("the session `{id}` was not ended"), ask).await?;
            return note(&format!("ended the session {id}"));
        }
        What { jti: Some(jti), .. } => json!({"jti": jti}),
        What { user: Some(user), .. } => {
            confirm.ask(&format!("end every session and token of {user}"), &user)?;
            json!({"user": user, "reason": reason})
        }
        What { client: Some(id), .. } => {
            confirm.ask(&format!("end every token of the client {id}"), &id)?;
            json!({"client": id, "reason": reason})
        }
        What { all: true, .. } => {
            confirm.ask("end everybody's tokens, your own too", "all")?;
            json!({"all": true, "reason": reason})
        }
        _ => json!({"token": token()?}),
    };
    let ask = Ask::post(&format!("{PATH}/revoke"), &body);
    let done = client.json("nothing was revoked", ask).await?;
    out.item(&done, REVOCATION)?;
    if out.is_text() && done.get("was_live").is_some_and(Value::is_null) {
        note(
            "nothing live is known under this id: tokens are not stored. One that bears it is refused from now on",
        )?;
    }
    Ok(())
}

fn inspect(out: Output) -> Result<(), CliError> {
    let claims = UnverifiedClaims::decode(&token()?)
        .map_err(|error| CliError::new(Exit::Usage, "this is no token").why(error))?;
    let claims = Value::Object(claims.members().clone());
    let text = format!("{claims:#}");
    out.document(&claims, &text)?;
    note("nothing of this was verified: whoever made the token may have written anything into it")
}

/// The token on standard input.
fn token() -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin().take(MAX_TOKEN).read_to_string(&mut text)?;
    let token = text.trim();
    if token.is_empty() {
        let missing = CliError::new(Exit::Usage, "no token was given");
        return Err(missing.fix("send it to standard input, or name a token, session, user or client"));
    }
    Ok(token.to_owned())
}
