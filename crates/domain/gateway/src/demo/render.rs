//! The bytes of an answer: the Messages wire as JSON or as events, and its errors.

use super::directive::Plan;
use super::reply::{Content, Reply};
use super::{Answer, InputUsage, Seed, Step};
use crate::parse::Index;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

/// Characters of one text delta, about four tokens.
const DELTA_CHARS: usize = 16;
/// Characters of one delta of a tool's input.
const INPUT_DELTA_CHARS: usize = 64;

pub(super) fn error(status: u16, message: &str, request_id: String) -> Answer {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let body = format!(
        r#"{{"type":"error","error":{{"type":"{kind}","message":{}}},"request_id":{}}}"#,
        quoted(message),
        quoted(&request_id)
    );
    Answer { status, retry_after: (status == 429).then_some(1), ..json(body, request_id) }
}

pub(super) fn count(input_tokens: u64, request_id: String) -> Answer {
    json(format!(r#"{{"input_tokens":{input_tokens}}}"#), request_id)
}

fn json(body: String, request_id: String) -> Answer {
    Answer {
        status: 200,
        content_type: "application/json",
        gzip: false,
        request_id,
        retry_after: None,
        latency: Duration::ZERO,
        steps: vec![Step { pause: Duration::ZERO, bytes: Bytes::from(body) }],
        broken: false,
    }
}

pub(super) fn message(
    index: &Index,
    reply: &Reply,
    plan: &Plan,
    seed: &Seed,
    request_id: String,
    input: InputUsage,
) -> Answer {
    let message = Message { index, reply, input, id: hex::encode(seed.get(..12).unwrap_or_default()) };
    let mut answer = if index.stream {
        Answer {
            content_type: "text/event-stream; charset=utf-8",
            steps: message.events(plan),
            ..json(String::new(), request_id)
        }
    } else {
        json(message.whole(), request_id)
    };
    answer.latency = plan.latency;
    if let Some(cut) = plan.cut {
        cut_off(&mut answer, cut, index.stream);
    }
    if plan.gzip {
        answer.gzip = true;
        compress(&mut answer.steps);
    }
    answer
}

/// Keeps `count` events, or half of a body that is none.
fn cut_off(answer: &mut Answer, count: u64, stream: bool) {
    if stream {
        answer.steps.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    } else if let Some(step) = answer.steps.first_mut() {
        step.bytes.truncate(step.bytes.len() / 2);
    }
    answer.broken = true;
}

/// Compresses step by step, each flushed, so that every event can be read when it arrives.
fn compress(steps: &mut [Step]) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let last = steps.len();
    for (i, step) in steps.iter_mut().enumerate() {
        // Writing into memory does not fail.
        let _ = encoder.write_all(&step.bytes);
        let _ = if i + 1 == last { encoder.try_finish() } else { encoder.flush() };
        step.bytes = Bytes::from(std::mem::take(encoder.get_mut()));
    }
}

struct Message<'a> {
    index: &'a Index,
    reply: &'a Reply,
    input: InputUsage,
    id: String,
}

impl Message<'_> {
    fn usage(&self, output: u64) -> String {
        let InputUsage { input, cache_creation, cache_read } = self.input;
        format!(
            r#"{{"input_tokens":{input},"cache_creation_input_tokens":{cache_creation},"cache_read_input_tokens":{cache_read},"cache_creation":{{"ephemeral_5m_input_tokens":{cache_creation},"ephemeral_1h_input_tokens":0}},"output_tokens":{output},"service_tier":"standard"}}"#
        )
    }

    fn head(&self, content: &str, stop_reason: &str, usage: &str) -> String {
        format!(
            r#"{{"id":"msg_demo_{}","type":"message","role":"assistant","model":{},"content":[{content}],"stop_reason":{stop_reason},"stop_sequence":null,"usage":{usage}}}"#,
            self.id,
            quoted(&self.index.model),
        )
    }

    fn whole(&self) -> String {
        let block = match &self.reply.content {
            Content::Text(text) => format!(r#"{{"type":"text","text":{}}}"#, quoted(text)),
            Content::Tool { name, input } => self.tool_block(name, input),
        };
        self.head(&block, &quoted(&self.reply.stop_reason), &self.usage(self.reply.output_tokens))
    }

    fn tool_block(&self, name: &str, input: &str) -> String {
        format!(
            r#"{{"type":"tool_use","id":"toolu_demo_{}","name":{},"input":{input}}}"#,
            self.id,
            quoted(name)
        )
    }

    fn events(&self, plan: &Plan) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut push = |pause: Duration, name: &str, data: &str| {
            let mut event = String::with_capacity(name.len() + data.len() + 16);
            let _ = write!(event, "event: {name}\ndata: {data}\n\n");
            steps.push(Step { pause, bytes: Bytes::from(event) });
        };
        let start = self.head("", "null", &self.usage(1));
        push(Duration::ZERO, "message_start", &format!(r#"{{"type":"message_start","message":{start}}}"#));
        push(Duration::ZERO, "ping", r#"{"type": "ping"}"#);
        let (block, deltas) = match &self.reply.content {
            Content::Text(text) => (
                r#"{"type":"text","text":""}"#.to_owned(),
                pieces(text, DELTA_CHARS)
                    .into_iter()
                    .map(|piece| format!(r#"{{"type":"text_delta","text":{}}}"#, quoted(&piece)))
                    .collect::<Vec<_>>(),
            ),
            Content::Tool { name, input } => (
                self.tool_block(name, "{}"),
                pieces(input, INPUT_DELTA_CHARS)
                    .into_iter()
                    .map(|piece| {
                        format!(r#"{{"type":"input_json_delta","partial_json":{}}}"#, quoted(&piece))
                    })
                    .collect(),
            ),
        };
        push(
            plan.silence,
            "content_block_start",
            &format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#),
        );
        let pause = self.pause_between(deltas.len(), plan);
        for delta in deltas {
            push(
                pause,
                "content_block_delta",
                &format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#),
            );
        }
        push(Duration::ZERO, "content_block_stop", r#"{"type":"content_block_stop","index":0}"#);
        let (reason, usage) = (quoted(&self.reply.stop_reason), self.usage(self.reply.output_tokens));
        push(
            Duration::ZERO,
            "message_delta",
            &format!(
                r#"{{"type":"message_delta","delta":{{"stop_reason":{reason},"stop_sequence":null}},"usage":{usage}}}"#
            ),
        );
        push(Duration::ZERO, "message_stop", r#"{"type":"message_stop"}"#);
        steps
    }

    /// Time before each delta, so that the whole answer keeps to the rate.
    fn pause_between(&self, deltas: usize, plan: &Plan) -> Duration {
        let Some(rate) = plan.rate else { return Duration::ZERO };
        let whole = self.reply.output_tokens.saturating_mul(1_000_000) / rate.max(1);
        Duration::from_micros(whole / (deltas as u64).max(1))
    }
}

/// `text` in pieces of `size` characters.
fn pieces(text: &str, size: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(size).map(|piece| piece.iter().collect()).collect()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
