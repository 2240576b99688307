//! `tool_blocklist` (SEC-83): tools whose name says that they destroy. The name is cut into words; a word must be equal, or look
//! equal: letters of other scripts count as the Latin ones that they are mistaken for (UTS 39, section 4).

use super::facts::CallFacts;
use super::params::{self, ParamError};
use super::policy::{GovernancePolicy, Outcome, Reads};
use super::tool_name::ToolName;
use serde::Deserialize;
use serde_json::Value;
use systemprompt_models::{Permission, PermissionError};
use unicode_normalization::UnicodeNormalization;
use unicode_security::skeleton;

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

/// A blocked word, and what it looks like.
struct Token {
    word: String,
    look: String,
}

impl Token {
    fn new(word: &str) -> Self {
        Self { word: word.to_lowercase(), look: look(&word.to_lowercase()) }
    }

    /// Whether a word, which is `small` in small letters, reads as this one. Capitals are compared as they look and as their
    /// small letters look: a Greek capital may pass for a Latin one whose small letter it has not.
    fn is(&self, word: &str, small: &str) -> bool {
        let plain = word.bytes().all(|b| b.is_ascii_alphabetic());
        small == self.word || !plain && (look(word) == self.look || look(small) == self.look)
    }
}

/// The same text for all words that look alike.
fn look(word: &str) -> String {
    skeleton(word).collect::<String>().to_lowercase()
}

/// The compiled policy.
pub struct ToolBlocklist {
    tokens: Vec<Token>,
    allow_tools: Vec<String>,
    exempt: Vec<Permission>,
}

impl ToolBlocklist {
    pub fn new(params: &Value) -> Result<Self, ParamError> {
        let params: Params = params::read(params, &ALLOWED)?;
        for token in &params.tokens {
            if words(token) != [token.nfkc().collect::<String>()] {
                let message = format!(
                    "`{token}` is not one word: names are cut at `_ - . / :`, spaces and changes of case"
                );
                return Err(ParamError::value(["tokens"], message));
            }
        }
        let permission =
            |w: &String| w.parse().map_err(|e: PermissionError| ParamError::value(["exempt_permissions"], e));
        Ok(Self {
            tokens: params.tokens.iter().map(|t| Token::new(t)).collect(),
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
        let words: Vec<(String, String)> =
            words(tool.tool).into_iter().map(|word| (word.to_lowercase(), word)).collect();
        let names = |token: &&Token| words.iter().any(|(small, word)| token.is(word, small));
        let Some(token) = self.tokens.iter().find(names) else {
            return Outcome::PASS;
        };
        if self.allow_tools.iter().any(|name| tool.is(name)) {
            return Outcome::Pass { detail: Some("listed in `allow_tools`".into()) };
        }
        if facts.permissions.iter().any(|p| self.exempt.contains(p)) {
            return Outcome::Pass { detail: Some("the caller's permission is exempt".into()) };
        }
        Outcome::fail("tool_blocked", format!("tools whose name says `{}` are blocked", token.word))
    }

    fn reads(&self, _facts: &CallFacts<'_>) -> Reads {
        Reads::Names
    }
}

/// The words of a name: cut at separators and where the case changes (`deleteFile`, `HTTPDelete`).
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
            word.push(c);
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
    fn names_are_cut_into_words() {
        for (name, want) in [
            ("deleteFile", vec!["delete", "File"]),
            ("DROP_table", vec!["DROP", "table"]),
            ("HTTPDelete", vec!["HTTP", "Delete"]),
            ("a.b/c:d-e f", vec!["a", "b", "c", "d", "e", "f"]),
            ("dropdown", vec!["dropdown"]),
            ("step2Delete", vec!["step2", "Delete"]),
            ("de\u{200b}lete", vec!["delete"]),
            ("\u{ff24}\u{ff32}\u{ff2f}\u{ff30}", vec!["DROP"]),
            ("__", vec![]),
        ] {
            assert_eq!(words(name), want, "{name}");
        }
    }

    #[test]
    fn letters_that_look_alike_count_as_the_latin_ones() {
        let blocks = |name: &str| {
            let tokens =
                ToolBlocklist::new(&serde_json::json!({"tokens": ["delete", "drop", "destroy", "remove"]}))
                    .unwrap()
                    .tokens;
            words(name).iter().any(|word| tokens.iter().any(|token| token.is(word, &word.to_lowercase())))
        };
        for name in [
            "delete_file",
            "DELETE",
            "d\u{435}lete_file", // Cyrillic ie
            "d\u{435}l\u{435}t\u{435}",
            "\u{501}elete",                      // Cyrillic komi de
            "dr\u{3bf}p",                        // Greek omicron
            "\u{394}rop_DR\u{39f}P",             // Greek capital omicron
            "D\u{395}L\u{395}\u{3a4}\u{395}",    // Greek capitals
            "D\u{415}L\u{415}\u{422}\u{415}All", // Cyrillic capitals
            "de\u{455}troy",                     // Cyrillic dze
            "dr0p_table",
            "d\u{435}\u{200b}lete",
            "rem\u{43e}ve",
        ] {
            assert!(blocks(name), "{name}");
        }
        for name in [
            "dropdown",
            "undelete",
            "\u{443}\u{434}\u{430}\u{43b}\u{438}\u{442}\u{44c}",
            "deleted",
            "dr\u{f6}p",
            "read_file",
        ] {
            assert!(!blocks(name), "{name}");
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
