//! `scope_check` (SEC-82): whether the caller's permissions suffice for the tool. What a caller says about itself
//! (agent, scope) can only narrow what its credential allows.

use super::facts::CallFacts;
use super::params::{self, ParamError};
use super::policy::{GovernancePolicy, Outcome, Reads};
use super::tool_name::{ToolName, fits};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use systemprompt_models::{Permission, PermissionError};

pub const ID: &str = "scope_check";

const ALLOWED: [&str; 3] = ["admin_only_prefixes", "agents", "tools"];

#[derive(Deserialize)]
#[serde(default)]
struct Params {
    admin_only_prefixes: Vec<String>,
    agents: BTreeMap<String, Permissions>,
    tools: BTreeMap<String, String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            admin_only_prefixes: vec!["mcp__systemprompt__".to_owned()],
            agents: BTreeMap::new(),
            tools: BTreeMap::new(),
        }
    }
}

/// A list, or space-separated as in a scope.
#[derive(Deserialize)]
#[serde(untagged)]
enum Permissions {
    List(Vec<String>),
    Scope(String),
}

/// The compiled policy.
pub struct ScopeCheck {
    admin_only_prefixes: Vec<String>,
    agents: BTreeMap<String, Vec<Permission>>,
    tools: Vec<(String, Permission)>,
}

impl ScopeCheck {
    pub fn new(params: &Value) -> Result<Self, ParamError> {
        let params: Params = params::read(params, &ALLOWED)?;
        let agents = params.agents.into_iter().map(|(agent, permissions)| {
            let words = match permissions {
                Permissions::List(words) => words,
                Permissions::Scope(scope) => scope.split_ascii_whitespace().map(str::to_owned).collect(),
            };
            let set = words.iter().map(|w| parse(["agents", &agent], w)).collect::<Result<_, _>>()?;
            Ok((agent, set))
        });
        let tools = params.tools.into_iter().map(|(pattern, word)| {
            let permission = parse(["tools", &pattern], &word)?;
            Ok((pattern, permission))
        });
        Ok(Self {
            admin_only_prefixes: params.admin_only_prefixes,
            agents: agents.collect::<Result<_, ParamError>>()?,
            tools: tools.collect::<Result<_, ParamError>>()?,
        })
    }

    /// The credential's permissions, as far as the named agent and the given scope leave them.
    fn effective(&self, facts: &CallFacts<'_>) -> Vec<Permission> {
        let agent = facts.agent.map(|a| self.agents.get(a).map_or(&[Permission::User][..], Vec::as_slice));
        let scope: Option<Vec<Permission>> =
            facts.agent_scope.map(|s| s.split_ascii_whitespace().filter_map(|w| w.parse().ok()).collect());
        let allows = |set: Option<&[Permission]>, p: &Permission| set.is_none_or(|s| s.contains(p));
        facts
            .permissions
            .iter()
            .filter(|p| allows(agent, p) && allows(scope.as_deref(), p))
            .copied()
            .collect()
    }

    /// The permissions that a tool asks for.
    fn required(&self, tool: &ToolName<'_>) -> Vec<Permission> {
        let qualified = tool.qualified();
        let names = [tool.given, qualified.as_str()];
        let prefixed = |prefix: &String| names.iter().any(|n| n.starts_with(prefix.as_str()));
        let mut required: Vec<Permission> = self
            .tools
            .iter()
            .filter(|(pattern, _)| tool.is(pattern) || names.iter().any(|n| fits(pattern, n)))
            .map(|(_, permission)| *permission)
            .collect();
        if self.admin_only_prefixes.iter().any(prefixed) {
            required.push(Permission::Admin);
        }
        required
    }
}

fn parse(place: [&str; 2], word: &str) -> Result<Permission, ParamError> {
    word.parse().map_err(|e: PermissionError| ParamError::value(place, e))
}

impl GovernancePolicy for ScopeCheck {
    fn evaluate(&self, facts: &CallFacts<'_>) -> Outcome {
        let Some(tool) = facts.tool else {
            return Outcome::Skip { detail: "no tool is called".into() };
        };
        let required = self.required(&ToolName::new(tool, facts.server));
        if required.is_empty() {
            return Outcome::PASS;
        }
        let effective = self.effective(facts);
        match required.iter().find(|r| !effective.contains(r)) {
            None => Outcome::PASS,
            Some(missing) => Outcome::fail(
                "scope_violation",
                format!(
                    "this tool needs the permission `{}`, which this call does not have",
                    missing.as_str()
                ),
            ),
        }
    }

    fn reads(&self, _facts: &CallFacts<'_>) -> Reads {
        Reads::Names
    }
}
