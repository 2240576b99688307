//! What the authorization server is measured beside: oidc-provider of npm with its store in memory, as a process of its own, under
//! the same load generator.

use super::flows::Site;
use super::measure::Side;
use super::seed;
use crate::machine;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use xtask::clients::{node, npm};
use xtask::process::{output, root};

pub const NAME: &str = "oidc-provider@9.13.3";
const SCRIPT: &str = "xtask/bench/oidc-provider.mjs";
/// Clients that the script makes.
const CLIENTS: usize = 100;
/// Tokens that are introspected; its store holds a thousand.
const TOKENS: usize = 100;

/// The running peer. It is killed when this value is dropped, and ends by itself with this process.
pub struct Peer {
    child: Child,
    pub side: Side,
    pub node: String,
}

impl Peer {
    pub fn start() -> Result<Self> {
        let node = node()?;
        let module = npm(&node, NAME, "lib/index.js")?;
        let version = output(Command::new(&node).arg("--version"))?;
        let mut command = Command::new(&node);
        command.arg(root().join(SCRIPT)).arg(module).env("NODE_ENV", "production");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its standard output")?).read_line(&mut line)?;
        let address: SocketAddr = line.trim().parse().with_context(|| format!("{SCRIPT} said {line:?}"))?;
        let site = Site {
            address,
            host: format!("localhost:{}", address.port()).into(),
            token: "/token",
            introspect: "/token/introspection",
            jwks: "/jwks",
            clients: seed::credentials(seed::client, CLIENTS),
        };
        let pid = child.id();
        let cpu = Rc::new(move || (machine::cpu(pid).unwrap_or_default(), Duration::ZERO));
        Ok(Self { child, side: Side { site, cpu }, node: version })
    }

    /// What follows in the form so that access tokens are signed with `algorithm`, or are `opaque`.
    pub fn resource(kind: &str) -> String {
        format!("&resource=urn:bench:{kind}")
    }

    /// Opaque tokens with the credentials of their client: it does not introspect signed ones.
    pub fn tokens(&self) -> Result<Vec<(String, String)>> {
        let site = &self.side.site;
        let client = site.clients.first().context("a client")?;
        let one = |_| Ok((client.clone(), site.one_token(&Self::resource("opaque"), None)?));
        (0..TOKENS).map(one).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
