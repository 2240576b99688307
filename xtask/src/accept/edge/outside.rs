//! Programs and a browser that do not sit on loopback: who shows a token is never judged by agent or speed (case 10), and a browser of
//! today gets the pages that scanners and old browsers do not (case 11). The run itself is the server's trusted proxy and says for
//! whom it asks.

use super::{demo, step};
use crate::accept::{Tally, clients};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use systemprompt_tests::{Options, Server};
use xtask::packages;
use xtask::process::{find, is_installed, output, root};

/// The client's address, one of those that documents may use.
const ADDRESS: &str = "203.0.113.10";
/// Calls of each path in a row: more than the speed rule lets a browser make within a minute.
const CALLS: usize = 40;
/// How long a browser may take with a page.
const PATIENCE: Duration = Duration::from_secs(40);

/// Takes what comes over loopback for what its proxy sends, as behind one.
fn behind_proxy() -> Options {
    demo().env("SYSTEMPROMPT__SERVER__TRUSTED_PROXIES", "127.0.0.1/32").without_limits()
}

/// Case 10.
pub(super) fn programs(tally: &mut Tally) -> Result<()> {
    let python = clients::python("sdks", "anthropic==2.12.0 openai==3.54.0")?;
    packages::ensure("curl", || is_installed("curl"))?;
    let server = behind_proxy().start()?;
    let given = json!({"url": server.url(), "user_token": server.user_token()});
    tally.script(&python, "programs.py", &given)?;

    let admin = server.admin_token();
    let ask =
        json!({"model": "claude-demo", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]});
    let version = output(Command::new("curl").arg("--version"))?;
    let name = version.split(" (").next().unwrap_or("curl");
    for (path, body) in [
        ("/api/v1/admin/users", None),
        ("/health", None),
        ("/.well-known/jwks.json", None),
        ("/v1/messages", Some(ask.to_string())),
    ] {
        let mut curl = curl();
        curl.args(["-H", &format!("Authorization: Bearer {admin}")]);
        if let Some(body) = body {
            curl.args(["-H", "Content-Type: application/json", "--data", &body]);
        }
        for _ in 0..CALLS {
            curl.args(["-o", "/dev/null"]).arg(format!("{}{path}", server.url()));
        }
        let said = output(&mut curl)?;
        let fine = said.lines().filter(|line| line.trim() == "200").count();
        step(
            tally,
            &format!("{name}: {fine} of {CALLS} calls of {path} in a row are answered"),
            fine == CALLS,
        );
    }
    step(tally, "no call was taken for a scanner's", scanners(&server)? == 0);
    Ok(())
}

/// Writes the status and the blocked reason of each answer.
fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-w", "%{http_code} %header{x-blocked-reason}\\n", "-H"]);
    curl.arg(format!("X-Forwarded-For: {ADDRESS}"));
    curl
}

/// Requests that the server counts as refused for what scanners do.
fn scanners(server: &Server) -> Result<u64> {
    let metrics = output(Command::new("curl").args(["-s", "-f"]).arg(format!("{}/metrics", server.url())))?;
    ensure!(metrics.contains("systemprompt_"), "no metrics");
    let refused = metrics.lines().filter(|line| line.contains("edge_refusals_total{reason=\"scanner-"));
    Ok(refused.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

/// Case 11, as far as there are pages: what is no page yet is the page that says so.
pub(super) fn browser(tally: &mut Tally) -> Result<()> {
    packages::ensure("chromium", || is_installed("chromium"))?;
    let chromium = find("chromium").context("chromium")?;
    let server = behind_proxy().start()?;
    let mut bare = curl();
    let said = output(bare.args(["-o", "/dev/null"]).arg(format!("{}/", server.url())))?;
    step(tally, &format!("curl gets no page from outside: {said}"), said == "403 scanner-agent");

    let home = tempfile::tempdir()?;
    let log = home.path().join("answers");
    let proxy = Proxy::start(server.url(), &log)?;
    for (path, text) in [
        // Nothing is there yet, and a page says so.
        ("/", "<h1>405 "),
        ("/docs/start", "<h1>404 "),
        ("/api/v1/openapi.json", "openapi"),
        ("/health", "status"),
        ("/.well-known/jwks.json", "keys"),
    ] {
        let page = load(&chromium, home.path(), &format!("http://127.0.0.1:{}{path}", proxy.port))?;
        println!("      {path}: {} bytes shown", page.len());
        step(tally, &format!("chromium shows {path}"), page.contains(text));
    }
    let answers = std::fs::read_to_string(&log)?;
    let answers: Vec<Value> = answers.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let text =
        |answer: &Value, key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let agent = answers.first().map(|answer| text(answer, "agent")).unwrap_or_default();
    println!("      {} requests of {agent}", answers.len());
    let is_let_in = |answer: &Value| {
        text(answer, "blocked").is_empty()
            && !matches!(answer.get("status").and_then(Value::as_u64), Some(403 | 429))
    };
    for answer in answers.iter().filter(|answer| !is_let_in(answer)) {
        println!("      {answer}");
    }
    step(tally, "none of its requests is blocked", answers.len() >= 5 && answers.iter().all(is_let_in));
    Ok(())
}

/// What a page looks like to the browser when it is loaded.
fn load(chromium: &Path, home: &Path, url: &str) -> Result<String> {
    let seconds = PATIENCE.as_secs().to_string();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &seconds]).arg(chromium).args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-proxy-server",
        "--dump-dom",
    ]);
    command.arg(format!("--user-data-dir={}", home.join("profile").display())).arg(url).env("HOME", home);
    let done = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    ensure!(done.status.success(), "chromium ended with {} on {url}", done.status);
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The proxy that a browser from outside comes through. It is ended when this value is dropped.
struct Proxy {
    child: Child,
    port: u16,
}

impl Proxy {
    fn start(server: &str, log: &Path) -> Result<Self> {
        let mut child = Command::new("python3")
            .arg(root().join("xtask/accept/outside.py"))
            .args([server, ADDRESS])
            .arg(log)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("standard output")?;
        let mut own = Self { child, port: 0 };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        own.port = line.trim().parse().context("the proxy says no port")?;
        Ok(own)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
