//! Any bytes as a body, also as one of a hook: no panic; what is redacted of JSON is JSON still, what is found is
//! what is replaced, and the pieces of what a model provider sends are cut between characters.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::borrow::Cow;
use std::sync::LazyLock;
use systemprompt_models::hook::EventName;
use systemprompt_security::governance::{FindingClass, InferenceRequest, SecretScanner, Segment};

static SCANNER: LazyLock<SecretScanner> =
    LazyLock::new(|| SecretScanner::builtin_with_key(&[7; 32]).expect("the built-in rules compile"));

fuzz_target!(|data: &[u8]| {
    if let Ok(findings) = SCANNER.scan_segment(&Segment { pointer: "/body".into(), json: data }) {
        for finding in &findings {
            assert!(finding.pointer.starts_with("/body"));
            assert!(finding.length > 0);
        }
    }
    if let Ok(clean) = SCANNER.redact_json(data)
        && serde_json::from_slice::<serde_json::Value>(data).is_ok()
    {
        assert!(serde_json::from_slice::<serde_json::Value>(&clean).is_ok(), "redaction broke the JSON");
    }
    let _ = EventName::of(data);
    if let Ok(request) = InferenceRequest::read(data) {
        for segment in request.segments() {
            // Deeper nesting than a parser builds is still one piece, which the scan refuses.
            assert!(std::str::from_utf8(segment.json).is_ok(), "a piece is cut inside a character");
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let findings = SCANNER.scan_text(text);
    for finding in &findings {
        // Rules look at bytes, so a finding may end inside a character; what replaces it takes the whole character.
        assert!(finding.length > 0 && finding.offset.saturating_add(finding.length) <= text.len());
    }
    let is_specific = findings.iter().any(|finding| finding.class == FindingClass::Specific);
    let is_replaced = matches!(SCANNER.redact_text(text), Cow::Owned(_));
    assert_eq!(is_specific, is_replaced, "what is found is what is replaced");
});
