//! What the demo model says: a tool call if the text names an offered tool, an answer from a tool's result, or a sentence.

use super::directive::Plan;
use super::{Seed, schema};
use crate::parse::{self, Index, Role};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The newest user message.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub text: String,
    /// Text of its tool results, and whether one of them is an error.
    result: Option<(String, bool)>,
}

/// The content of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text(String),
    Tool { name: String, input: String },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub content: Content,
    pub output_tokens: u64,
    pub stop_reason: String,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    content: Option<Value>,
    is_error: Option<bool>,
}

pub(super) fn turn(index: &Index, body: &[u8]) -> Turn {
    let Some(message) = index.messages.last().filter(|message| message.role == Role::User) else {
        return Turn::default();
    };
    let mut turn = Turn::default();
    if let Some(text) = message.content.and_then(|content| parse::text(content.of(body)).map(String::from)) {
        turn.text = text;
    }
    for span in index.blocks(message) {
        let Ok(block) = serde_json::from_slice::<Block>(span.of(body)) else { continue };
        match (block.kind.as_deref(), block.text, block.content) {
            (Some("text"), Some(text), _) => {
                if !turn.text.is_empty() {
                    turn.text.push('\n');
                }
                turn.text.push_str(&text);
            }
            (Some("tool_result"), _, content) => {
                let (all, failed) = turn.result.get_or_insert_default();
                *failed |= block.is_error.unwrap_or(false);
                all.push_str(&result_text(content.unwrap_or_default()));
            }
            _ => {}
        }
    }
    turn
}

/// The text of a tool result: a string, or the text blocks of a list.
fn result_text(content: Value) -> String {
    match content {
        Value::String(text) => text,
        Value::Array(blocks) => {
            let texts = blocks.iter().filter_map(|block| block.get("text").and_then(Value::as_str));
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

pub(super) fn compose(index: &Index, body: &[u8], turn: &Turn, plan: &Plan, seed: &Seed) -> Reply {
    let mut reply = match tool_call(index, body, turn, plan) {
        Some(content) => {
            let Content::Tool { input, .. } = &content else { return text_reply(String::new()) };
            let output_tokens = tokens(input) + 12;
            Reply { content, output_tokens, stop_reason: "tool_use".into() }
        }
        None => match plan.tokens {
            Some(count) => Reply { output_tokens: count, ..text_reply(words(count.min(limit(index)), seed)) },
            None => text_reply(sentence(index, turn, plan)),
        },
    };
    if reply.output_tokens > limit(index) {
        reply.output_tokens = limit(index);
        reply.stop_reason = "max_tokens".into();
        if let (Content::Text(text), None) = (&mut reply.content, plan.tokens) {
            let kept = usize::try_from(limit(index).saturating_mul(4)).unwrap_or(usize::MAX);
            *text = text.chars().take(kept).collect();
        }
    }
    if let Some(reason) = &plan.stop {
        reply.stop_reason.clone_from(reason);
    }
    reply
}

fn limit(index: &Index) -> u64 {
    index.max_tokens.unwrap_or(u64::MAX)
}

fn text_reply(text: String) -> Reply {
    Reply { output_tokens: tokens(&text), content: Content::Text(text), stop_reason: "end_turn".into() }
}

/// About four characters a token.
fn tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4).max(1)
}

#[derive(Deserialize)]
struct Tool<'a> {
    name: String,
    #[serde(borrow)]
    input_schema: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolChoice {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
}

fn tool_choice(index: &Index, body: &[u8]) -> Option<ToolChoice> {
    let others = index.others.as_ref()?;
    let member = others.iter().find(|member| member.name.of(body) == b"\"tool_choice\"")?;
    serde_json::from_slice(member.value.of(body)).ok()
}

fn tool_call(index: &Index, body: &[u8], turn: &Turn, plan: &Plan) -> Option<Content> {
    if index.tools.is_empty() || turn.text.is_empty() && turn.result.is_none() {
        return None;
    }
    let choice = tool_choice(index, body);
    let choice = choice.as_ref().map(|choice| (choice.kind.as_str(), choice.name.as_deref()));
    if matches!(choice, Some(("none", _))) || plan.tool.is_none() && turn.result.is_some() {
        return None;
    }
    let offered =
        index.tools.iter().filter_map(|span| serde_json::from_slice::<Tool<'_>>(span.of(body)).ok());
    let offered: Vec<Tool<'_>> = offered.collect();
    let named = match (&plan.tool, choice) {
        (Some((name, _)), _) => offered.iter().find(|tool| tool.name == *name),
        (None, Some(("tool", Some(name)))) => offered.iter().find(|tool| tool.name == name),
        (None, choice) => {
            let mentioned = offered.iter().filter(|tool| mentions(&turn.text, &tool.name));
            let any = matches!(choice, Some(("any", _)));
            mentioned.max_by_key(|tool| tool.name.len()).or_else(|| offered.first().filter(|_| any))
        }
    }?;
    let input = match &plan.tool {
        Some((_, Some(input))) => input.get().to_owned(),
        _ => schema::example(named.input_schema.map_or("{}", RawValue::get)),
    };
    Some(Content::Tool { name: named.name.clone(), input })
}

/// Whether `text` holds `name` as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    name.len() >= 3
        && text.match_indices(name).any(|(at, _)| {
            let before = text.get(..at).and_then(|s| s.chars().next_back());
            let after = text.get(at + name.len()..).and_then(|s| s.chars().next());
            !part(before) && !part(after)
        })
}

fn sentence(index: &Index, turn: &Turn, plan: &Plan) -> String {
    if let Some(specimen) = plan.leak.as_deref().and_then(specimen) {
        return format!("This answer leaks a made-up credential: {specimen}");
    }
    if !plan.unknown.is_empty() {
        let list = plan.unknown.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
        return format!("The demo model does not know the directive {list}.");
    }
    if let Some((name, _)) = &plan.tool {
        return format!("The demo model was told to call `{name}`, but no tool of that name is offered.");
    }
    match &turn.result {
        Some((result, true)) => format!("The tool failed: {}", start(result, 400)),
        Some((result, false)) => format!("The tool answered: {}", start(result, 400)),
        None => format!(
            "This is {}, the offline demo model; nothing left this machine. You wrote: {}",
            start(&index.model, 64),
            start(&turn.text, 120)
        ),
    }
}

/// The first `limit` characters, on one line.
fn start(text: &str, limit: usize) -> String {
    let mut chars = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut start: String = chars.by_ref().take(limit).collect();
    if chars.next().is_some() {
        start.push('…');
    }
    start
}

const WORDS: [&str; 16] = [
    "route", "model", "token", "answer", "ledger", "policy", "stream", "budget", "record", "agent", "prompt",
    "entry", "session", "reason", "window", "signal",
];

/// `count` words, drawn by `seed`.
fn words(count: u64, seed: &Seed) -> String {
    let start = seed.iter().fold(0_u64, |state, byte| state.rotate_left(8) ^ u64::from(*byte));
    let mut state = start;
    let mut text = String::new();
    for i in 0..count {
        // Knuth's MMIX generator; its high bits are even enough for words.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if i > 0 {
            text.push(' ');
        }
        text.push_str(WORDS.get((state >> 60) as usize).copied().unwrap_or_default());
    }
    text
}

/// A made-up credential of the shape that a secret rule looks for. They are put together here so that no scanner of
/// repositories takes this file for a leak.
pub(super) fn specimen(rule: &str) -> Option<String> {
    let filler = "Zx8Kq2Wm7Rt4Yv9Lp3Nb6Hc1Jd5Fg0TsQwErUiOaBnMx";
    let part = |n: usize| filler.get(..n).unwrap_or_default();
    let upper = |n: usize| part(n).to_uppercase();
    Some(match rule {
        "aws" => format!("{}{}", "AKIA", upper(16).replace(['0', '1', '8', '9'], "7")),
        "github" => format!("{}{}", "ghp_", part(36)),
        "gitlab" => format!("{}{}", "glpat-", part(20)),
        "slack" => format!("{}-{}-{}-{}", "xoxb", "123456789012", "123456789012", part(24)),
        "stripe" => format!("{}_{}_{}", "sk", "live", part(24)),
        "google" => format!("{}{}", "AIza", part(35)),
        "anthropic" => format!("{}-{}-{}{}AA", "sk", "ant-api03", part(44), part(44)) + &"b".repeat(3),
        "openai" => format!("{}-{}-{}{}{}", "sk", "proj", part(20), "T3Blbk", part(20)),
        "npm" => format!("{}{}", "npm_", part(36)),
        "pypi" => format!("{}-{}{}", "pypi", "AgEIcHlwaS5vcmc", part(44)) + part(20),
        "pem" => format!("-----BEGIN {0}-----\n{1}\n-----END {0}-----", "PRIVATE KEY", part(44)),
        "postgres" => format!("{}://demo:{}@db.example.com/demo", "postgres", part(16)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_named_as_a_word() {
        assert!(mentions("please use crm_lookup now", "crm_lookup"));
        assert!(mentions("crm_lookup", "crm_lookup"));
        assert!(!mentions("crm_lookups", "crm_lookup"));
        assert!(!mentions("my_crm_lookup", "crm_lookup"));
        assert!(!mentions("é", "crm_lookup"));
        assert!(!mentions("ls", "ls"));
    }

    #[test]
    fn specimens_have_the_shapes_of_their_providers() {
        let aws = specimen("aws").unwrap();
        assert!(aws.len() == 20 && aws.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b)));
        assert_eq!(specimen("github").unwrap().len(), 40);
        assert!(specimen("unknown").is_none());
    }
}
