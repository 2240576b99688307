//! `accept edge`: stock programs and a browser from outside (cases 10 and 11), Claude Code with its HTTP hooks on a mock model
//! (case 22), and the tiers of the rate limits under wrk (case 14).

mod outside;

use super::main_job::{Aimock, UPSTREAM_KEY};
use super::{Tally, clients};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use systemprompt_tests::{Options, Server};
use xtask::packages;
use xtask::process::{cargo, find, is_installed, output, run, target};

/// The version that the hooks are tried with.
const CLAUDE_CODE: &str = "@anthropic-ai/claude-code@2.1.197";
/// Requests a second that a user may make while wrk asks for more, and for how long it does, in seconds.
const LIMIT: u64 = 20;
const SECONDS: u64 = 20;
/// How far an admitted rate may be from what its tier says, in percent.
const TOLERANCE: u64 = 5;

pub(super) fn edge() -> Result<Tally> {
    run(&mut cargo(["build", "--package", "systemprompt-cli"]))?;
    let mut tally = Tally::default();
    outside::programs(&mut tally)?;
    outside::browser(&mut tally)?;
    claude_code(&mut tally)?;
    tiers(&mut tally)?;
    Ok(tally)
}

fn step(tally: &mut Tally, what: &str, is_so: bool) {
    println!("{}{what}", if is_so { "ok    " } else { "FAIL  " });
    tally.count(is_so);
}

fn demo() -> Options {
    Options::demo_with(target().join("debug/systemprompt"))
}

/// Case 22: a tool that the hook allows runs, one that it denies does not, and rows, ledger and answers agree.
fn claude_code(tally: &mut Tally) -> Result<()> {
    let node = clients::node()?;
    let aimock = clients::npm(&node, "@copilotkit/aimock", "dist/cli.js")?;
    let Ok(claude) = clients::npm(&node, CLAUDE_CODE, "cli-wrapper.cjs") else {
        println!("skip  claude code: {CLAUDE_CODE} cannot be installed here");
        return Ok(());
    };
    // Put together here, so that no file holds it.
    let leaked = ["ghp_", "0123456789abcdefABCDEF0123456789abcd"].concat();
    let home = tempfile::tempdir()?;
    let project = home.path().join("project");
    std::fs::create_dir_all(project.join(".claude"))?;
    let fixtures = home.path().join("fixtures.json");
    let call = |command: String| json!({"toolCalls": [{"name": "Bash", "arguments": json!({"command": command}).to_string()}]});
    let answers = json!({"fixtures": [
        {"match": {"userMessage": "make the file", "hasToolResult": false}, "response": call("touch allowed".into())},
        {"match": {"userMessage": "tell the key", "hasToolResult": false},
         "response": call(format!("touch denied # {leaked}"))},
        {"match": {"hasToolResult": true}, "response": {"content": "done"}},
    ]});
    std::fs::write(&fixtures, answers.to_string())?;
    let model = Aimock::start(&node, &aimock, &fixtures, false)?;
    let server = demo().start()?;
    std::fs::write(project.join(".claude/settings.json"), settings(&server).to_string())?;
    for prompt in ["make the file", "tell the key"] {
        let ended = Command::new(&node)
            .arg(&claude)
            .args(["-p", prompt, "--model", "claude-sonnet-4-5", "--output-format", "json"])
            .current_dir(&project)
            .env("HOME", home.path())
            .env("ANTHROPIC_BASE_URL", model.url())
            .env("ANTHROPIC_API_KEY", UPSTREAM_KEY)
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .stdin(Stdio::null())
            .output()
            .context("Claude Code could not be started")?;
        step(tally, &format!("claude code ends well on \"{prompt}\""), ended.status.success());
    }
    step(tally, "the tool that the hook allowed has run", project.join("allowed").exists());
    step(tally, "the tool that the hook denied has not run", !project.join("denied").exists());
    let found = server.succeed(&["audit", "query", "--kind", "governance.decision", "--output", "json"])?;
    let tools = |outcome: &str| {
        let records: Value = serde_json::from_str(&found).unwrap_or_default();
        let items = records.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        items
            .iter()
            .filter(|item| item.to_string().contains("\"Bash\"") && item.to_string().contains(outcome))
            .count()
    };
    step(
        tally,
        "the ledger has one allowed and one denied tool",
        tools("\"allow\"") == 1 && tools("\"deny\"") == 1,
    );
    step(tally, "the key is in no record", !found.contains(&leaked));
    Ok(())
}

/// Hooks before a prompt and a tool ask, those after a tool tell.
fn settings(server: &Server) -> Value {
    let hook = |path: &str| {
        json!([{"matcher": "*", "hooks": [{
            "type": "http",
            "url": format!("{}{path}?plugin_id=demo", server.url()),
            "headers": {"Authorization": format!("Bearer {}", server.user_token())},
            "timeout": 10,
        }]}])
    };
    json!({"hooks": {
        "UserPromptSubmit": hook("/api/v1/hooks/govern"),
        "PreToolUse": hook("/api/v1/hooks/govern"),
        "PostToolUse": hook("/api/v1/hooks/track"),
    }})
}

/// Case 14: what is admitted of a flood is what the tier says: user once, admin ten times the group's limit. Nobody's address may
/// flood (the throttle comes first), so the anonymous tier is told by its burst: half of a user's.
fn tiers(tally: &mut Tally) -> Result<()> {
    packages::ensure("wrk", || is_installed("wrk"))?;
    let server = demo()
        .env("SYSTEMPROMPT__RATE_LIMITS__GATEWAY_PER_SECOND", &LIMIT.to_string())
        .env("SYSTEMPROMPT__RATE_LIMITS__WELLKNOWN_PER_SECOND", &LIMIT.to_string())
        .start()?;
    for (tier, token, limit) in
        [("user", server.user_token(), LIMIT), ("admin", server.admin_token(), 10 * LIMIT)]
    {
        let admitted = flood(&server, token)?;
        // The burst of three seconds comes on top, once.
        let wanted = limit * SECONDS + 3 * limit;
        let is_near = admitted.abs_diff(wanted) * 100 <= wanted * TOLERANCE;
        step(tally, &format!("{tier}: {admitted} of a flood are admitted, {wanted} by its tier"), is_near);
    }
    let burst = |headers: &str| -> Option<u64> {
        let policy = headers.lines().find_map(|line| line.strip_prefix("ratelimit-policy: "))?;
        policy.split(";q=").nth(1)?.split(';').next()?.parse().ok()
    };
    let curl = |path: &str, token: Option<&str>| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-D", "-", "-o", "/dev/null"]).arg(format!("{}{path}", server.url()));
        if let Some(token) = token {
            curl.arg("-H").arg(format!("Authorization: Bearer {token}"));
        }
        output(&mut curl)
    };
    packages::ensure("curl", || is_installed("curl"))?;
    let user = burst(&curl("/v1/models", Some(server.user_token()))?);
    step(tally, "a user's burst is three seconds of the limit", user == Some(3 * LIMIT));
    let anonymous = burst(&flooded(&server, "/.well-known/jwks.json")?);
    step(tally, "an anonymous caller's burst is half of that", anonymous == Some(3 * LIMIT / 2));
    Ok(())
}

/// How many requests of a flood are answered with 200.
fn flood(server: &Server, token: &str) -> Result<u64> {
    let wrk = find("wrk").context("wrk")?;
    let said = output(
        Command::new(wrk)
            .args(["-t1", "-c4", &format!("-d{SECONDS}s"), "-H", &format!("Authorization: Bearer {token}")])
            .arg(format!("{}/v1/models", server.url())),
    )?;
    let number = |from: &str| -> Option<u64> {
        let rest = said.split(from).nth(1)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let all: u64 = said
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .with_context(|| format!("wrk says nothing of requests:\n{said}"))?;
    let refused = number("Non-2xx or 3xx responses:").unwrap_or_default();
    ensure!(refused < all, "nothing was admitted:\n{said}");
    Ok(all - refused)
}

/// The head of an answer on a public route after so many that its limit refuses.
fn flooded(server: &Server, path: &str) -> Result<String> {
    let url = format!("{}{path}", server.url());
    for _ in 0..1000 {
        let head = output(Command::new("curl").args(["-s", "-D", "-", "-o", "/dev/null"]).arg(&url))?;
        if head.contains(" 429 ") {
            return Ok(head);
        }
    }
    anyhow::bail!("{path} has no limit")
}
