//! `doctor`: one line per check, with the cause and what mends it; 1 when one fails (PL-79). It reads and changes nothing.

mod files;
mod host;
mod identity;
mod server;
mod store;

use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, note, rows};
use serde::Serialize;
use serde_json::json;
use systemprompt_config::profile::governance::AuthzHookMode;
use systemprompt_config::{Diagnostic, Loaded, ProfileLocation};
use systemprompt_leak::Scanner;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    Pass,
    Warn,
    Fail,
    /// Another failure keeps it from being made.
    Skip,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    #[serde(rename = "check")]
    pub name: &'static str,
    pub state: State,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, detail: impl ToString) -> Self {
        Self { name, state, detail: detail.to_string(), fix: None }
    }

    pub fn pass(check: &'static str, detail: impl ToString) -> Self {
        Self::new(check, State::Pass, detail)
    }

    pub fn warn(check: &'static str, detail: impl ToString, fix: impl ToString) -> Self {
        Self { fix: Some(fix.to_string()), ..Self::new(check, State::Warn, detail) }
    }

    pub fn fail(check: &'static str, detail: impl ToString, fix: impl ToString) -> Self {
        Self { fix: Some(fix.to_string()), ..Self::new(check, State::Fail, detail) }
    }

    pub fn skip(check: &'static str, detail: impl ToString) -> Self {
        Self::new(check, State::Skip, detail)
    }

    /// A pass, or what is wrong with which fix.
    pub fn of(check: &'static str, detail: impl ToString, wrong: Option<(State, String)>) -> Self {
        match wrong {
            None => Self::pass(check, detail),
            Some((state, fix)) => Self { fix: Some(fix), ..Self::new(check, state, detail) },
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// As `--output json`
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// The rules of OAuth security that can be tried on a running server (`--url` for another than the profile's), changing nothing
    Identity,
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    if let Some(Part::Identity) = args.part {
        return identity::run(globals, args.json).await;
    }
    let location = globals.location()?;
    let mut checks = Vec::new();
    let loaded = configuration(&location, &mut checks)?;
    files::check(&location, loaded.as_ref(), &mut checks);
    if let Some(loaded) = &loaded {
        store::check(loaded, &mut checks).await;
        server::check(globals, loaded, &mut checks).await;
        host::check(loaded, &mut checks);
        modes(loaded, &mut checks);
    } else {
        let names = [
            "database",
            "durability",
            "schema",
            "ledger",
            "witnesses",
            "sinks",
            "clock",
            "server",
            "disk",
            "descriptors",
            "modes",
        ];
        checks.extend(names.map(|name| Check::skip(name, "the configuration is not valid")));
    }
    report(Output::new(globals).as_json(args.json), &checks)
}

fn report(out: Output, checks: &[Check]) -> Result<Exit, CliError> {
    let failed = checks.iter().filter(|check| check.state == State::Fail).count();
    let lines = checks.iter().map(|check| {
        let fix = check.fix.as_ref().map_or_else(String::new, |fix| format!("; fix: {fix}"));
        vec![
            word(check.state),
            check.name.to_owned(),
            crate::output::plain(&format!("{}{fix}", check.detail)),
        ]
    });
    out.document(&json!({"ok": failed == 0, "checks": checks}), &rows(lines))?;
    if failed == 0 {
        return Ok(Exit::Ok);
    }
    note(&format!("{failed} of {} checks failed", checks.len()))?;
    Ok(Exit::Failure)
}

fn word(state: State) -> String {
    match state {
        State::Pass => "PASS",
        State::Warn => "WARN",
        State::Fail => "FAIL",
        State::Skip => "SKIP",
    }
    .to_owned()
}

/// Profile, services and secrets, by the engine of start and reload.
fn configuration(location: &ProfileLocation, checks: &mut Vec<Check>) -> Result<Option<Loaded>, CliError> {
    Ok(match database::check(location.clone())? {
        Ok(loaded) => {
            let settings = format!("profile {}, configuration {:.12}", loaded.profile.name, loaded.hash);
            checks.push(Check::pass("configuration", settings));
            checks.extend(loaded.warnings.iter().map(finding));
            secrets(&loaded, checks);
            Some(loaded)
        }
        Err(findings) => {
            checks.extend(findings.iter().map(finding));
            None
        }
    })
}

/// What the leak scanner cannot guard would pass through answers unseen.
fn secrets(loaded: &Loaded, checks: &mut Vec<Check>) {
    let scanner = Scanner::new();
    let (mut names, before) = (0, checks.len());
    for (name, value) in loaded.secrets.values_in_use() {
        names += 1;
        if let Err(error) = scanner.hold(name, value) {
            let fix = format!("set a longer one with `systemprompt admin secrets set {name}`");
            checks.push(Check::warn("secrets", format!("{error}; no tool server gets it"), fix));
        }
    }
    if checks.len() == before {
        checks.push(Check::pass("secrets", format!("{names} set, none too short to guard")));
    }
}

fn finding(finding: &Diagnostic) -> Check {
    let name = if finding.code.contains("secret") { "secrets" } else { "configuration" };
    let fix = finding.remedy.clone().unwrap_or_else(|| "`systemprompt validate` shows the place".to_owned());
    let mut bare = finding.clone();
    bare.remedy = None;
    if finding.is_error() { Check::fail(name, bare, fix) } else { Check::warn(name, bare, fix) }
}

/// Modes that nobody should be in without knowing.
fn modes(loaded: &Loaded, checks: &mut Vec<Check>) {
    let profile = &loaded.profile;
    let mode = profile.governance.authz.hook.as_ref().map(|hook| hook.mode);
    let found = [
        (
            mode.is_none(),
            "no decision hook is set: everything is denied",
            "set governance.authz.hook.mode to rules",
        ),
        (
            mode == Some(AuthzHookMode::Disabled),
            "everything is denied",
            "set governance.authz.hook.mode to rules",
        ),
        (
            mode == Some(AuthzHookMode::Unrestricted),
            "everyone may use everything",
            "set governance.authz.hook.mode to rules",
        ),
        (
            !profile.governance.pipeline.enabled || !loaded.services.governance.enabled,
            "calls are recorded and not examined",
            "enable the governance pipeline",
        ),
        (profile.rate_limits.disabled, "HTTP limits are off", "set rate_limits.disabled to false"),
        (
            !profile.security.scanner.enabled,
            "probes are answered like any other request",
            "set security.scanner.enabled to true",
        ),
        (
            !profile.server.host.is_loopback() && !profile.api_external_url().starts_with("https:"),
            "a public address without TLS in the external URL",
            "set server.api_external_url to the https address of the proxy in front",
        ),
        (
            loaded.secrets.get(systemprompt_runtime::demo::DEMO_SECRET).is_some(),
            "this is a demo: its tokens were printed",
            "use a data folder without `up --demo` for real work",
        ),
    ];
    let before = checks.len();
    checks.extend(
        found.into_iter().filter(|(is, ..)| *is).map(|(_, detail, fix)| Check::warn("modes", detail, fix)),
    );
    if checks.len() == before {
        checks.push(Check::pass("modes", "no insecure mode is on"));
    }
}
