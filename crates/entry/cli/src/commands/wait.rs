//! `wait` and `healthcheck`: whether the server is ready. No output but on failure.

use crate::client::{Ask, Client};
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use serde_json::Value;
use std::time::Duration;
use systemprompt_models::span::parse_span;
use tokio::time::Instant;

/// Longest wait for one answer.
const PROBE: Duration = Duration::from_secs(5);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to wait, such as 30s or 5m
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = parse_span)]
    timeout: Duration,
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let end = Instant::now() + args.timeout;
    loop {
        let Err(error) = probe(globals, PROBE.min(args.timeout)).await else { return Ok(Exit::Ok) };
        if Instant::now() + PAUSE >= end {
            let what = format!("not ready after {} s", args.timeout.as_secs());
            return Err(CliError { what, why: error.why.or(Some(error.what)), ..error });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub async fn healthcheck(globals: &Globals) -> Result<Exit, CliError> {
    probe(globals, PROBE).await.map(|()| Exit::Ok)
}

/// One question. Everything but ready is 8, a server that does not exist included.
async fn probe(globals: &Globals, timeout: Duration) -> Result<(), CliError> {
    let not_ready = |error: CliError| CliError { exit: Exit::Unreachable, ..error };
    let client = Client::connect(globals).map_err(not_ready)?;
    let answer = client.send(Ask::get("/health/ready").timeout(timeout)).await.map_err(not_ready)?;
    if answer.is_success() {
        return Ok(());
    }
    let body = answer.json();
    let failed = body.get("checks").and_then(Value::as_array).into_iter().flatten();
    let mut codes: Vec<&str> =
        failed.filter_map(|check| check.get("code")?.as_str()).filter(|code| *code != "ok").collect();
    codes
        .extend(body.get("code").or(body.get("status")).and_then(Value::as_str).filter(|_| codes.is_empty()));
    Err(CliError::new(Exit::Unreachable, format!("the server at {} is not ready", client.url()))
        .why(codes.join(", "))
        .fix("`systemprompt doctor` looks for the cause"))
}
