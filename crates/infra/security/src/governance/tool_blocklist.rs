//! `tool_blocklist` (SEC-83): tools whose name says that they destroy. The name is cut into words; a word must be equal.

use super::facts::CallFacts;
use super::params::{self, ParamError};
use super::policy::{GovernancePolicy, Outcome};
use super::tool_name::ToolName;
use serde::Deserialize;
use serde_json::Value;
use systemprompt_models::{Permission, PermissionError};
use unicode_normalization::UnicodeNormalization;

pub const ID: &str = "tool_blocklist";

const ALLOWED: [&str; 3] = ["tokens", "allow_tools", "exempt_permissions"];

#[derive(Deserialize)]
#[serde(default)]
struct Params {
    tokens: Vec<String>,
    allow_tools: Vec<String>,
    exempt_permissions: Vec<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            tokens: ["delete", "drop", "destroy"].map(str::to_owned).to_vec(),
            allow_tools: Vec::new(),
            exempt_permissions: Vec::new(),
        }
    }
}

/// The compiled policy.
pub struct ToolBlocklist {
    tokens: Vec<String>,
    allow_tools: Vec<String>,
    exempt: Vec<Permission>,
}

impl ToolBlocklist {
    pub fn new(params: &Value) -> Result<Self, ParamError> {
        let params: Params = params::read(params, &ALLOWED)?;
        for token in &params.tokens {
            if words(token) != [token.to_lowercase()] {
                let message = format!(
                    "`{token}` is not one word: names are cut at `_ - . / :`, spaces and changes of case"
                );
                return Err(ParamError::value(["tokens"], message));
            }
        }
        let permission =
            |w: &String| w.parse().map_err(|e: PermissionError| ParamError::value(["exempt_permissions"], e));
        Ok(Self {
            tokens: params.tokens.iter().map(|t| t.to_lowercase()).collect(),
            allow_tools: params.allow_tools,
            exempt: params.exempt_permissions.iter().map(permission).collect::<Result<_, _>>()?,
        })
    }
}

impl GovernancePolicy for ToolBlocklist {
    fn evaluate(&self, facts: &CallFacts<'_>) -> Outcome {
        let Some(given) = facts.tool else {
            return Outcome::Skip { detail: "no tool is called".into() };
        };
        let tool = ToolName::new(given, facts.server);
        let words = words(tool.tool);
        let Some(word) = self.tokens.iter().find(|t| words.contains(t)) else {
            return Outcome::PASS;
        };
        if self.allow_tools.iter().any(|name| tool.is(name)) {
            return Outcome::Pass { detail: Some("listed in `allow_tools`".into()) };
        }
        if facts.permissions.iter().any(|p| self.exempt.contains(p)) {
            return Outcome::Pass { detail: Some("the caller's permission is exempt".into()) };
        }
        Outcome::fail("tool_blocked", format!("tools whose name says `{word}` are blocked"))
    }
}

/// The words of a name, in lower case: cut at separators and where the case changes (`deleteFile`, `HTTPDelete`).
fn words(name: &str) -> Vec<String> {
    let name: Vec<char> = name.nfkc().collect();
    let mut words = vec![String::new()];
    let mut previous: Option<char> = None;
    for (at, c) in name.iter().copied().enumerate() {
        if matches!(c, '_' | '-' | '.' | '/' | ':') || c.is_whitespace() {
            words.push(String::new());
            previous = None;
            continue;
        }
        if !c.is_alphanumeric() {
            // Invisible and combining characters do not part a word.
            continue;
        }
        let next_is_lower = name.get(at + 1).is_some_and(|n| n.is_lowercase());
        let changes = match previous {
            Some(p) => {
                c.is_uppercase() && (p.is_lowercase() || p.is_numeric() || p.is_uppercase() && next_is_lower)
            }
            None => false,
        };
        if changes {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
        previous = Some(c);
    }
    words.retain(|w| !w.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_into_folded_words() {
        for (name, want) in [
            ("deleteFile", vec!["delete", "file"]),
            ("DROP_table", vec!["drop", "table"]),
            ("HTTPDelete", vec!["http", "delete"]),
            ("a.b/c:d-e f", vec!["a", "b", "c", "d", "e", "f"]),
            ("dropdown", vec!["dropdown"]),
            ("step2Delete", vec!["step2", "delete"]),
            ("de\u{200b}lete", vec!["delete"]),
            ("\u{ff24}\u{ff32}\u{ff2f}\u{ff30}", vec!["drop"]),
            ("__", vec![]),
        ] {
            assert_eq!(words(name), want, "{name}");
        }
    }

    #[test]
    fn a_token_must_be_one_word() {
        assert!(ToolBlocklist::new(&serde_json::json!({"tokens": ["remove", "Purge"]})).is_ok());
        for token in ["delete_all", "", "deleteAll"] {
            assert!(ToolBlocklist::new(&serde_json::json!({"tokens": [token]})).is_err(), "{token}");
        }
    }
}
