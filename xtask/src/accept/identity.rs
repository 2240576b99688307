//! `accept identity`: stock OAuth and OpenID Connect clients of npm and PyPI, a browser with a virtual authenticator, and servers and
//! suites of others, against the authorization server. Screenshots of its pages are left under `target/accept/identity`.

use super::{Tally, clients};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use systemprompt_tests::{Options, Server};
use xtask::packages;
use xtask::postgres::{Durability, Postgres};
use xtask::process::{cargo, find, is_installed, root, run, target};

/// The npm packages with the file that is used of each.
const NPM: [(&str, &str); 6] = [
    ("openid-client@6.8.9", "build/index.js"),
    ("oauth4webapi@3.8.8", "build/index.js"),
    ("jose@6.2.17", "dist/webapi/index.js"),
    ("playwright-core@1.65.1", "index.js"),
    ("oidc-provider@9.13.3", "lib/index.js"),
    ("@modelcontextprotocol/conformance@0.2.0-alpha.12", "dist/index.js"),
];
const PYPI: &str =
    "Authlib==1.9.9 idpyoidc==5.0.0 requests-oauthlib==2.0.0 requests soft-webauthn==0.1.3 webauthn==3.0.1";
/// With the client's own transport, which is not that of the others.
const MCP: &str = "mcp==2.3.0 requests soft-webauthn==0.1.3";
/// What the suites of others run on.
const NODE: (u32, u32) = (22, 0);
/// The client of the other issuer whose tokens are taken.
const AUDIENCE: &str = "peer-app";

pub(super) fn identity() -> Result<Tally> {
    let tools = Tools::install()?;
    run(&mut cargo(["build", "--package", "systemprompt-cli"]))?;
    for of_others in ["party", "softpasskey"] {
        run(&mut cargo(["build", "--package", "xtask", "--features", of_others, "--bin", of_others]))?;
    }
    let mut tally = Tally::default();
    println!("--- on SQLite");
    cases(&mut tally, &tools, None)?;
    println!("--- on PostgreSQL");
    cases(&mut tally, &tools, Some(&Postgres::start(Durability::Process)?))?;
    Ok(tally)
}

/// Every case, on a server of its own on one engine.
fn cases(tally: &mut Tally, tools: &Tools, postgres: Option<&Postgres>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let certificates = folder.path().join("certificates");
    let write = root().join("xtask/accept/certificates.py");
    run(Command::new(&tools.python).arg(write).arg(&certificates))?;
    let ports = free_ports()?;
    let server = server(&certificates, ports, postgres)?;
    let lenient = lenient(postgres)?;
    let shots = clients::home().join("identity");
    let [peer_port, twin_port, callback_port] = ports;
    let given = json!({
        "url": server.url(),
        "setup_url": server.ready().get("setup_url"),
        "admin_token": server.admin_token(),
        "client_id": server.ready().pointer("/demo/client_id"),
        "client_secret": server.ready().pointer("/demo/client_secret"),
        "database": server.database_url(),
        "party": target().join("debug/party"),
        "lenient": {"url": lenient.url(), "admin_token": lenient.admin_token()},
        "certificates": certificates,
        "ceremonies": folder.path().join("ceremonies.json"),
        "peer_port": peer_port,
        "twin_port": twin_port,
        "callback_port": callback_port,
        "peer_audience": AUDIENCE,
        "chromium": tools.chromium,
        "modules": tools.modules,
        "shots": shots,
    });
    for script in ["identity.mjs", "webapi.mjs", "peers.mjs"] {
        let file = root().join("xtask/accept").join(script);
        tally.program(Command::new(&tools.node).arg(file).env("ACCEPT", given.to_string()))?;
    }
    let softpasskey = target().join("debug/softpasskey");
    tally.program(Command::new(softpasskey).args([server.url(), server.admin_token()]))?;
    let pages = json!({
        "url": lenient.url(),
        "chromium": tools.chromium,
        "modules": tools.modules,
        "shots": shots,
    });
    let file = root().join("xtask/accept/pages.mjs");
    tally.program(Command::new(&tools.node).arg(file).env("ACCEPT", pages.to_string()))?;
    tally.script(&tools.python, "identity.py", &given)?;
    tally.script(&tools.mcp, "mcp_oauth.py", &given)?;
    tally.script(&tools.python, "identity_page.py", &given)?;
    println!("pages: {}", shots.display());
    Ok(())
}

/// What others wrote. Whatever cannot be installed fails the run.
struct Tools {
    chromium: PathBuf,
    node: PathBuf,
    modules: serde_json::Map<String, Value>,
    python: PathBuf,
    mcp: PathBuf,
}

impl Tools {
    fn install() -> Result<Self> {
        packages::ensure("chromium", || is_installed("chromium"))?;
        let chromium = find("chromium").context("chromium")?;
        // What the examples of the page are written with.
        for program in ["curl", "jq", "openssl"] {
            packages::ensure(program, || is_installed(program))?;
        }
        let node = clients::node_from(NODE)?;
        let mut modules = serde_json::Map::new();
        for (package, file) in NPM {
            let name = package.rsplit_once('@').map_or(package, |(name, _)| name);
            let script = clients::npm(&node, package, file)?;
            modules.insert(name.to_owned(), Value::from(script.display().to_string()));
        }
        let python = clients::python("oauth-clients", PYPI)?;
        let mcp = clients::python("mcp-oauth", MCP)?;
        Ok(Self { chromium, node, modules, python, mcp })
    }
}

/// Ports that nobody listens on: of the other issuer, of its look-alike, of a client's callback, which is the usual one if it can be.
fn free_ports() -> Result<[u16; 3]> {
    let free = || TcpListener::bind("127.0.0.1:0");
    let listeners = [free(), free(), TcpListener::bind("127.0.0.1:3000").or_else(|_| free())];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

/// The server under test: it trusts the root under which metadata documents lie, and the other issuer.
fn server(certificates: &Path, [peer, ..]: [u16; 3], postgres: Option<&Postgres>) -> Result<Server> {
    let issuer = format!("http://localhost:{peer}");
    let trusted = json!([{
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "audience": AUDIENCE,
        "subject_mapping": "verified_email",
    }]);
    options(postgres, "postgres")?
        .env("SSL_CERT_FILE", &certificates.join("root.pem").display().to_string())
        .env("SYSTEMPROMPT__SECURITY__TRUSTED_ISSUERS", &trusted.to_string())
        .start()
}

/// One that takes passkeys of devices that do not verify their users, with a password beside them.
fn lenient(postgres: Option<&Postgres>) -> Result<Server> {
    options(postgres, "lenient")?
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__WEBAUTHN__USER_VERIFICATION", "preferred")
        .env("SYSTEMPROMPT__SECURITY__IDENTITY__PASSWORD__ENABLED", "true")
        .env("SYSTEMPROMPT__SECURITY__ALLOW_REGISTRATION", "true")
        .start()
}

/// On a database of its own.
fn options(postgres: Option<&Postgres>, database: &str) -> Result<Options> {
    let options = Options::demo_with(target().join("debug/systemprompt"))
        .env("SYSTEMPROMPT__RATE_LIMITS__DISABLED", "true");
    let Some(postgres) = postgres else { return Ok(options) };
    let first = postgres.url();
    if database != "postgres" {
        let create = format!("CREATE DATABASE {database}");
        run(Command::new("psql").args(["--quiet", "--no-psqlrc", "--command", &create, &first]))?;
    }
    let (server, _) = first.rsplit_once('/').context("a database URL")?;
    Ok(options.postgres(&format!("{server}/{database}")))
}
