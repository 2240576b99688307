//! Values in use in an answer (SCR-64, GW-87): a model has no business with a credential that was handed to a tool server or a
//! provider. The bytes are looked at as they come, and the text of each content block across the deltas that carry it. A hit is
//! told with the piece that completes the value, so whoever holds that piece back lets no whole value leave.

use super::{Block, Event};
use serde_json::value::RawValue;
use systemprompt_leak::{Hit, Scanner};

/// What is kept of the bytes before, to find what is cut: several times the longest pattern, for a value that is partly escaped.
const KEPT_BYTES: usize = 512;

/// Watches one answer.
#[derive(Debug, Default)]
pub struct Watch {
    in_use: Scanner,
    bytes: Vec<u8>,
    /// The end of the block's text so far, and which block it is.
    text: Vec<u8>,
    block: Option<u64>,
    found: Vec<Hit>,
}

impl Watch {
    pub fn new(in_use: Scanner) -> Self {
        Self { in_use, ..Self::default() }
    }

    /// What was found up to now.
    pub fn found(&self) -> &[Hit] {
        &self.found
    }

    /// Looks at the next bytes of the answer.
    pub fn bytes(&mut self, chunk: &[u8]) {
        if self.is_done() {
            return;
        }
        self.found = look(&self.in_use, &mut self.bytes, chunk);
    }

    /// Looks at the text that an event adds to its block.
    pub(super) fn event(&mut self, event: &Event<'_>) {
        let Some(delta) = event.delta.as_ref().filter(|_| !self.is_done()) else { return };
        if self.block != event.index {
            self.block = event.index;
            self.text.clear();
        }
        for part in texts(delta) {
            if let Some(text) = crate::parse::text(part.get().as_bytes())
                && self.found.is_empty()
            {
                self.found = look(&self.in_use, &mut self.text, text.as_bytes());
            }
        }
    }

    fn is_done(&self) -> bool {
        !self.found.is_empty() || self.in_use.is_empty()
    }
}

fn texts<'a>(delta: &Block<'a>) -> impl Iterator<Item = &'a RawValue> {
    [delta.text, delta.thinking, delta.partial_json].into_iter().flatten()
}

/// What stands in `next` or across its beginning. The end of both is kept for the next time.
fn look(in_use: &Scanner, kept: &mut Vec<u8>, next: &[u8]) -> Vec<Hit> {
    kept.extend_from_slice(next);
    let found = in_use.scan_request(kept);
    let surplus = kept.len().saturating_sub(KEPT_BYTES);
    kept.drain(..surplus);
    kept.shrink_to(4 * KEPT_BYTES);
    found
}
