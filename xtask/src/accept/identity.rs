//! `accept identity`: stock OAuth and OpenID Connect clients of npm and PyPI, and a browser with a virtual authenticator, against
//! the authorization server. Screenshots of its pages are left under `target/accept/identity`.

use super::{Tally, clients};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::process::Command;
use systemprompt_tests::{Options, Server};
use xtask::packages;
use xtask::process::{cargo, find, is_installed, root, run, target};

/// The npm packages with the file that is imported of each.
const NPM: [(&str, &str); 4] = [
    ("openid-client@6.8.9", "build/index.js"),
    ("oauth4webapi@3.8.8", "build/index.js"),
    ("jose@6.2.17", "dist/webapi/index.js"),
    ("playwright-core@1.65.1", "index.js"),
];
const PYPI: &str = "Authlib==1.9.9 requests-oauthlib==2.0.0 requests";

pub(super) fn identity() -> Result<Tally> {
    packages::ensure("chromium", || is_installed("chromium"))?;
    let chromium = find("chromium").context("chromium")?;
    let node = clients::node()?;
    let mut modules = serde_json::Map::new();
    for (package, file) in NPM {
        let name = package.split('@').next().unwrap_or(package);
        modules
            .insert(name.to_owned(), Value::from(clients::npm(&node, package, file)?.display().to_string()));
    }
    let python = clients::python("oauth-clients", PYPI)?;
    run(&mut cargo(["build", "--package", "systemprompt-cli"]))?;
    let mut tally = Tally::default();
    let shots = clients::home().join("identity");
    let server = server()?;
    let given = json!({
        "url": server.url(),
        "setup_url": server.ready().get("setup_url"),
        "admin_token": server.admin_token(),
        "chromium": chromium,
        "modules": modules,
        "shots": shots,
    });
    let script = root().join("xtask/accept/identity.mjs");
    tally.program(Command::new(&node).arg(script).env("ACCEPT", given.to_string()))?;
    tally.script(
        &python,
        "identity.py",
        &json!({"url": server.url(), "admin_token": server.admin_token()}),
    )?;
    println!("pages: {}", shots.display());
    Ok(tally)
}

fn server() -> Result<Server> {
    Options::demo_with(target().join("debug/systemprompt"))
        .env("SYSTEMPROMPT__RATE_LIMITS__DISABLED", "true")
        .start()
}
