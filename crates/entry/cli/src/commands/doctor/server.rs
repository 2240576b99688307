//! The server of the profile: running and well, or a port that it can have.

use super::{Check, State};
use crate::client::{Ask, Client};
use crate::globals::Globals;
use crate::running;
use serde_json::Value;
use std::net::TcpListener;
use systemprompt_config::Loaded;

const CHECK: &str = "server";
/// From this age of its list of bans on a node is not ready.
const MAX_BAN_LIST_AGE_MS: i64 = 60_000;

pub(super) async fn check(globals: &Globals, loaded: &Loaded, checks: &mut Vec<Check>) {
    match running::running(globals, &loaded.paths.location).await {
        Some(url) => health(globals, &url, checks).await,
        None => checks.push(port(loaded)),
    }
}

async fn health(globals: &Globals, url: &str, checks: &mut Vec<Check>) {
    let detail = format!("it answers at {url}");
    let Ok(client) = Client::connect(globals) else { return checks.push(Check::pass(CHECK, detail)) };
    let answer = match client.send(Ask::get("/api/v1/health/detail")).await {
        Ok(answer) if answer.is_success() => answer.json(),
        Ok(answer) => {
            let refusal = answer.refusal("its health cannot be read");
            let why = refusal.why.map_or_else(String::new, |why| format!(": {why}"));
            let fix = refusal.fix.unwrap_or_else(|| "start it again".to_owned());
            return checks.push(Check::warn(CHECK, format!("{detail}; {}{why}", refusal.what), fix));
        }
        Err(error) => return checks.push(Check::warn(CHECK, error.what, error.fix.unwrap_or_default())),
    };
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
    let list = |name: &str| answer.get(name).and_then(Value::as_array).into_iter().flatten();
    let failed = list("checks").filter_map(|check| check.get("code")?.as_str()).filter(|code| *code != "ok");
    let codes: Vec<&str> = failed.chain(list("degraded").filter_map(Value::as_str)).collect();
    let status = text("/status").unwrap_or_default();
    let wrong = match status {
        "ok" => None,
        "degraded" => Some((State::Warn, "mend what the other lines name".to_owned())),
        _ => Some((State::Fail, "read its log".to_owned())),
    };
    checks.push(Check::of(CHECK, format!("{detail}, status {status} {}", codes.join(", ")).trim(), wrong));
    if let Some(bans) = answer.get("bans") {
        let number = |name: &str| bans.get(name).and_then(Value::as_i64).unwrap_or_default();
        let (count, age) = (number("count"), number("age_ms"));
        let wrong = (age > MAX_BAN_LIST_AGE_MS).then(|| (State::Fail, "look at the database".to_owned()));
        checks.push(Check::of("bans", format!("{count} networks are banned, confirmed {age} ms ago"), wrong));
    }
    if let Some(refused) = text("/config/last_error") {
        let detail = format!("the last reload was refused: {refused}");
        checks.push(Check::fail(CHECK, detail, "`systemprompt validate` shows the place"));
    }
}

fn port(loaded: &Loaded) -> Check {
    let config = &loaded.profile.server;
    let address = format!("{}:{}", config.host, config.port);
    match TcpListener::bind((config.host, config.port)) {
        Ok(_) => Check::pass(CHECK, format!("not running; {address} is free")),
        Err(error) => {
            let fix = "end the program that has it, or set server.port";
            Check::fail(CHECK, format!("not running, and {address} cannot be bound: {error}"), fix)
        }
    }
}
