//! `accept security`: stock JOSE libraries of PyPI and npm verify the server's tokens through a rotation and forge others, and
//! assertions are tried on the internal socket in front of npm's `server-everything`. Cedar decides beside the resolver.

use super::{Tally, clients};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;
use systemprompt_tests::{Options, Server};
use xtask::process::{cargo, root, run, target};

pub(super) fn security() -> Result<Tally> {
    run(&mut cargo(["build", "--package", "systemprompt-cli"]))?;
    run(&mut cargo(["build", "--package", "xtask", "--features", "sign", "--bin", "sign"]))?;
    let mut tally = Tally::default();
    tokens(&mut tally)?;
    assertions(&mut tally)?;
    oracle(&mut tally)?;
    Ok(tally)
}

/// Case 16. The oracle is a workspace of its own; it shares nothing with the product's build but the folder.
fn oracle(tally: &mut Tally) -> Result<()> {
    let manifest = root().join("oracle/Cargo.toml");
    let mut command = cargo(["run", "--quiet", "--locked", "--manifest-path"]);
    tally.program(command.arg(manifest).arg("--target-dir").arg(target().join("oracle")))
}

fn demo() -> Options {
    Options::demo_with(target().join("debug/systemprompt"))
}

/// Cases 5 and 6.
fn tokens(tally: &mut Tally) -> Result<()> {
    let joserfc = clients::python("joserfc", "joserfc")?;
    let jwcrypto = clients::python("jwcrypto", "jwcrypto")?;
    let node = clients::node()?;
    let jose = clients::npm(&node, "jose", "dist/webapi/index.js")?;
    let server = demo().start()?;
    // Nothing signs with these algorithms yet, so their first key need not wait.
    for algorithm in ["ES256", "EdDSA"] {
        server.succeed(&["admin", "keys", "generate", "--algorithm", algorithm])?;
        server.succeed(&["admin", "keys", "rotate", "--algorithm", algorithm])?;
    }
    let mut signed = ["RS256", "ES256", "EdDSA"]
        .map(|alg| token(&server, alg, &format!("{alg} token")))
        .into_iter()
        .collect::<Result<Vec<Value>>>()?;
    let given = |phase: &str, tokens: &[Value]| {
        json!({
            "phase": phase, "url": server.url(), "issuer": server.url(), "tokens": tokens, "jose": jose,
        })
    };
    let before = given("before a rotation", &signed);
    tally.script(&joserfc, "verify.py", &before)?;
    tally.script(&node, "verify.mjs", &before)?;

    server.succeed(&["admin", "keys", "generate"])?;
    let early = server.run(&["admin", "keys", "rotate"])?;
    tally.step("a key that was just published does not sign yet", !early.status.success());
    let published = key(&server, &[("state", "next")])?;
    age_next_key(&joserfc, &server)?;
    server.succeed(&["admin", "keys", "rotate"])?;
    let now_active = key(&server, &[("state", "active"), ("alg", "RS256")])?;
    tally.step("the key that was published before is the one that signs", published == now_active);
    let old = key(&server, &[("state", "retired")])?;
    server.succeed(&["admin", "keys", "retire", &old])?;
    signed.push(token(&server, "RS256", "RS256 token of the new key")?);
    let after = given("after rotate and retire", &signed);
    tally.script(&joserfc, "verify.py", &after)?;
    tally.script(&node, "verify.mjs", &after)?;

    let forging = json!({
        "url": server.url(), "kid": now_active, "keys": key_file(&server),
        "log": server.data_dir().join("server.log"), "claims": claims(&server)?,
    });
    tally.script(&jwcrypto, "forge.py", &forging)
}

/// Case 32.
fn assertions(tally: &mut Tally) -> Result<()> {
    let jwcrypto = clients::python("jwcrypto", "jwcrypto")?;
    let node = clients::node()?;
    let everything = clients::npm(&node, "@modelcontextprotocol/server-everything", "dist/index.js")?;
    let servers = json!({"mcp_servers": {"everything": {
        "type": "stdio", "command": node, "args": [everything], "oauth": {"scopes": ["user"]},
    }}});
    let rules =
        json!({"rules": [{"entity_type": "mcp_server", "entity_id": "everything", "roles": ["user"]}]});
    let server = demo()
        .file("services/mcp/everything.yaml", &servers.to_string())
        .file("services/access-control/everything.yaml", &rules.to_string())
        .env("SYSTEMPROMPT__SERVER__INTERNAL_LISTENER", "unix:run/internal.sock")
        .start()?;
    let mut asserted = claims(&server)?;
    set(&mut asserted, "act", json!({"sub": "mcp:everything"}));
    let given = json!({
        "url": server.url(), "socket": server.data_dir().join("run/internal.sock"), "keys": key_file(&server),
        "kid": key(&server, &[("use", "internal")])?, "claims": asserted,
    });
    tally.script(&jwcrypto, "assertion.py", &given)
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

fn key_file(server: &Server) -> PathBuf {
    server.data_dir().join("keys/signing.json")
}

/// The id of the newest key of the ring that is wanted.
fn key(server: &Server, wanted: &[(&str, &str)]) -> Result<String> {
    let listed: Value =
        serde_json::from_str(&server.succeed(&["admin", "keys", "list", "--output", "json"])?)?;
    let keys = listed.get("items").and_then(Value::as_array).context("no list of keys")?;
    let member = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
    let fits = |key: &&Value| wanted.iter().all(|(name, value)| member(key, name).as_deref() == Some(value));
    let found = keys.iter().rev().find(fits).context("no such key in the ring")?;
    member(found, "kid").context("a key without an id")
}

/// What the demo's bob may claim, taken from his token.
fn claims(server: &Server) -> Result<Value> {
    let read =
        server.run_with_input(&["admin", "token", "inspect", "--output", "json"], server.user_token())?;
    let bob: Value = serde_json::from_str(&read)?;
    let mut claims = json!({"aud": ["api"], "scope": "user", "user_type": "user", "rate_limit_tier": "user"});
    for name in ["iss", "sub", "session_id", "roles", "department"] {
        set(&mut claims, name, bob.get(name).cloned().unwrap_or_default());
    }
    Ok(claims)
}

/// A token of bob's that the product's own signer made under the active key of an algorithm.
fn token(server: &Server, algorithm: &str, name: &str) -> Result<Value> {
    let kid = key(server, &[("state", "active"), ("alg", algorithm), ("use", "sig")])?;
    let now = UNIX_EPOCH.elapsed()?.as_secs();
    let mut claims = claims(server)?;
    for (claim, value) in [("iat", now), ("nbf", now), ("exp", now + 3600)] {
        set(&mut claims, claim, json!(value));
    }
    set(&mut claims, "jti", json!(format!("jti_{kid}")));
    let mut sign = Command::new(target().join("debug/sign"))
        .arg(key_file(server))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let asked = json!({"kid": kid, "typ": "at+jwt", "claims": claims});
    sign.stdin.take().context("standard input")?.write_all(asked.to_string().as_bytes())?;
    let done = sign.wait_with_output()?;
    ensure!(done.status.success(), "the token `{name}` was not signed");
    Ok(json!({"name": name, "alg": algorithm, "token": String::from_utf8(done.stdout)?.trim()}))
}

/// Lets ten minutes pass for the key that waits: nobody wants to sit through them.
fn age_next_key(python: &Path, server: &Server) -> Result<()> {
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=10); \
        db.execute(\"UPDATE signing_keys SET created_at = created_at - 600000 WHERE state = 'next'\"); db.commit()";
    run(Command::new(python).args(["-c", script]).arg(server.data_dir().join("systemprompt.db")))
}
