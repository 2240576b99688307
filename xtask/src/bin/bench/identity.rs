//! `bench identity`: the authorization server's endpoints over HTTP, every token durable before it leaves, beside `oidc-provider`
//! with its store in memory (ID-142).

mod cleanup;
mod endpoints;
mod flows;
mod growth;
mod measure;
mod passkeys;
mod passwords;
mod peer;
mod plane;
mod seed;

use crate::machine;
use crate::options::{Engine, Options};
use crate::report::Report;
use anyhow::Result;
use measure::head;
use peer::Peer;
use plane::Plane;

/// Connections of most measurements.
const CONNECTIONS: usize = 64;

/// A group of figures.
type Rows = Vec<Vec<String>>;

/// The groups of the report.
#[derive(Debug, Default)]
struct Tables {
    credentials: Rows,
    code: Rows,
    documents: Rows,
    peer: Rows,
    passwords: Rows,
    health: Rows,
    growth: Rows,
    disk: Rows,
    passkeys: Rows,
    memory: Rows,
    cleanup: Rows,
    notes: Vec<String>,
}

pub fn bench(options: &Options) -> Result<()> {
    let peer = Peer::start()?;
    let mut report = Report::new(
        "identity",
        "Identity",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "The authorization server over HTTP/1.1 keep-alive, closed loop, {CONNECTIONS} connections unless a row says otherwise; \
             {} clients and as many people stored, durable ledger (full sync), limits off; generator, server and, on PostgreSQL, the \
             database on the same cores. *Client credentials*: HTTP Basic, all clients in turn, scope `user`, none for the first \
             time that day; rows in `user_sessions` \
             and records of the kind `oauth.token` must equal requests. *Authorize*: {} people in browser sessions that began with a \
             password, each with a consent for a confidential client; every answer is a 303 with a code. *Exchange*: each of these \
             codes once with its verifier, for an access token (EdDSA), a refresh token and an ID token (RS256); *refresh*: each of \
             these refresh tokens once, for as many; *introspection*: the access tokens of that, by their clients, active. An answer \
             that is not as it must be ends the run as failed, and `audit verify` passes afterwards. The peer is npm's `{}` on Node \
             {} with its store in memory, a process of its own that signs `at+jwt` with its own keys; the two are measured by turns.",
            seed::CLIENTS,
            seed::PEOPLE,
            peer::NAME,
            peer.node
        ),
        "client credentials at least 8,000 a second with EdDSA and 2,000 with RS256, p99 ≤ 25 ms at 64 connections; refresh 1,000, \
         exchange 800, introspection 5,000, authorize 1,000; discovery and JWKS 20,000; 4 times the peer's rate; a password sign-in at \
         90 % of what Argon2id alone reaches, with memory for two hashes (38 MiB) and 10 MiB; p50 of `/health` moves at most 1 ms; \
         with a million tokens at most 1.3 times the p50 with ten thousand; 1,536 bytes on disk for each of a client's own tokens; 3 ms of CPU for \
         a passkey sign-in, start and finish; 10,000 open ceremonies add at most 5 MB and as many live sessions 30 MB; while a million rows \
         are deleted p99 of tokens at most doubles; the sign-in page has at most 30 KB.",
    );
    let mut tables = Tables::default();
    for engine in &options.engines {
        measure(*engine, options, &peer, &mut tables)?;
    }
    publish(&mut report, tables);
    report.publish(options)
}

fn measure(engine: Engine, options: &Options, peer: &Peer, tables: &mut Tables) -> Result<()> {
    let wants = |part| options.wants(part);
    let eddsa = ["tokens", "code", "documents", "passkeys", "passwords", "health"];
    if eddsa.into_iter().any(wants) {
        let plane = Plane::start(engine, "EdDSA")?;
        if wants("tokens") {
            endpoints::client_credentials(&plane, "EdDSA", options, peer, tables)?;
        }
        if wants("code") {
            endpoints::code(&plane, options, peer, tables)?;
        }
        if wants("documents") {
            endpoints::documents(&plane, options, peer, tables)?;
        }
        if wants("passkeys") {
            passkeys::page(&plane, tables)?;
            passkeys::sign_ins(&plane, options, tables)?;
            passkeys::memory(&plane, options, tables)?;
        }
        if wants("passwords") {
            passwords::sign_ins(&plane, options, tables)?;
        }
        if wants("health") {
            endpoints::health(&plane, options, tables)?;
        }
        tables.notes.push(plane.end()?);
    }
    if wants("tokens_rs256") {
        let plane = Plane::start(engine, "RS256")?;
        endpoints::client_credentials(&plane, "RS256", options, peer, tables)?;
        tables.notes.push(plane.end()?);
    }
    if wants("growth") {
        let note = growth::tokens(engine, options, tables)?;
        tables.notes.push(note);
    }
    if wants("cleanup") {
        let note = cleanup::under_load(engine, options, tables)?;
        tables.notes.push(note);
    }
    Ok(())
}

fn publish(report: &mut Report, tables: Tables) {
    let requests = |what| head(what, "requests/s");
    report.table(&requests("client credentials"), &tables.credentials);
    report.table(&requests("code flow"), &tables.code);
    report.table(&requests("document"), &tables.documents);
    let head = [
        "engine",
        "beside the peer",
        "requests/s",
        "the peer's",
        "factor",
        "p99 ms",
        "the peer's",
        "CPU µs server",
        "the peer's",
    ];
    report.table(&head, &tables.peer);
    let head =
        ["engine", "password sign-ins/s", "Argon2id alone/s", "of it", "p99 ms", "memory before", "growth"];
    report.table(&head, &tables.passwords);
    let head =
        ["engine", "at one connection", "meanwhile", "p50 ms", "p99 ms", "p50 moves ms", "p99 of idle"];
    report.table(&head, &tables.health);
    let head = [
        "engine",
        "tokens stored",
        "refresh p50 ms",
        "p99 ms",
        "of the first",
        "introspection p50 ms",
        "p99 ms",
        "of the first",
    ];
    report.table(&head, &tables.growth);
    let head = ["engine", "algorithm", "tokens issued", "bytes each", "of the look-up copy"];
    report.table(&head, &tables.disk);
    let head =
        ["engine", "passkey sign-ins, one after another", "ms each", "CPU ms server", "CPU ms database"];
    report.table(&head, &tables.passkeys);
    report.table(&["engine", "memory of", "before", "growth"], &tables.memory);
    let head = [
        "engine",
        "ended rows",
        "deleted in s",
        "tokens/s before",
        "p99 ms",
        "tokens/s meanwhile",
        "p99 ms",
        "of before",
    ];
    report.table(&head, &tables.cleanup);
    for note in tables.notes {
        report.note(&note);
    }
}
