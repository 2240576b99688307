//! Any bytes as a body, also as one of a hook: no panic; what is redacted of JSON is JSON still, findings are cut at character
//! boundaries, and so are the pieces of what a model provider sends.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use systemprompt_models::hook::EventName;
use systemprompt_security::governance::{InferenceRequest, SecretScanner, Segment};

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
    for finding in SCANNER.scan_text(text) {
        let end = finding.offset.saturating_add(finding.length);
        assert!(text.get(finding.offset..end).is_some(), "a finding is cut at a character boundary");
    }
    let _ = SCANNER.redact_text(text);
});
