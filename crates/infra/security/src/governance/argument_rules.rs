//! `argument_rules` (SEC-91): an operator's own rules on the arguments of tools: what stands at a place must not, or must, be so. Off
//! until it is configured.

#[cfg(test)]
mod tests;

use super::allow::AllowList;
use super::facts::CallFacts;
use super::findings::{self, Action, Words};
use super::params::{self, ParamError};
use super::policy::{GovernancePolicy, Outcome, Reads};
use super::scan::{Confidence, Finding, MAX_DEPTH, MAX_FINDINGS, SecretScanner};
use super::tool_name::{ToolName, fits};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use systemprompt_models::json::{JsonFault, check_object};

pub const ID: &str = "argument_rules";

/// What the names of its findings begin with.
pub(super) const PREFIX: &str = "argument-";

const ALLOWED: [&str; 1] = ["rules"];
/// Most rules.
const MAX_RULES: usize = 256;
/// Largest compiled regex, in bytes.
const REGEX_SIZE: usize = 1024 * 1024;
const WORDS: Words = Words {
    reason: "argument_rule",
    what: "an argument that a rule of this installation names",
    advice: "change it, or ask who runs this installation",
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Params {
    rules: Vec<Source>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    /// Name in findings, behind `argument-`; its number if absent.
    #[serde(default)]
    id: Option<String>,
    /// Tools; `*` stands for any text.
    tool: String,
    /// JSON pointers; `*` stands for any text.
    pointer: String,
    #[serde(default)]
    regex: Option<String>,
    #[serde(default)]
    equals: Option<Value>,
    #[serde(default = "block")]
    action: Action,
}

fn block() -> Action {
    Action::Block
}

enum Test {
    Regex(Regex),
    Equals(Value),
}

struct Rule {
    id: Arc<str>,
    tool: String,
    pointer: String,
    test: Test,
    action: Action,
}

/// The compiled policy.
pub struct ArgumentRules {
    scanner: Arc<SecretScanner>,
    allowed: AllowList,
    rules: Vec<Rule>,
}

impl ArgumentRules {
    pub fn new(params: &Value, scanner: Arc<SecretScanner>, allowed: AllowList) -> Result<Self, ParamError> {
        let params: Params = params::read(params, &ALLOWED)?;
        if params.rules.len() > MAX_RULES {
            return Err(ParamError::value(["rules"], format!("at most {MAX_RULES} rules")));
        }
        let rules = params.rules.into_iter().enumerate().map(|(index, source)| compile(index, source));
        Ok(Self { scanner, allowed, rules: rules.collect::<Result<_, _>>()? })
    }

    /// Tests a value and what is in it. `listed` says that it stands in a list at the rule's place: what a tool takes as one text,
    /// many take as a list of texts.
    fn test(&self, rule: &Rule, value: &Value, pointer: &str, listed: bool, findings: &mut Vec<Finding>) {
        let is_here = listed || fits(&rule.pointer, pointer);
        if findings.len() < MAX_FINDINGS && is_here && rule.test.holds(value) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let length = text.len();
            findings.push(self.scanner.finding_of(
                &rule.id,
                (&text, 0..length),
                pointer.into(),
                Confidence::High,
            ));
        }
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.test(rule, item, &format!("{pointer}/{index}"), is_here, findings);
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    self.test(rule, member, &format!("{pointer}/{key}"), false, findings);
                }
            }
            _ => {}
        }
    }

    /// The rules on the tool of a call.
    fn rules_on(&self, facts: &CallFacts<'_>) -> Vec<&Rule> {
        let Some(tool) = facts.tool else { return Vec::new() };
        let tool = ToolName::new(tool, facts.server);
        let applies = |rule: &&Rule| {
            tool.is(&rule.tool) || fits(&rule.tool, tool.given) || fits(&rule.tool, &tool.qualified())
        };
        self.rules.iter().filter(applies).collect()
    }
}

fn compile(index: usize, source: Source) -> Result<Rule, ParamError> {
    let place = index.to_string();
    let wrong = |key: &str, message: String| ParamError::value(["rules", &place, key], message);
    let test = match (source.regex, source.equals) {
        (Some(regex), None) => {
            let regex = RegexBuilder::new(&regex).size_limit(REGEX_SIZE).build();
            Test::Regex(regex.map_err(|e| wrong("regex", e.to_string()))?)
        }
        (None, Some(value)) => Test::Equals(value),
        _ => return Err(wrong("regex", "a rule has either `regex` or `equals`".to_owned())),
    };
    if !source.pointer.is_empty() && !source.pointer.starts_with(['/', '*']) {
        return Err(wrong("pointer", "a JSON pointer begins with `/`; `*` stands for any text".to_owned()));
    }
    let id = source.id.map_or_else(|| format!("{PREFIX}{}", index + 1), |id| format!("{PREFIX}{id}"));
    if id.len() == PREFIX.len() || id.len() > 64 {
        return Err(wrong("id", "1 to 64 characters".to_owned()));
    }
    Ok(Rule { id: id.into(), tool: source.tool, pointer: source.pointer, test, action: source.action })
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Equals(wanted) => wanted == value,
            Self::Regex(regex) => match value {
                Value::String(text) => regex.is_match(text),
                Value::Number(number) => regex.is_match(&number.to_string()),
                Value::Bool(truth) => regex.is_match(if *truth { "true" } else { "false" }),
                Value::Array(items) => {
                    let words: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                    words.is_some_and(|words| words.len() > 1 && regex.is_match(&words.join(" ")))
                }
                Value::Null | Value::Object(_) => false,
            },
        }
    }
}

impl GovernancePolicy for ArgumentRules {
    fn evaluate(&self, facts: &CallFacts<'_>) -> Outcome {
        if facts.tool.is_none() {
            return Outcome::Skip { detail: "no tool is called".into() };
        }
        let rules = self.rules_on(facts);
        // The arguments come first.
        let (false, Some(arguments)) = (rules.is_empty(), facts.segments.first()) else {
            return Outcome::PASS;
        };
        let Ok(value) = serde_json::from_slice::<Value>(arguments.json) else {
            return Outcome::fail("argument_rule", "the arguments are no JSON, which the rules on them need");
        };
        // Of two members of one name the tool may take the one that is not judged here.
        match check_object(arguments.json, MAX_DEPTH) {
            Ok(()) | Err(JsonFault::NotAnObject) => {}
            Err(fault) => {
                let message = format!("the arguments cannot be judged by the rules on them: {fault}");
                return Outcome::fail("argument_rule", message);
            }
        }
        let mut findings = Vec::new();
        for rule in &rules {
            self.test(rule, &value, "", false, &mut findings);
        }
        let action = |finding: &Finding| {
            let of = rules.iter().filter(|rule| rule.id == finding.rule_id).map(|rule| rule.action);
            of.max().unwrap_or(Action::Block)
        };
        findings::outcome(findings, facts, &self.allowed, &WORDS, &action)
    }

    /// Most calls are of a tool that no rule is about.
    fn reads(&self, facts: &CallFacts<'_>) -> Reads {
        if self.rules_on(facts).is_empty() { Reads::Names } else { Reads::Arguments }
    }
}
