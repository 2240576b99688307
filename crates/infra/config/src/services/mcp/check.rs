//! What the schema cannot say about server files: names, the fields each type has, and which secrets may go to a child.

use super::{INHERIT, McpFile, McpServerConfig, McpServerType};
use crate::diagnostic::Diagnostic;
use crate::document::{Document, Step, steps};
use crate::profile::secrets::SecretsValidationMode;
use crate::secrets::{Secrets, names};
use crate::services::Checks;
use std::collections::{BTreeMap, HashMap};
use systemprompt_models::Permission;

const RESERVED_NAMES: [&str; 4] = ["all", "registry", "executions", "oauth"];
/// Variables that the spawner sets for every child.
const SPAWNER_VARIABLES: [&str; 3] = ["HOME", "TMPDIR", "PATH"];

/// `^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$`
fn is_server_name(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 48
        && edge(name.bytes().next())
        && edge(name.bytes().next_back())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Merges the files of the folder, servers by name.
pub(in crate::services) fn check(
    files: &[(Document, McpFile)],
    checks: &dyn Checks,
    findings: &mut Vec<Diagnostic>,
) -> BTreeMap<String, McpServerConfig> {
    let mut servers: BTreeMap<String, McpServerConfig> = BTreeMap::new();
    let mut places: HashMap<&str, String> = HashMap::new();
    for (document, file) in files {
        for (name, server) in &file.mcp_servers {
            let path = steps!["mcp_servers", name.as_str()];
            if !is_server_name(name) {
                let finding = Diagnostic::error("invalid_name", format!("`{name}` is not a server name")).with_remedy(
                    "names have 1 to 48 lower-case letters, digits and `-`, and begin and end with a letter or digit",
                );
                findings.push(document.locate_key(finding, &path));
            }
            if RESERVED_NAMES.contains(&name.as_str()) {
                let finding =
                    Diagnostic::error("reserved_name", format!("`{name}` is part of the address space"))
                        .with_remedy("choose another name");
                findings.push(document.locate_key(finding, &path));
            }
            if let Some(first) = places.get(name.as_str()) {
                let finding = Diagnostic::error(
                    "duplicate_name",
                    format!("the server `{name}` is defined already at {first}"),
                );
                findings.push(document.locate_key(finding, &path));
            }
            places.insert(name, document.spot(&path));
            Server { document, name, config: server, findings }.check(checks);
            servers.insert(name.clone(), server.clone());
        }
    }
    servers
}

struct Server<'a> {
    document: &'a Document,
    name: &'a str,
    config: &'a McpServerConfig,
    findings: &'a mut Vec<Diagnostic>,
}

impl Server<'_> {
    fn add(&mut self, rest: &[Step], finding: Diagnostic) {
        let path: Vec<Step> =
            steps!["mcp_servers", self.name].into_iter().chain(rest.iter().cloned()).collect();
        self.findings.push(self.document.locate(finding, &path));
    }

    fn check(&mut self, checks: &dyn Checks) {
        self.fields_of_type();
        for (index, scope) in self.config.oauth.scopes.iter().enumerate() {
            if scope.parse::<Permission>().is_err() {
                let words = Permission::ALL.map(Permission::as_str);
                let finding = Diagnostic::error("invalid_value", format!("unknown scope `{scope}`"))
                    .suggesting(scope, words)
                    .with_allowed(words);
                self.add(&steps!["oauth", "scopes", index], finding);
            }
        }
        for (list, patterns) in [("allow", &self.config.tools.allow), ("deny", &self.config.tools.deny)] {
            for (index, pattern) in patterns.iter().enumerate() {
                let inner_star = pattern.strip_suffix('*').unwrap_or(pattern).contains('*');
                if inner_star || pattern.is_empty() {
                    let finding =
                        Diagnostic::error("invalid_value", "a tool name, exact or with `*` at its end");
                    self.add(&steps!["tools", list, index], finding);
                }
            }
        }
        if self.config.timeouts.call_max_ms < self.config.timeouts.call_ms {
            let finding = Diagnostic::error("invalid_value", "`call_max_ms` must not be less than `call_ms`");
            self.add(&steps!["timeouts", "call_max_ms"], finding);
        }
        self.variables(checks);
        self.secrets();
    }

    fn fields_of_type(&mut self) {
        let server = self.config;
        let (needed, has_needed, foreign): (_, _, &[(&str, bool)]) = match server.kind {
            McpServerType::Internal => (
                "binary",
                server.binary.is_some(),
                &[
                    ("command", server.command.is_some()),
                    ("args", !server.args.is_empty()),
                    ("cwd", server.cwd.is_some()),
                ],
            ),
            McpServerType::Stdio => {
                ("command", server.command.is_some(), &[("binary", server.binary.is_some())])
            }
        };
        let kind = match server.kind {
            McpServerType::Internal => "internal",
            McpServerType::Stdio => "stdio",
        };
        if !has_needed {
            let finding =
                Diagnostic::error("missing_key", format!("a server of type {kind} needs `{needed}`"));
            self.add(&steps!["type"], finding);
        }
        for (key, _) in foreign.iter().filter(|(_, is_set)| *is_set) {
            let finding =
                Diagnostic::error("not_for_type", format!("a server of type {kind} has no `{key}`"));
            self.add(&steps![*key], finding);
        }
    }

    fn variables(&mut self, checks: &dyn Checks) {
        for (name, value) in &self.config.env {
            let path = steps!["env", name.as_str()];
            let upper = name.to_ascii_uppercase();
            if !names::is_well_formed(name) {
                self.add(
                    &path,
                    Diagnostic::error("invalid_name", format!("`{name}` is not a variable name")),
                );
            } else if upper.starts_with("SYSTEMPROMPT_") || SPAWNER_VARIABLES.contains(&upper.as_str()) {
                let finding =
                    Diagnostic::error("reserved_variable", format!("`{name}` is set by the spawner"));
                self.add(&path, finding);
            } else if value.contains('\0') {
                self.add(&path, Diagnostic::error("invalid_value", "a variable cannot hold a NUL byte"));
            } else if checks.looks_like_a_secret(value) {
                let finding = Diagnostic::error(
                    "secret_in_env",
                    format!("the value of `{name}` looks like a secret"),
                )
                .with_remedy(
                    "move it to secrets: `systemprompt admin secrets set`, then name it under `secrets`",
                );
                self.add(&path, finding);
            }
        }
    }

    fn secrets(&mut self) {
        let mut variables: HashMap<String, usize> = HashMap::new();
        for (index, entry) in self.config.secrets.iter().enumerate() {
            let name = entry.name();
            let path = steps!["secrets", index];
            if names::is_platform(name) || entry.variable().is_some_and(names::is_platform) {
                let finding = Diagnostic::error(
                    "platform_secret_not_leasable",
                    format!("`{name}` is a platform secret and never goes to a child"),
                );
                self.add(&path, finding);
                continue;
            }
            if !names::is_well_formed(name) {
                self.add(&path, Diagnostic::error("invalid_name", "not the name of a secret"));
                continue;
            }
            if let Some(variable) = entry.variable() {
                let upper = variable.to_ascii_uppercase();
                if names::steers_a_child(variable) || name == INHERIT {
                    let finding =
                        Diagnostic::error("reserved_variable", format!("no secret may appear as `{upper}`"));
                    self.add(&path, finding);
                }
            }
            let variable = entry.variable().unwrap_or(name).to_ascii_uppercase();
            if self.config.env.keys().any(|k| k.eq_ignore_ascii_case(&variable)) {
                let finding =
                    Diagnostic::error("duplicate_name", format!("`{variable}` is also set under `env`"));
                self.add(&path, finding);
            }
            if variables.insert(variable.clone(), index).is_some() {
                let finding =
                    Diagnostic::error("duplicate_name", format!("two entries appear as `{variable}`"));
                self.add(&path, finding);
            }
        }
    }
}

/// Judges the declared secrets against those that exist: an alias of a platform secret is refused always, a missing one as
/// the validation mode says.
pub(crate) fn check_secrets(
    files: &[(Document, McpFile)],
    secrets: &Secrets,
    mode: SecretsValidationMode,
) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for (document, file) in files {
        for (name, server) in file.mcp_servers.iter().filter(|(_, server)| server.enabled) {
            for (index, entry) in server.secrets.iter().enumerate() {
                let path = steps!["mcp_servers", name.as_str(), "secrets", index];
                findings.extend(
                    judge(entry.name(), secrets, mode).map(|finding| document.locate(finding, &path)),
                );
            }
        }
    }
    findings
}

fn judge(name: &str, secrets: &Secrets, mode: SecretsValidationMode) -> Option<Diagnostic> {
    if secrets.equals_platform(name) {
        return Some(Diagnostic::error(
            "platform_secret_not_leasable",
            format!("`{name}` has the value of a platform secret and never goes to a child"),
        ));
    }
    if name == INHERIT || secrets.get(name).is_some() || mode == SecretsValidationMode::Skip {
        return None;
    }
    let finding =
        Diagnostic::error("secret_missing", format!("the secret `{name}` is declared but has no value"))
            .with_remedy(format!("systemprompt admin secrets set {name}; until then the server is refused"));
    Some(if mode == SecretsValidationMode::Strict { finding } else { finding.as_warning() })
}
