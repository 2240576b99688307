//! What stands in the database before anything is measured: clients whose secrets are known, people of whom some have a password
//! and remembered consents, and, for the cost of growth, sessions with refresh tokens.

use anyhow::{Context, Result};
use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::sync::Arc;
use systemprompt_models::{Clock, Secret, SystemClock};
use systemprompt_oauth::at_rest::{AtRest, Label};

/// Clients that ask for tokens of their own, and as many people.
pub const CLIENTS: usize = 10_000;
/// People who sign in, each with a client that they have consented to.
pub const PEOPLE: usize = 32;
pub const PASSWORD: &str = "a long enough password";
/// Secrets in one statement.
const CHUNK: usize = 500;
const MONTH: i64 = 30 * 24 * 3600 * 1000;

/// A client's id of `CLIENTS`, from 1.
pub fn client(number: usize) -> String {
    format!("bench-{number}")
}

/// The client of a person.
pub fn app(person: usize) -> String {
    format!("app-{person}")
}

pub fn person(number: usize) -> String {
    format!("person-{number}")
}

pub fn redirect_uri(person: usize) -> String {
    format!("https://app-{person}.example/cb")
}

/// `Authorization` of `count` clients with these ids.
pub fn credentials(id: fn(usize) -> String, count: usize) -> Arc<[String]> {
    let basic = |id: String| format!("Basic {}", STANDARD.encode(format!("{id}:{}", secret(&id))));
    (1..=count).map(|number| basic(id(number))).collect()
}

fn secret(id: &str) -> String {
    format!("sps_{id}")
}

/// The Argon2id of the product's passwords.
pub fn argon2() -> Result<Argon2<'static>> {
    let params = Params::new(19_456, 2, 1, None).context("parameters of Argon2id")?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The statements that make clients and people. Secrets are kept under `pepper`.
pub fn plane(pepper: &str) -> Result<Vec<String>> {
    let hash = argon2()?.hash_password_with_salt(PASSWORD.as_bytes(), &[7; 16]).context("hashing")?;
    let mut statements = vec![
        users(CLIENTS, "usr_bench_", "person-", "person"),
        users(CLIENTS, "usr_client_", "client:bench-", "client"),
        users(PEOPLE, "usr_app_", "client:app-", "client"),
        each(CLIENTS, "user_roles (user_id, role)", "'usr_bench_' || i, 'user'"),
        each(
            PEOPLE,
            "user_passwords (user_id, hash, changed_at)",
            &format!("'usr_bench_' || i, '{hash}', 1"),
        ),
        clients(CLIENTS, "bench-", "usr_client_"),
        clients(PEOPLE, "app-", "usr_app_"),
        each(
            PEOPLE,
            "oauth_client_redirect_uris (client_id, kind, value)",
            "'app-' || i, 'login', 'https://app-' || i || '.example/cb'",
        ),
        each(PEOPLE, "oauth_client_response_types (client_id, value)", "'app-' || i, 'code'"),
        each(
            PEOPLE,
            "oauth_consents (user_id, client_id, redirect_uri, scopes, resources, metadata_digest, granted_at, last_used_at)",
            "'usr_bench_' || i, 'app-' || i, 'https://app-' || i || '.example/cb', 'openid offline_access user', '', '', 1, 1",
        ),
    ];
    let words = |table: &str, ids: &str, count, words: &[&str]| -> Vec<String> {
        let into = format!("oauth_client_{table} (client_id, value)");
        words.iter().map(|word| each(count, &into, &format!("'{ids}' || i, '{word}'"))).collect()
    };
    statements.extend(words("grant_types", "bench-", CLIENTS, &["client_credentials"]));
    statements.extend(words("scopes", "bench-", CLIENTS, &["user"]));
    statements.extend(words("grant_types", "app-", PEOPLE, &["authorization_code", "refresh_token"]));
    statements.extend(words("scopes", "app-", PEOPLE, &["openid", "offline_access", "user"]));
    let at_rest = AtRest::new(&Secret::from(pepper), None).context("the pepper")?;
    let ids: Vec<String> = (1..=CLIENTS).map(client).chain((1..=PEOPLE).map(app)).collect();
    statements.extend(ids.chunks(CHUNK).map(|ids| secrets(&at_rest, ids)));
    Ok(statements)
}

/// The statements that make live sessions, each with its grant and its refresh token, from number `from` to `to`.
pub fn sessions(from: usize, to: usize) -> Vec<String> {
    let now = SystemClock.now();
    tokens(from, to, (now, now + MONTH))
}

/// The same of sessions that ended so long ago that they are to be deleted; the job that does so is due.
pub fn ended_sessions(count: usize) -> Vec<String> {
    let now = SystemClock.now();
    let mut statements = tokens(1, count, (now - 4 * MONTH, now - 3 * MONTH));
    statements.push("UPDATE identity_jobs SET started_at = 0, held_until = 0".to_owned());
    statements
}

fn tokens(from: usize, to: usize, (now, end): (i64, i64)) -> Vec<String> {
    let user = format!("'usr_bench_' || (i % {CLIENTS} + 1)");
    let rows = |into: &str, values: &str| insert(from, to, into, values);
    vec![
        rows(
            "user_sessions (id, user_id, source, created_at, last_seen_at, expires_at, ends_at, auth_time, acr, amr, \
             ip_prefix, client_id, grant_id)",
            &format!(
                "'sess_seed_' || i, {user}, 'oauth', {now}, {now}, {end}, {end}, {}, 'pwd', 'pwd', '127.0.0.1/32', 'app-1', \
                 'grant_seed_' || i",
                now / 1000
            ),
        ),
        rows(
            "oauth_grants (grant_id, user_id, client_id, kind, scopes, resources, offline, created_at, family_expires_at)",
            &format!(
                "'grant_seed_' || i, {user}, 'app-1', 'code', 'openid offline_access user', '', 1, {now}, {end}"
            ),
        ),
        // A digest may begin with anything, so these are scattered as well: an odd factor makes each number another.
        rows(
            "oauth_refresh_tokens (token_digest, grant_id, client_id, user_id, scopes, resources, issued_at, expires_at, \
             pepper_id)",
            &format!(
                "(CAST(i AS BIGINT) * 2654435761 % 4294967296) || '{}', 'grant_seed_' || i, 'app-1', {user}, \
                 'openid offline_access user', '', {now}, {end}, 'seed'",
                "0".repeat(54)
            ),
        ),
    ]
}

fn users(count: usize, id: &str, name: &str, kind: &str) -> String {
    let into =
        "users (id, username, username_key, email, email_key, status, created_at, updated_at, version, kind)";
    let mail = format!("'{}' || i || '@bench.example'", name.replace(':', "-"));
    each(
        count,
        into,
        &format!("'{id}' || i, '{name}' || i, '{name}' || i, {mail}, {mail}, 'active', 1, 1, 1, '{kind}'"),
    )
}

/// They were used today before: the first use in a day is written, and the others are what is measured.
fn clients(count: usize, id: &str, user: &str) -> String {
    let into = "oauth_clients (client_id, name, kind, auth_method, application_type, status, user_id, metadata_digest, \
                created_at, updated_at, version, last_used_at)";
    let now = SystemClock.now();
    each(
        count,
        into,
        &format!(
            "'{id}' || i, '{id}' || i, 'managed', 'client_secret_basic', 'web', 'active', '{user}' || i, '', 1, 1, 1, {now}"
        ),
    )
}

fn secrets(at_rest: &AtRest, ids: &[String]) -> String {
    let mut text =
        "INSERT INTO oauth_client_secrets (client_id, secret_digest, pepper_id, created_at) VALUES"
            .to_owned();
    for (at, id) in ids.iter().enumerate() {
        let digest = at_rest.digest(Label::ClientSecret, &secret(id));
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma} ('{id}', '{}', '{}', 1)", digest.hex, digest.pepper_id);
    }
    text
}

fn each(count: usize, into: &str, values: &str) -> String {
    insert(1, count, into, values)
}

/// A row of `values` for each number `i`.
fn insert(from: usize, to: usize, into: &str, values: &str) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to}) \
         INSERT INTO {into} SELECT {values} FROM n"
    )
}
