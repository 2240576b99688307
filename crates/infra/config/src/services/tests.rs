use super::*;
use crate::profile::values::ByteSize;
use crate::testing::Folder;
use access_control::{AccessEffect, EntityType};
use std::sync::Arc;

#[test]
fn rules_of_several_files_are_one_set() {
    let folder = Folder::new();
    folder.write(
        "services/access-control/a.yaml",
        "departments: [{name: eng, manager_email: m@example.com}]\n\
         entities: [{type: mcp_server, id: demo, default_included: true}]\n",
    );
    folder.write(
        "services/access-control/b.yml",
        "rules:\n  - {entity_type: mcp_server, entity_id: demo, roles: [user, admin], departments: [eng]}\n\
        \x20 - {entity_type: mcp_tool, entity_match: 'demo/*', access: deny, roles: [guest], justification: no}\n",
    );
    folder.write("services/access-control/.hidden.yaml", "nonsense");
    folder.write("services/access-control/README.md", "nonsense");
    let rules = folder.load().unwrap().services.access_control.clone();
    assert_eq!(rules.departments[0].name, "eng");
    assert!(rules.entities[0].default_included);
    assert_eq!(rules.rules[0].access, AccessEffect::Allow);
    assert_eq!(rules.rules[0].entity(), ("demo", false));
    assert_eq!(rules.rules[1].entity(), ("demo/*", true));
    assert_eq!(
        (rules.rules[1].entity_type, rules.rules[1].access),
        (EntityType::McpTool, AccessEffect::Deny)
    );
}

#[test]
fn a_single_text_is_read_as_a_file_of_the_folder_is() {
    let reader = access_control::AccessControlReader::default();
    let file = std::path::Path::new("draft.yaml");
    let good = "rules: [{entity_type: skill, entity_id: a, roles: [x]}]";
    assert_eq!(reader.read(file, good).unwrap().rules[0].entity(), ("a", false));
    let bad = "rules:\n  - {entity_type: skill, entity_id: a, departments: [eng]}\nusers: []\n";
    for (text, code, line) in [(bad, "refused_key", 3), ("rules: [", "yaml_syntax", 1)] {
        let findings = reader.read(file, text).unwrap_err().0;
        assert_eq!((findings[0].code, findings[0].line), (code, line), "{findings:?}");
    }
    let undeclared = reader.read(file, &bad.replace("users: []\n", "")).unwrap_err().0;
    assert_eq!((undeclared[0].code, undeclared[0].line), ("undeclared_department", 2));
}

#[test]
fn a_bad_rule_names_place_and_remedy() {
    let rule =
        |rest: &str| format!("departments: [{{name: eng}}]\nrules:\n  - {{entity_type: plugin, {rest}}}\n");
    for (text, code, line, says) in [
        (rule("entity_id: a, role: [user]"), "unknown_key", 3, "did you mean `roles`?"),
        (rule("entity_id: a, roles: [user], users: [ada]"), "refused_key", 3, "never come from YAML"),
        (rule("entity_id: a"), "subject_required", 3, "`roles` or `departments`"),
        (rule("roles: [user]"), "entity_required", 3, "one of them is missing"),
        (rule("entity_id: a, entity_match: 'a*', roles: [user]"), "entity_required", 3, "not both"),
        (rule("entity_match: abc, roles: [user]"), "invalid_value", 3, "`entity_id`"),
        (rule("entity_id: 'a*', roles: [user]"), "invalid_value", 3, "`entity_match`"),
        (rule("entity_id: a, departments: [engg]"), "undeclared_department", 3, "did you mean `eng`?"),
        (rule("entity_id: a, access: maybe, roles: [user]"), "invalid_value", 3, "allowed: allow, deny"),
        (rule("entity_id: a, roles: ['']"), "invalid_value", 3, "at least 1"),
        (rule("entity_id: a, roles: [' user']"), "invalid_value", 3, "white space at its ends"),
        (rule("entity_id: 'a ', roles: [user]"), "invalid_value", 3, "white space at its ends"),
        (rule("entity_match: ' a*', roles: [user]"), "invalid_value", 3, "white space at its ends"),
        (rule("entity_id: \"a\\tb\", roles: [user]"), "invalid_value", 3, "control character"),
        ("entities: [{type: skill, id: ' a'}]\n".into(), "invalid_value", 1, "white space at its ends"),
        (rule("entity_id: a, roles: user"), "invalid_type", 3, "a list"),
        ("rules: [{entity_type: tool, entity_id: a, roles: [user]}]\n".into(), "invalid_value", 1, "mcp_tool"),
        ("rules: [{entity_id: a, roles: [user]}]\n".into(), "missing_key", 1, "`entity_type`"),
        ("entities: [{type: mcp_tool, id: echo}]\n".into(), "invalid_value", 1, "server/tool"),
        ("departments: [{name: a}, {name: a}]\n".into(), "duplicate_name", 1, "a.yaml:1"),
        ("entities:\n  - {type: skill, id: a}\n  - {type: skill, id: a}\n".into(), "duplicate_name", 3, "a.yaml:2"),
        ("users: []\n".into(), "refused_key", 1, "admin rules add"),
        (
            "rules:\n  - {entity_type: skill, entity_id: a, roles: [x, y]}\n  - {entity_type: skill, entity_id: a, access: deny, roles: [y]}\n".into(),
            "allowed_and_denied", 3, "a.yaml:2",
        ),
    ] {
        let folder = Folder::new();
        folder.write("services/access-control/a.yaml", &text);
        let (found, at, _, message) = folder.fault();
        assert_eq!((found, at), (code, line), "{text}\n{message}");
        assert!(message.contains(says), "{text}\n{message}");
    }
}

#[test]
fn governance_lists_only_what_differs() {
    let folder = Folder::new();
    assert_eq!(folder.load().unwrap().services.governance, GovernanceConfig::default());
    folder.write(
        "services/governance/config.yaml",
        "governance:\n  policies:\n    - {id: tool_blocklist, enabled: false}\n    - {id: rate_limit, params: {limit: 5}}\n",
    );
    let governance = folder.load().unwrap().services.governance.clone();
    assert!(governance.enabled);
    assert!(!governance.policies[0].enabled && governance.policies[1].enabled);
    assert_eq!(governance.policies[1].params, serde_json::json!({"limit": 5}));
}

struct Strict;

impl Checks for Strict {
    fn policy_params(&self, policy: &PolicyConfig) -> Vec<ParamProblem> {
        let known = ["limit".to_owned(), "window_s".to_owned()];
        let params = policy.params.as_object().unwrap();
        params
            .keys()
            .filter(|key| !known.contains(key))
            .map(|key| ParamProblem {
                keys: vec![key.clone()],
                unknown_key: true,
                message: format!("unknown parameter `{key}`"),
                allowed: known.to_vec(),
            })
            .collect()
    }

    fn looks_like_a_secret(&self, value: &str) -> bool {
        value.starts_with("AKIA")
    }
}

#[test]
fn a_bad_policy_names_place_and_suggestion() {
    for (policy, code, column, says) in [
        ("{id: tool_blacklist}", "unknown_policy", 12, "did you mean `tool_blocklist`?"),
        ("{id: rate_limit, prams: {}}", "unknown_key", 24, "did you mean `params`?"),
        ("{id: rate_limit, params: []}", "invalid_type", 24, "a mapping"),
        ("{id: rate_limit, params: {limt: 3}}", "unknown_key", 33, "did you mean `limit`?"),
        ("{id: scope_check, after: rate_limit}", "invalid_value", 32, "nothing precedes"),
        ("{id: rate_limit, after: rate_limit}", "invalid_value", 31, "follow itself"),
        ("{id: rate_limit, after: nothing}", "unknown_policy", 31, "scope_check, secret_scan"),
    ] {
        let mut folder = Folder::new();
        folder.checks = Some(Arc::new(Strict));
        folder
            .write("services/governance/config.yaml", &format!("governance:\n  policies:\n    - {policy}\n"));
        let (found, line, at, message) = folder.fault();
        assert_eq!((found, line, at), (code, 3, column), "{policy}\n{message}");
        assert!(message.contains(says), "{policy}\n{message}");
    }
}

#[test]
fn servers_have_the_defaults_of_the_documents() {
    let folder = Folder::new();
    folder.write(
        "services/mcp/demo.yaml",
        "mcp_servers:\n  demo:\n    type: internal\n    binary: demo\n    secrets: [crm_token, {name: crm_token, as: CRM2}]\n\
        \x20 files:\n    type: stdio\n    command: server-files\n    args: [--root, /srv]\n    tools: {deny: [rm_*]}\n    limits: {result_bytes: 1MiB}\n",
    );
    let services = folder.load().unwrap().services.clone();
    let demo = &services.mcp_servers["demo"];
    assert!(demo.enabled && demo.oauth.required && demo.oauth.scopes == ["mcp"]);
    assert_eq!(
        (demo.timeouts.initialize_ms, demo.timeouts.call_ms, demo.timeouts.call_max_ms),
        (30_000, 60_000, 600_000)
    );
    assert_eq!((demo.limits.max_concurrent, demo.limits.per_principal, demo.limits.queue), (64, 16, 128));
    assert_eq!((demo.lifecycle.idle_s, demo.lifecycle.health_interval_s), (None, 30));
    assert_eq!((demo.secrets[1].name(), demo.secrets[1].variable()), ("crm_token", Some("CRM2")));
    let files = &services.mcp_servers["files"];
    assert_eq!(files.limits.result_bytes, ByteSize::mib(1));
    assert!(files.tools.permits("list") && !files.tools.permits("rm_all"));
}

#[test]
fn a_bad_server_names_place_and_remedy() {
    let server =
        |name: &str, rest: &str| format!("mcp_servers:\n  {name}: {{type: internal, binary: demo{rest}}}\n");
    for (text, code, says) in [
        (server("Demo", ""), "invalid_name", "lower-case"),
        (server("a_b", ""), "invalid_name", "lower-case"),
        (server("a-", ""), "invalid_name", "lower-case"),
        (server("registry", ""), "reserved_name", "another name"),
        (server("a", ", comand: x"), "unknown_key", "did you mean `command`?"),
        (server("a", ", command: x"), "not_for_type", "has no `command`"),
        (server("a", ", sandbox: {}"), "unknown_key", "allowed: args, binary"),
        (server("a", ", secrets: [jwt_secret]"), "platform_secret_not_leasable", "jwt_secret"),
        (server("a", ", secrets: [DATABASE_URL]"), "platform_secret_not_leasable", "DATABASE_URL"),
        (
            server("a", ", secrets: [{name: crm_token, as: database_url}]"),
            "platform_secret_not_leasable",
            "never goes",
        ),
        (server("a", ", secrets: [authz_webhook_secret]"), "platform_secret_not_leasable", "never goes"),
        (server("a", ", secrets: [{name: crm_token, as: LD_PRELOAD}]"), "reserved_variable", "LD_PRELOAD"),
        (server("a", ", secrets: [{name: crm_token, inject: fd}]"), "unknown_key", "allowed: as, name"),
        (server("a", ", secrets: [3]"), "invalid_type", "text or a mapping"),
        (server("a", ", secrets: [crm_token, CRM_TOKEN]"), "duplicate_name", "CRM_TOKEN"),
        (server("a", ", secrets: [crm_token], env: {CRM_TOKEN: x}"), "duplicate_name", "under `env`"),
        (server("a", ", secrets: [alias]"), "platform_secret_not_leasable", "value of a platform secret"),
        (server("a", ", env: {1A: x}"), "invalid_name", "variable"),
        (server("a", ", env: {HOME: x}"), "reserved_variable", "spawner"),
        (server("a", ", env: {systemprompt_server: x}"), "reserved_variable", "spawner"),
        (server("a", ", env: {K: AKIAIOSFODNN7}"), "secret_in_env", "move it to secrets"),
        (server("a", ", env: {K: 3}"), "invalid_type", "quotes"),
        (server("a", ", oauth: {scopes: [mpc]}"), "invalid_value", "did you mean `mcp`?"),
        (server("a", ", tools: {allow: ['a*b']}"), "invalid_value", "at its end"),
        (server("a", ", timeouts: {call_ms: 700000}"), "invalid_value", "call_max_ms"),
        (server("a", ", lifecycle: {start: later}"), "invalid_value", "on_demand, always"),
        ("mcp_servers:\n  a: {type: stdio}\n".into(), "missing_key", "needs `command`"),
        ("mcp_servers:\n  a: {type: internal}\n".into(), "missing_key", "needs `binary`"),
        ("mcp_servers:\n  a: {type: http, url: x}\n".into(), "invalid_value", "allowed: internal, stdio"),
    ] {
        let mut folder = Folder::new();
        folder.checks = Some(Arc::new(Strict));
        folder.secrets(
            &crate::testing::GOOD_SECRETS.replace('}', r#", "alias": "0123456789abcdef0123456789abcdef"}"#),
        );
        folder.write("services/mcp/a.yaml", &text);
        let findings = folder.load().err().unwrap_or_else(|| panic!("{text}"));
        let finding =
            findings.iter().find(|f| f.code == code).unwrap_or_else(|| panic!("{text}\n{findings:#?}"));
        assert_eq!(finding.line, 2, "{text}\n{finding}");
        assert!(finding.to_string().contains(says), "{text}\n{finding}");
    }
}

#[test]
fn one_server_in_two_files_names_both() {
    let folder = Folder::new();
    folder.write("services/mcp/a.yaml", "mcp_servers: {x: {type: internal, binary: demo}}\n");
    folder.write("services/mcp/b.yaml", "\nmcp_servers: {x: {type: internal, binary: demo}}\n");
    let (code, line, _, message) = folder.fault();
    assert_eq!((code, line), ("duplicate_name", 2));
    assert!(message.contains("a.yaml:1") && message.contains("b.yaml:2"), "{message}");
}

#[test]
fn a_declared_secret_without_value_is_judged_by_the_mode() {
    for (mode, errors, warnings) in [("strict", 1, 0), ("warn", 0, 1), ("skip", 0, 0)] {
        let folder = Folder::new().env("SYSTEMPROMPT__SECRETS__VALIDATION", mode);
        folder.write(
            "services/mcp/a.yaml",
            "mcp_servers:\n  a: {type: internal, binary: demo, secrets: [nope, inherit]}\n",
        );
        let findings = match folder.load() {
            Ok(loaded) => loaded.warnings,
            Err(findings) => findings,
        };
        let count =
            |error| findings.iter().filter(|f| f.is_error() == error && f.code == "secret_missing").count();
        assert_eq!((count(true), count(false)), (errors, warnings), "{mode}: {findings:?}");
    }
}

#[test]
fn what_nothing_reads_is_warned_of() {
    let folder = Folder::new();
    folder.write("services/acces-control/a.yaml", "x: 1\n");
    folder.write("services/stray.yaml", "x: 1\n");
    folder.write("services/governance/confg.yaml", "governance: {}\n");
    folder.write("services/notes/readme.txt", "nothing\n");
    let warnings = folder.load().unwrap().warnings;
    assert_eq!(warnings.iter().map(|w| w.code).collect::<Vec<_>>(), ["unread_service"; 3], "{warnings:?}");
    assert!(warnings[0].to_string().contains("did you mean `access-control`?"), "{}", warnings[0]);
}

#[test]
fn references_of_the_profile_mean_nothing_in_services() {
    let folder = Folder::new().env("A", "expanded");
    folder.write("services/mcp/a.yaml", "mcp_servers: {x: {type: stdio, command: '${A}'}}\n");
    assert_eq!(folder.load().unwrap().services.mcp_servers["x"].command.as_deref(), Some("${A}"));
}
