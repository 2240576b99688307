//! The invariants of ARCHITECTURE.md, held by reading manifests and sources. What clippy forbids already (clock, randomness,
//! environment, detached tasks) is checked here by where its exceptions stand.

use crate::sources::{File, Package, packages, product, root};
use proc_macro2::{Delimiter, TokenTree};

/// Layers from the lowest to the highest.
const LAYERS: &[&str] = &["shared", "infra", "domain", "app", "entry"];
/// The order inside `infra`, lowest first.
const INFRA: &[&str] = &["config", "database", "events", "net", "leak", "audit", "extension", "security"];
/// The order inside `entry`, lowest first.
const ENTRY: &[&str] = &["api", "cli"];

fn holds(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}\n{}", broken.join("\n"));
}

impl Package {
    /// (layer, room) of a package below `crates/`.
    fn place(&self) -> Option<(&str, &str)> {
        self.folder.strip_prefix("crates/")?.split_once('/')
    }
}

/// Whether a room may depend on another one.
fn is_below((layer, room): (&str, &str), (own_layer, own_room): (&str, &str)) -> bool {
    let index = |list: &[&str], name: &str| list.iter().position(|item| *item == name);
    if layer != own_layer {
        return index(LAYERS, layer) < index(LAYERS, own_layer);
    }
    match layer {
        "infra" => index(INFRA, room) < index(INFRA, own_room),
        "entry" => index(ENTRY, room) < index(ENTRY, own_room),
        _ => false,
    }
}

#[test]
fn invariant_1_dependencies_point_downwards_and_domains_do_not_know_each_other() {
    let packages = packages();
    let mut broken = Vec::new();
    for package in &packages {
        let Some(own) = package.place() else { continue };
        assert!(LAYERS.contains(&own.0), "{} lies in an unknown layer", package.folder);
        for dependency in &package.dependencies {
            let Some(other) = packages.iter().find(|other| other.name == dependency.name) else { continue };
            // A crate may name itself among its dev-dependencies, to switch its test support on.
            let is_itself = dependency.is_dev && other.name == package.name;
            let is_allowed = other.place().is_some_and(|other| is_below(other, own));
            if !is_itself && !is_allowed {
                broken.push(format!("{} depends on {}", package.folder, other.folder));
            }
        }
    }
    holds(&broken, "shared <- infra <- domain <- app <- entry, and inside infra in the listed order");
}

#[test]
fn layer_order_is_as_the_architecture_page_draws_it() {
    let allowed = [
        (("shared", "models"), ("infra", "config")),
        (("infra", "audit"), ("infra", "security")),
        (("infra", "security"), ("domain", "mcp")),
        (("app", "runtime"), ("entry", "api")),
        (("entry", "api"), ("entry", "cli")),
    ];
    let refused = [
        (("domain", "gateway"), ("domain", "mcp")),
        (("infra", "security"), ("infra", "audit")),
        (("infra", "unknown"), ("shared", "models")),
        (("domain", "mcp"), ("infra", "security")),
        (("entry", "cli"), ("entry", "api")),
    ];
    assert!(allowed.iter().all(|(lower, upper)| is_below(*lower, *upper)));
    assert!(!refused.iter().any(|(lower, upper)| is_below(*lower, *upper)));
}

#[test]
fn invariant_2_handlers_hold_no_sql_and_no_repository() {
    let mut broken = Vec::new();
    for file in product().iter().filter(|file| file.path.starts_with("crates/entry/api/src/")) {
        for pattern in ["sqlx", "sql !", "on !", "on_tx !", "repository ::", ":: repository"] {
            broken.extend(file.find(pattern).iter().map(|line| format!("{}: `{pattern}`", file.at(*line))));
        }
        file.each_group(|tokens| {
            for token in tokens {
                if let TokenTree::Ident(ident) = token
                    && ident.to_string().ends_with("Repository")
                {
                    broken.push(format!("{}: `{ident}`", file.at(ident.span().start().line)));
                }
            }
        });
    }
    holds(&broken, "a handler extracts, calls one domain function and renders");
}

fn is_repository(path: &str) -> bool {
    path.contains("/repository/") || path.ends_with("/repository.rs")
}

/// The database crate itself has no repository: it is what repositories are written with.
fn is_database(path: &str) -> bool {
    path.starts_with("crates/infra/database/")
}

#[test]
fn invariant_3_sql_stands_only_in_repositories() {
    const VERBS: &[&str] = &[
        "SELECT ",
        "INSERT INTO ",
        "DELETE FROM ",
        "CREATE TABLE ",
        "ALTER TABLE ",
        "DROP TABLE ",
        "WITH RECURSIVE ",
    ];
    let mut broken = Vec::new();
    for file in product().iter().filter(|file| !is_repository(&file.path) && !is_database(&file.path)) {
        broken.extend(file.find("sql !").iter().map(|line| format!("{}: `sql!`", file.at(*line))));
        for (line, text) in file.strings() {
            let text = text.trim_start();
            let is_update = text.starts_with("UPDATE ") && text.contains(" SET ");
            if is_update || VERBS.iter().any(|verb| text.starts_with(verb)) {
                broken.push(format!("{}: {text:.60}", file.at(line)));
            }
        }
    }
    holds(&broken, "SQL text stands only in `repository/` folders");
}

/// The functions of sqlx that take a statement.
const QUERIES: &[&str] = &["query", "query_as", "query_scalar", "query_with", "query_as_with", "raw_sql"];

/// Lines on which a statement is given to sqlx as something else than `sql!`.
fn unmarked_queries(file: &File) -> Vec<usize> {
    let mut found = Vec::new();
    file.each_group(|tokens| {
        for (at, token) in tokens.iter().enumerate() {
            let TokenTree::Ident(ident) = token else { continue };
            let is_of_sqlx = at >= 3 && matches!(&tokens[at - 3], TokenTree::Ident(path) if path == "sqlx");
            if is_of_sqlx
                && QUERIES.iter().any(|query| ident == query)
                && let Some(arguments) = arguments(&tokens[at + 1..])
                && !arguments.replace(' ', "").starts_with("sql!(")
            {
                found.push(ident.span().start().line);
            }
        }
    });
    found
}

/// The text between the parentheses of a call, after type parameters if there are any; nothing if it is no call.
fn arguments(after: &[TokenTree]) -> Option<String> {
    let starts_generic = matches!(after, [TokenTree::Punct(a), TokenTree::Punct(b), TokenTree::Punct(c), ..]
        if a.as_char() == ':' && b.as_char() == ':' && c.as_char() == '<');
    let group = if starts_generic {
        after.iter().find(|token| is_parenthesis(token))
    } else {
        after.first().filter(|token| is_parenthesis(token))
    };
    match group {
        Some(TokenTree::Group(group)) => Some(group.stream().to_string()),
        _ => None,
    }
}

fn is_parenthesis(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis)
}

/// Where statements are not for both engines, or not written out; the tests of these rooms run them.
const UNMARKED: &[(&str, &str)] = &[
    (
        "crates/infra/audit/src/repository/",
        "the ledger builds those of registered tables, from their `Table`",
    ),
    ("crates/infra/security/src/repository/rates.rs", "counters are shared on PostgreSQL alone"),
];

#[test]
fn invariant_3_every_statement_is_marked_for_the_prepare_test() {
    let mut broken = Vec::new();
    let is_unmarked = |path: &str| UNMARKED.iter().any(|(prefix, _)| path.starts_with(prefix));
    let exempt = |file: &&File| is_database(&file.path) || is_unmarked(&file.path);
    for file in product().iter().filter(|file| !exempt(file)) {
        broken.extend(unmarked_queries(file).iter().map(|line| file.at(*line).to_string()));
    }
    holds(
        &broken,
        "sqlx is given statements as sql!(\"…\") alone, so that each is prepared on both engines by a test",
    );
}

#[test]
fn an_unmarked_statement_is_found() {
    let text = "use sqlx::query::Query;\nfn a() {\nsqlx::query(sql!(\"SELECT 1\"));\nsqlx::query_as::<_, (i64, Row)>(text);
        sqlx::query_as::<_, Row>(sql!(\"SELECT 1\"));\nquery(text);\nsqlx::query(&text);\n}";
    assert_eq!(unmarked_queries(&File::parse("a.rs".to_owned(), text.to_owned())), [4, 7]);
}

/// Where an exception to `disallowed_methods` may stand, and for what. A prefix that ends in a slash is a folder.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("crates/shared/models/src/clock.rs", "the clock itself"),
    ("crates/shared/models/src/ids.rs", "the id generators"),
    ("crates/shared/models/src/tasks.rs", "the task tracker"),
    ("crates/infra/config/src/", "the environment"),
    ("crates/infra/database/src/pool.rs", "write_tx itself"),
    ("crates/infra/database/src/testing.rs", "the test server's URL"),
    ("crates/infra/net/src/", "the clients for outgoing requests"),
    ("crates/entry/api/src/services/server/runner.rs", "the accept loop, which `Server::drain` waits for"),
];

#[test]
fn invariant_4_clock_randomness_environment_and_tasks_have_one_home_each() {
    let mut broken = Vec::new();
    for file in &product() {
        if EXCEPTIONS.iter().any(|(prefix, _)| file.path.starts_with(prefix)) {
            continue;
        }
        broken
            .extend(file.find("clippy :: disallowed_methods").iter().map(|line| file.at(*line).to_string()));
        for (pattern, homes) in HOMES {
            if !homes.iter().any(|home| file.path.starts_with(home)) {
                broken
                    .extend(file.find(pattern).iter().map(|line| format!("{}: `{pattern}`", file.at(*line))));
            }
        }
    }
    holds(
        &broken,
        "clock, randomness, environment and tasks go through Clock, the generators, config and Tasks",
    );
}

/// What clippy does not forbid, and where it may stand: random bytes, and a thread of one's own.
const HOMES: &[(&str, &[&str])] = &[
    (
        "aws_lc_rs :: rand",
        &["crates/infra/security/src/", "crates/infra/config/src/", "crates/app/runtime/src/demo.rs"],
    ),
    ("thread :: spawn", &["crates/infra/audit/src/"]),
    (
        "thread :: Builder",
        &["crates/infra/audit/src/", "crates/infra/security/src/governance/rate_limit/shared.rs"],
    ),
];

/// Where a secret may be exposed, and what for. The first ten are invariant 5's own list.
const EXPOSES: &[(&str, &str)] = &[
    ("crates/infra/database/src/", "the database's URL"),
    ("crates/infra/audit/src/", "the checkpoint key"),
    ("crates/infra/security/src/keys", "signing"),
    ("crates/infra/security/src/vault", "stored secrets"),
    ("crates/infra/net/src/", "credentials of outgoing requests"),
    ("crates/infra/leak/src/", "the matcher of values in use"),
    ("crates/domain/gateway/src/providers", "the provider's key"),
    ("crates/domain/mcp/src/services/spawner", "the child's environment"),
    ("crates/shared/models/src/secret.rs", "the type itself"),
    ("crates/infra/config/src/", "reading, checking and resolving them"),
    ("crates/infra/security/src/auth/api_key.rs", "a new API key, shown once"),
    ("crates/infra/security/src/standard_webhooks.rs", "signing and verifying webhooks"),
    ("crates/infra/security/src/jwt", "a new token, handed out once"),
    ("crates/domain/oauth/src/at_rest.rs", "the pepper, and the digests of what was shown once"),
    ("crates/domain/oauth/src/api_keys.rs", "a new API key, shown once, and the pepper of stored digests"),
    ("crates/app/runtime/src/boot.rs", "the database's URL and the pepper, handed to their rooms"),
    (
        "crates/entry/cli/src/commands/up.rs",
        "the demo's tokens and the set-up link, shown once, and the address of a new database",
    ),
    ("crates/domain/oauth/src/services/webauthn", "the flow cookie and set-up tokens, for their digests"),
    ("crates/domain/oauth/src/services/providers.rs", "a session's token, which is verified"),
    ("crates/domain/oauth/src/services/setup.rs", "a new set-up token, for its digest and its link"),
    ("crates/domain/oauth/src/services/bridge.rs", "exchange codes, for their digests"),
    ("crates/entry/api/src/routes/bridge.rs", "a bridge's token or code, in the one answer that shows it"),
    ("crates/domain/oauth/src/services/recovery.rs", "recovery codes, for their digests"),
    ("crates/domain/oauth/src/services/password.rs", "passwords, for their hashes"),
    ("crates/domain/oauth/src/services/pages.rs", "the flow cookie, which a form is bound to"),
    ("crates/entry/api/src/routes/oauth/session.rs", "a session's token, in its cookie"),
    (
        "crates/entry/api/src/routes/oauth/login.rs",
        "recovery codes, on the one page that shows them, and the link one leads to",
    ),
    (
        "crates/entry/api/src/routes/users/credentials.rs",
        "recovery codes and API keys, in the one answer that shows them",
    ),
    ("crates/entry/api/src/routes/admin/users.rs", "a set-up link, in the one answer that shows it"),
    ("crates/entry/cli/src/commands/demo/stage.rs", "the secret that the demo looks for in every answer"),
    ("crates/entry/cli/src/database.rs", "the URL of the database that a command opens"),
    ("crates/entry/cli/src/operator.rs", "the operator's token, kept for the command line"),
    ("crates/entry/cli/src/running.rs", "the URL of the database whose lock is tried"),
    ("crates/entry/api/src/routes/admin/keys.rs", "a new API key, in the one answer that shows it"),
    (
        "crates/entry/api/src/routes/oauth/endpoints/",
        "new tokens and codes, in the one answer that shows them",
    ),
    ("crates/domain/oauth/src/at_rest.rs", "the pepper, and what digests are made of"),
    ("crates/domain/oauth/src/services/authorize", "a new code, in the one redirect that carries it"),
    ("crates/domain/oauth/src/services/par.rs", "the name of a pushed request, given to its client"),
    ("crates/entry/api/src/routes/oauth/authorize.rs", "the name of a stored request, in the next address"),
    ("crates/entry/api/src/routes/oauth/flow.rs", "the cookie of a flow"),
    ("crates/entry/api/src/routes/oauth/par.rs", "the name of a pushed request, given to its client"),
    ("crates/domain/oauth/src/services/clients", "new secrets of clients, digested and shown once"),
    (
        "crates/domain/oauth/src/services/validation/client_credentials.rs",
        "the secret that a client sends, compared with stored digests",
    ),
    ("crates/entry/api/src/routes/oauth/clients.rs", "a new client secret, in the one answer that shows it"),
    ("crates/entry/api/src/routes/admin/tokens.rs", "a new token, in the one answer that shows it"),
];

#[test]
fn invariant_5_secrets_are_exposed_only_where_they_are_used() {
    let mut broken = Vec::new();
    for file in
        product().iter().filter(|file| !EXPOSES.iter().any(|(prefix, _)| file.path.starts_with(prefix)))
    {
        for pattern in [". expose", "expose_secret"] {
            broken.extend(file.find(pattern).iter().map(|line| file.at(*line).to_string()));
        }
    }
    holds(&broken, "a secret is exposed only in the rooms that invariant 5 lists");
}

/// The trees that the seed documents draw with a `mod.rs`.
const SEED_TREES: &[&str] = &[
    "crates/infra/security/src/auth/",
    "crates/infra/security/src/authz/",
    "crates/infra/security/src/extraction/",
    "crates/infra/security/src/jwt/",
    "crates/infra/security/src/services/",
    "crates/infra/security/src/session/",
    "crates/domain/oauth/src/",
    "crates/entry/api/src/models/",
    "crates/entry/api/src/routes/",
    "crates/entry/api/src/services/",
];

#[test]
fn modules_are_files_beside_their_folder() {
    let files = product();
    let odd: Vec<String> = files
        .iter()
        .filter(|file| {
            file.path.ends_with("/mod.rs") && !SEED_TREES.iter().any(|tree| file.path.starts_with(tree))
        })
        .map(|file| file.path.clone())
        .collect();
    holds(&odd, "`foo.rs` + `foo/`, except where the seed documents draw a mod.rs");
}

#[test]
fn every_file_says_what_it_is() {
    let files = product();
    let silent: Vec<String> =
        files.iter().filter(|file| !file.text.starts_with("//!")).map(|file| file.path.clone()).collect();
    holds(&silent, "a file opens with `//!`: what it is and why it is here");
}

#[test]
fn test_support_is_switched_on_for_tests_alone() {
    let mut broken = Vec::new();
    for package in packages() {
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.is_dev) {
            if dependency.features.iter().any(|feature| feature == "test-support") {
                broken.push(format!("{} switches it on in {}", package.folder, dependency.name));
            }
        }
    }
    holds(&broken, "the feature test-support is named in dev-dependencies alone");
}

/// Crates that one room alone may use, and that room.
const RESERVED: &[(&str, &[&str])] = &[
    ("rusqlite", &["crates/infra/audit"]),
    ("sqlx", &["crates/infra", "crates/domain", "crates/app/runtime", "tests", "xtask"]),
    ("secrecy", &["crates/shared/models"]),
    ("anyhow", &["crates/entry/cli", "xtask", "tests"]),
];

#[test]
fn libraries_with_a_home_are_used_there_alone() {
    let mut broken = Vec::new();
    for package in packages() {
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.is_dev) {
            let homes = RESERVED.iter().find(|(name, _)| *name == dependency.name).map(|(_, homes)| *homes);
            if homes.is_some_and(|homes| !homes.iter().any(|home| package.folder.starts_with(home))) {
                broken.push(format!("{} uses {}", package.folder, dependency.name));
            }
        }
    }
    holds(&broken, "these libraries have one home");
}

#[test]
fn every_package_takes_the_workspace_lints() {
    let mut broken = Vec::new();
    for package in packages() {
        let manifest = std::fs::read_to_string(root().join(&package.folder).join("Cargo.toml")).unwrap();
        if !manifest.replace(' ', "").contains("[lints]\nworkspace=true") {
            broken.push(package.folder.clone());
        }
    }
    holds(&broken, "a manifest says `[lints] workspace = true`");
}
