//! `admin`: users, clients, rules, entities, departments, keys, tokens, API keys, bans and secrets.

mod allowlist;
mod api_keys;
mod bans;
mod clients;
mod departments;
mod entities;
mod keys;
mod rules;
mod secrets;
mod setup_link;
mod token;
pub mod users;

use crate::client::Client;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::Output;
use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Works on the database directly; for when no server runs
    #[arg(long, global = true)]
    offline: bool,
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// People and services that act
    #[command(subcommand)]
    Users(users::Command),
    /// Programs that act for users or for themselves
    #[command(subcommand)]
    Clients(clients::Command),
    /// Who may use what
    #[command(subcommand)]
    Rules(rules::Command),
    /// What rules may speak of
    #[command(subcommand)]
    Entities(entities::Command),
    /// Departments that rules may name
    #[command(subcommand)]
    Departments(departments::Command),
    /// Keys that sign tokens
    #[command(subcommand)]
    Keys(keys::Command),
    /// Short-lived tokens
    #[command(subcommand)]
    Token(token::Command),
    /// A one-time link under which somebody sets up a passkey
    SetupLink(setup_link::Args),
    /// Long-lived keys of users
    #[command(subcommand)]
    ApiKeys(api_keys::Command),
    /// Addresses and networks that are refused
    #[command(subcommand)]
    Bans(bans::Command),
    /// Findings of the governance scan that are let pass
    #[command(subcommand)]
    Allowlist(allowlist::Command),
    /// The secrets file: names, never values
    #[command(subcommand)]
    Secrets(secrets::Command),
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let out = Output::new(globals);
    let subject = match args.subject {
        Subject::Secrets(command) => return secrets::run(globals, out, command),
        subject => subject,
    };
    Client::with(globals, args.offline, async |client| match subject {
        Subject::Users(command) => users::run(client, out, command).await,
        Subject::Clients(command) => clients::run(client, out, command).await,
        Subject::Rules(command) => rules::run(client, out, command).await,
        Subject::Entities(command) => entities::run(client, out, command).await,
        Subject::Departments(command) => departments::run(client, out, command).await,
        Subject::Keys(command) => keys::run(client, out, command).await,
        Subject::Token(command) => token::run(client, out, command).await,
        Subject::SetupLink(args) => setup_link::run(client, out, args).await,
        Subject::ApiKeys(command) => api_keys::run(client, out, command).await,
        Subject::Bans(command) => bans::run(client, out, command).await,
        Subject::Allowlist(command) => allowlist::run(client, out, command).await,
        Subject::Secrets(_) => Ok(()),
    })
    .await?;
    Ok(Exit::Ok)
}
