//! The demo model (GW-130 to GW-132): a pure function from a request body to the bytes of an answer, with pauses where a
//! real provider would take time. The same body gives the same bytes. The gateway serves it in process; tests and
//! benchmarks may serve it over loopback.

mod directive;
mod render;
mod reply;
mod schema;
#[cfg(test)]
mod tests;

use crate::parse::{self, Index};
use crate::protocol::Operation;
use bytes::Bytes;
use std::time::Duration;

/// SHA-256 of a body: the seed of everything in its answer that looks random.
pub type Seed = [u8; 32];

/// An answer, whole; whoever serves it keeps the pauses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// The bytes are gzip and want `content-encoding`.
    pub gzip: bool,
    /// Value of the header `request-id`.
    pub request_id: String,
    /// Whole seconds, on a 429.
    pub retry_after: Option<u32>,
    /// Time until the status line.
    pub latency: Duration,
    pub steps: Vec<Step>,
    /// The connection is lost after the last step.
    pub broken: bool,
}

/// Bytes that leave together after a pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub pause: Duration,
    pub bytes: Bytes,
}

impl Answer {
    /// The body as one piece, without the pauses.
    pub fn body(&self) -> Vec<u8> {
        self.steps.iter().flat_map(|step| step.bytes.iter().copied()).collect()
    }
}

/// Answers `body`.
///
/// ```
/// use systemprompt_gateway::{demo::answer, protocol::Operation};
/// let body = br#"{"model":"claude-demo","max_tokens":64,"messages":[{"role":"user","content":"hello"}]}"#;
/// let first = answer(Operation::Messages, body, [7; 32]);
/// assert_eq!(first.status, 200);
/// assert_eq!(first, answer(Operation::Messages, body, [7; 32]));
/// ```
pub fn answer(operation: Operation, body: &[u8], seed: Seed) -> Answer {
    let request_id = format!("req_demo_{}", hex::encode(seed.get(..12).unwrap_or_default()));
    let index = match parse::parse(body) {
        Ok(index) => index,
        Err(error) => return render::error(400, &error.to_string(), request_id),
    };
    if index.messages.is_empty() {
        return render::error(400, "messages: at least one message is required", request_id);
    }
    match operation {
        Operation::CountTokens => render::count(input_tokens(&index), request_id),
        Operation::Messages if index.max_tokens.is_none_or(|limit| limit == 0) => {
            render::error(400, "max_tokens: a whole number above 0 is required", request_id)
        }
        Operation::Messages => {
            let turn = reply::turn(&index, body);
            let plan = directive::plan(&turn.text);
            if let Some(status) = plan.error {
                let message = format!("the demo model was told to answer {status}");
                return Answer { latency: plan.latency, ..render::error(status, &message, request_id) };
            }
            let reply = reply::compose(&index, body, &turn, &plan, &seed);
            render::message(&index, &reply, &plan, &seed, request_id, usage(&index, body))
        }
    }
}

/// What the answer says was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct InputUsage {
    input: u64,
    cache_creation: u64,
    cache_read: u64,
}

/// About four bytes a token, over what a model would read.
fn input_tokens(index: &Index) -> u64 {
    let spans = [index.system, index.messages_span, index.tools_span];
    let bytes: u64 = spans.into_iter().flatten().map(|span| u64::from(span.end - span.start)).sum();
    bytes.div_ceil(4).max(1)
}

/// With `cache_control` all but the newest message is written to the cache in the first turn and read from it later.
fn usage(index: &Index, body: &[u8]) -> InputUsage {
    let all = input_tokens(index);
    if memchr::memmem::find(body, b"\"cache_control\"").is_none() {
        return InputUsage { input: all, ..InputUsage::default() };
    }
    let newest = index.messages.last().map_or(0, |m| u64::from(m.span.end - m.span.start)).div_ceil(4);
    let (newest, earlier) = (newest.min(all), all.saturating_sub(newest));
    if index.messages.len() > 1 {
        InputUsage { input: newest, cache_read: earlier, cache_creation: 0 }
    } else {
        InputUsage { input: newest, cache_creation: earlier, cache_read: 0 }
    }
}
