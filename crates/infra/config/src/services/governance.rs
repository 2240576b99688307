//! `<services>/governance/config.yaml`: the policies of the pipeline (SEC-81). Without the file the built-in ones run with
//! their defaults; a built-in one that the file does not list stays on.

use super::Checks;
use crate::diagnostic::Diagnostic;
use crate::document::{Document, Step, steps};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The file: one key, `governance`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceFile {
    pub governance: GovernanceConfig,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceConfig {
    /// When false, calls are recorded with the policy `governance_disabled` and not examined.
    pub enabled: bool,
    pub policies: Vec<PolicyConfig>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Id of the policy that this one follows.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    pub after: Option<String>,
    /// The policy's own settings, which it checks itself.
    #[serde(default = "no_params")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub params: serde_json::Value,
}

/// Ids of the policies that always exist, in their order.
pub const BUILT_IN_POLICIES: [&str; 7] = [
    "scope_check",
    "secret_scan",
    "tool_blocklist",
    "rate_limit",
    "pii",
    "prompt_injection",
    "argument_rules",
];
/// Those of them that do nothing until the file lists them.
pub const OFF_UNTIL_LISTED: [&str; 1] = ["argument_rules"];

fn yes() -> bool {
    true
}

fn no_params() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

impl Default for GovernanceConfig {
    fn default() -> Self {
        Self { enabled: true, policies: Vec::new() }
    }
}

/// The one file that counts is `config.yaml`; its ids and places in the chain are checked here, parameters by the policies.
pub(super) fn check(
    files: Vec<(Document, GovernanceFile)>,
    checks: &dyn Checks,
    findings: &mut Vec<Diagnostic>,
) -> GovernanceConfig {
    let mut config = GovernanceConfig::default();
    for (document, file) in files {
        let name = document.file().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name != "config" {
            let finding = Diagnostic::warning("unread_service", format!("nothing reads `{name}` here"));
            findings.push(finding.with_allowed(["config.yaml"]).in_file(document.file()));
            continue;
        }
        policies(&document, &file.governance, checks, findings);
        if !file.governance.enabled {
            let finding =
                Diagnostic::warning("governance_disabled", "the governance pipeline is switched off");
            findings.push(document.locate(finding, &steps!["governance", "enabled"]));
        }
        config = file.governance;
    }
    config
}

fn policies(
    document: &Document,
    config: &GovernanceConfig,
    checks: &dyn Checks,
    findings: &mut Vec<Diagnostic>,
) {
    let known = checks.policy_ids();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, policy) in config.policies.iter().enumerate() {
        let path = |key: &str| steps!["governance", "policies", index, key];
        let mut id = |text: &str, key: &str| {
            let is_known = known.iter().any(|k| k == text);
            if !is_known {
                let finding = Diagnostic::error("unknown_policy", format!("there is no policy `{text}`"))
                    .suggesting(text, known.iter().map(String::as_str))
                    .with_allowed(known.iter().map(String::as_str));
                findings.push(document.locate(finding, &path(key)));
            }
            is_known
        };
        let is_known = id(&policy.id, "id");
        if let Some(after) = &policy.after {
            id(after, "after");
            let fault = if *after == policy.id {
                Some("a policy cannot follow itself")
            } else if policy.id == "scope_check" {
                Some("nothing precedes scope_check")
            } else {
                None
            };
            findings.extend(
                fault.map(|text| document.locate(Diagnostic::error("invalid_value", text), &path("after"))),
            );
        }
        if let Some(first) = seen.insert(&policy.id, index) {
            let spot = document.spot(&steps!["governance", "policies", first, "id"]);
            let message = format!("the policy `{}` stands already at {spot}", policy.id);
            findings.push(document.locate(Diagnostic::error("duplicate_name", message), &path("id")));
        }
        let problems = if is_known { checks.policy_params(policy) } else { Vec::new() };
        for problem in problems {
            let at: Vec<Step> =
                path("params").into_iter().chain(problem.keys.iter().map(|k| Step::Key(k.clone()))).collect();
            let wrong = problem.keys.last().map_or("", String::as_str);
            let code = if problem.unknown_key { "unknown_key" } else { "invalid_value" };
            let mut finding = Diagnostic::error(code, problem.message);
            if problem.unknown_key {
                finding = finding.suggesting(wrong, problem.allowed.iter().map(String::as_str));
            }
            let finding = finding.with_allowed(problem.allowed.iter().map(String::as_str));
            findings.push(if problem.unknown_key {
                document.locate_key(finding, &at)
            } else {
                document.locate(finding, &at)
            });
        }
    }
}
