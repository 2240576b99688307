//! Values in use in an answer (SCR-64, GW-87): a model has no business with a credential that was handed to a tool server or a
//! provider. The bytes are looked at as they come, and the text of each content block across the deltas that carry it. A hit is
//! told with the piece that completes the value, so whoever holds that piece back lets no whole value leave.

use super::{Block, Event};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use systemprompt_leak::{Hit, Scanner};
use systemprompt_security::governance::{Finding, FindingClass, SecretScanner, StreamScanner};

/// What is kept of the bytes before, to find what is cut: several times the longest pattern, for a value that is partly escaped.
const KEPT_BYTES: usize = 512;

/// Watches one answer.
#[derive(Default)]
pub struct Watch {
    in_use: Scanner,
    bytes: Vec<u8>,
    /// The end of the block's text so far, and which block it is.
    text: Vec<u8>,
    block: Option<u64>,
    found: Vec<Hit>,
    /// Looks for what has the form of a secret (SEC-90), in the text of one block at a time. It is noted, and nothing waits for it.
    secrets: Option<Arc<SecretScanner>>,
    stream: Option<StreamScanner>,
    noted: BTreeMap<String, u32>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("found", &self.found)
            .field("noted", &self.noted)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub fn new(in_use: Scanner) -> Self {
        Self { in_use, ..Self::default() }
    }

    /// One that also notes what has the form of a secret.
    pub fn noting(&mut self, secrets: Arc<SecretScanner>) {
        self.secrets = Some(secrets);
    }

    /// How often which rule found a secret in the answer, whose end has come.
    pub fn take_noted(&mut self) -> BTreeMap<String, u32> {
        if let Some(stream) = self.stream.take() {
            note(&mut self.noted, &stream.finish());
        }
        std::mem::take(&mut self.noted)
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
        if self.is_done() && self.secrets.is_none() {
            return;
        }
        let Some(delta) = event.delta.as_ref() else { return };
        if self.block != event.index {
            self.block = event.index;
            self.text.clear();
            if let Some(stream) = self.stream.take() {
                note(&mut self.noted, &stream.finish());
            }
        }
        for part in texts(delta) {
            let Some(text) = crate::parse::text(part.get().as_bytes()) else { continue };
            if !self.is_done() {
                self.found = look(&self.in_use, &mut self.text, text.as_bytes());
            }
            if let Some(secrets) = &self.secrets {
                let stream = self.stream.get_or_insert_with(|| StreamScanner::new(Arc::clone(secrets), ""));
                note(&mut self.noted, &stream.push(text.as_bytes()));
            }
        }
    }

    fn is_done(&self) -> bool {
        !self.found.is_empty() || self.in_use.is_empty()
    }
}

/// Counts the findings of rules that know a provider's format.
pub(crate) fn note(noted: &mut BTreeMap<String, u32>, findings: &[Finding]) {
    for finding in findings.iter().filter(|f| f.class == FindingClass::Specific) {
        *noted.entry(finding.rule_id.to_string()).or_default() += 1;
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
