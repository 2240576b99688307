//! The tap on an answer: it watches a copy of the bytes and collects what the record of the call needs (GW-53, GW-54). It
//! never changes or delays anything, and an answer that it cannot read passes all the same.

mod sse;
#[cfg(test)]
mod tests;
mod watch;

use crate::pricing::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;
pub use sse::{MAX_EVENT_BYTES, SseTap};
use std::collections::BTreeMap;
pub use watch::Watch;
pub(crate) use watch::note;

/// Most tool calls that are kept of one answer; the rest is counted.
pub const MAX_TOOL_CALLS: usize = 128;
/// Longest id, name or reason that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// A tool call that the model asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub id: Box<str>,
    pub name: Box<str>,
}

/// What was seen of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub message_id: Option<Box<str>>,
    pub model: Option<Box<str>>,
    pub stop_reason: Option<Box<str>>,
    /// Type of the error that the answer reported.
    pub error_type: Option<Box<str>>,
    pub tool_calls: Vec<ToolCall>,
    pub tool_call_count: u32,
    pub usage: Usage,
    /// Whether the provider told how much was read.
    pub input_known: bool,
    /// Whether the provider told how much was written, cumulatively.
    pub output_known: bool,
    /// Characters of text, thinking and tool arguments.
    pub characters: u64,
    pub events: u64,
    /// Whether the answer came to its end: `message_stop`, or a whole JSON body.
    pub complete: bool,
    /// How often which rule found what has the form of a secret.
    pub secrets: BTreeMap<String, u32>,
}

impl Observed {
    /// Reads a whole JSON answer.
    pub fn of_body(body: &[u8]) -> Self {
        let mut seen = Self::default();
        if let Ok(answer) = serde_json::from_slice::<Answer<'_>>(body) {
            seen.complete = true;
            seen.message_id = answer.id.and_then(short);
            seen.model = answer.model.and_then(short);
            seen.stop_reason = answer.stop_reason.and_then(short);
            seen.error_type = answer.error.and_then(|e| e.kind).and_then(short);
            if let Some(usage) = &answer.usage {
                seen.count(usage);
            }
            if let Some(tokens) = answer.input_tokens {
                seen.usage.input = tokens;
                seen.input_known = true;
            }
            for block in answer.content.unwrap_or_default() {
                seen.characters += block.characters();
                seen.block(&block);
            }
        }
        seen
    }

    /// Takes over what is given; figures are cumulative, so they replace and are never added.
    fn count(&mut self, usage: &RawUsage) {
        if let Some(tokens) = usage.input_tokens {
            self.usage.input = tokens;
            self.input_known = true;
        }
        if let Some(tokens) = usage.output_tokens {
            self.usage.output = tokens;
            self.output_known = true;
        }
        if let Some(tokens) = usage.cache_read_input_tokens {
            self.usage.cache_read = tokens;
        }
        if let Some(tokens) = usage.cache_creation_input_tokens {
            self.usage.cache_write_5m = tokens;
            self.usage.cache_write_1h = 0;
        }
        if let Some(split) = &usage.cache_creation {
            self.usage.cache_write_5m = split.ephemeral_5m_input_tokens.unwrap_or(0);
            self.usage.cache_write_1h = split.ephemeral_1h_input_tokens.unwrap_or(0);
        }
    }

    fn block(&mut self, block: &Block<'_>) {
        if !block.kind.is_some_and(|kind| matches!(kind.get(), "\"tool_use\"" | "\"server_tool_use\"")) {
            return;
        }
        self.tool_call_count = self.tool_call_count.saturating_add(1);
        if let (true, Some(id), Some(name)) =
            (self.tool_calls.len() < MAX_TOOL_CALLS, block.id.and_then(short), block.name.and_then(short))
        {
            self.tool_calls.push(ToolCall { id, name });
        }
    }

    /// One event of a stream.
    fn event(&mut self, data: &[u8], watch: &mut Watch) {
        self.events += 1;
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else { return };
        watch.event(&event);
        match event.kind.map_or("", RawValue::get) {
            "\"content_block_delta\"" => {
                self.characters += event.delta.map_or(0, |delta| delta.characters());
            }
            "\"message_start\"" => {
                let Some(message) = event.message else { return };
                self.message_id = message.id.and_then(short);
                self.model = message.model.and_then(short);
                if let Some(usage) = &message.usage {
                    self.count(usage);
                }
            }
            "\"content_block_start\"" => {
                if let Some(block) = &event.content_block {
                    self.block(block);
                }
            }
            "\"message_delta\"" => {
                if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason).and_then(short) {
                    self.stop_reason = Some(reason);
                }
                if let Some(usage) = &event.usage {
                    self.count(usage);
                }
            }
            "\"message_stop\"" => self.complete = true,
            "\"error\"" => self.error_type = event.error.and_then(|error| error.kind).and_then(short),
            _ => {}
        }
    }
}

// Members are kept raw: borrowed whatever escapes they hold, and read only where they are needed.

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    /// Of the content block that it belongs to.
    #[serde(default, deserialize_with = "lenient")]
    index: Option<u64>,
    #[serde(borrow)]
    message: Option<Answer<'a>>,
    usage: Option<RawUsage>,
    #[serde(borrow)]
    delta: Option<Block<'a>>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    #[serde(borrow)]
    error: Option<Problem<'a>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
    usage: Option<RawUsage>,
    input_tokens: Option<u64>,
    #[serde(borrow)]
    content: Option<Vec<Block<'a>>>,
    #[serde(borrow)]
    error: Option<Problem<'a>>,
}

/// A content block, or the delta of one.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

impl Block<'_> {
    fn characters(&self) -> u64 {
        let parts = [self.text, self.thinking, self.partial_json, self.input];
        parts.into_iter().flatten().map(|raw| characters(raw.get())).sum()
    }
}

#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
}

#[derive(Deserialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

/// A number that may be anything else: an odd event is read as far as it can be.
fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(<&RawValue>::deserialize(deserializer)?.get().parse().ok())
}

/// The text of a raw JSON string, if it is one and not too long.
fn short(raw: &RawValue) -> Option<Box<str>> {
    let text = crate::parse::text(raw.get().as_bytes())?;
    (text.len() <= MAX_TEXT_BYTES).then(|| text.into())
}

/// Characters of a raw JSON string, or of the raw text of any other value. Escapes count as what they stand for.
fn characters(raw: &str) -> u64 {
    let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return raw.chars().count() as u64;
    };
    let mut count = 0;
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        count += 1;
        if c == '\\' && chars.next() == Some('u') {
            let unit = chars.as_str().get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
            chars.nth(3);
            // The second half of a surrogate pair belongs to the first.
            count -= u64::from(unit.is_some_and(|unit| (0xdc00..0xe000).contains(&unit)));
        }
    }
    count
}
