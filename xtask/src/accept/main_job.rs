//! `accept main-job`: the Anthropic SDK on the demo provider and through the gateway to aimock, and the MCP clients, old and
//! new, on the demo server's tools.

use super::{Tally, clients};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use systemprompt_tests::{Options, Server};
use xtask::process::{cargo, root, run, target};

/// What aimock answers (`xtask/accept/fixtures.json`).
const ANSWER: &str =
    "Hello from the mock model. It speaks in several chunks, so that a stream has something to stream.";
/// The key that aimock demands.
pub(super) const UPSTREAM_KEY: &str = "upstream-key-of-the-acceptance-run";

pub(super) fn main_job() -> Result<Tally> {
    let sdk = clients::python("anthropic", "anthropic")?;
    let old_mcp = clients::python("mcp-old", "mcp<2")?;
    let new_mcp = clients::python("mcp-new", "mcp>=2")?;
    let node = clients::node()?;
    let aimock = clients::npm(&node, "@copilotkit/aimock", "dist/cli.js")?;
    run(&mut cargo(["build", "--package", "systemprompt-cli"]))?;

    let mut tally = Tally::default();
    let options = Options::demo_with(target().join("debug/systemprompt"));
    let server = options.clone().start()?;
    let given = given(&server)?;
    tally.script(&sdk, "messages.py", &given)?;
    tally.script(&old_mcp, "tools.py", &given)?;
    tally.script(&new_mcp, "tools.py", &given)?;
    drop(server);

    let upstream = Aimock::start(&node, &aimock, &root().join("xtask/accept/fixtures.json"), true)?;
    let providers = json!([{
        "name": "aimock", "type": "anthropic", "base_url": upstream.url(), "api_key_secret": "anthropic",
    }]);
    let routes = json!([{ "name": "demo", "model": "*", "targets": [{ "provider": "aimock" }] }]);
    let server = options
        .env("SYSTEMPROMPT__GATEWAY__PROVIDERS", &providers.to_string())
        .env("SYSTEMPROMPT__GATEWAY__ROUTES", &routes.to_string())
        .env("SYSTEMPROMPT__GATEWAY__DEFAULT_ROUTE", "demo")
        .secret("anthropic", UPSTREAM_KEY)
        .start()?;
    let mut given = self::given(&server)?;
    if let Some(given) = given.as_object_mut() {
        let more =
            [("upstream", upstream.url().as_str()), ("upstream_key", UPSTREAM_KEY), ("answer", ANSWER)]
                .map(|(name, value)| (name.to_owned(), value.into()));
        given.extend(more);
    }
    tally.script(&sdk, "upstream.py", &given)?;
    Ok(tally)
}

/// What the scripts are told: the address, the tokens, and the demo secret's value, which they look for.
fn given(server: &Server) -> Result<Value> {
    Ok(json!({
        "url": server.url(),
        "admin_token": server.admin_token(),
        "user_token": server.user_token(),
        "canary": server.secret("demo_crm_token")?,
    }))
}

/// npm's aimock as the model provider behind the gateway. It is killed when this value is dropped.
pub(super) struct Aimock {
    child: Child,
    port: u16,
}

impl Aimock {
    /// A strict one refuses what no fixture fits.
    pub(super) fn start(node: &Path, script: &Path, fixtures: &Path, is_strict: bool) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new(node)
            .arg(script)
            .args(["--port", &port.to_string(), "--log-level", "warn"])
            .args(is_strict.then_some("--strict"))
            .arg("--fixtures")
            .arg(fixtures)
            .env("AIMOCK_API_KEYS", UPSTREAM_KEY)
            .stdin(Stdio::null())
            .spawn()
            .context("starting aimock")?;
        let mut own = Self { child, port };
        own.wait_until_ready()?;
        Ok(own)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("aimock ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("aimock takes no connection on port {}", self.port)
    }
}

impl Drop for Aimock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
