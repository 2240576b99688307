use super::*;
use proptest::prelude::*;

const STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","model":"claude-demo","content":[],"usage":{"input_tokens":25,"cache_read_input_tokens":100,"cache_creation_input_tokens":7,"output_tokens":1}}}

event: ping
data: {"type": "ping"}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"H\u00e9llo \ud83d\ude00 é\n"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

: a comment
event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"crm_lookup","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,
data: "delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15,"input_tokens":null}}

event: message_stop
data: {"type":"message_stop"}

"#;

fn expected() -> Observed {
    Observed {
        message_id: Some("msg_1".into()),
        model: Some("claude-demo".into()),
        stop_reason: Some("tool_use".into()),
        error_type: None,
        tool_calls: vec![ToolCall { id: "toolu_1".into(), name: "crm_lookup".into() }],
        tool_call_count: 1,
        usage: Usage { input: 25, output: 15, cache_read: 100, cache_write_5m: 7, cache_write_1h: 0 },
        input_known: true,
        output_known: true,
        characters: 17,
        events: 9,
        complete: true,
        secrets: std::collections::BTreeMap::new(),
    }
}

fn fed(chunks: &[&[u8]]) -> (Observed, Vec<u8>) {
    let (mut tap, mut whole, mut held) = (SseTap::default(), Vec::new(), Vec::new());
    for chunk in chunks {
        let boundary = tap.feed(chunk).unwrap_or(0);
        if boundary > 0 {
            whole.append(&mut held);
            whole.extend_from_slice(&chunk[..boundary]);
        }
        held.extend_from_slice(&chunk[boundary..]);
        // What was let through ends with an event.
        assert!(
            whole.is_empty()
                || whole.ends_with(b"\n\n")
                || whole.ends_with(b"\r\r")
                || whole.ends_with(b"\r\n\r\n")
                || whole.ends_with(b"\r\n\r")
        );
    }
    whole.append(&mut held);
    (tap.into_observed(), whole)
}

#[test]
fn every_cut_gives_the_same_result() {
    for ends in ["\n", "\r\n", "\r"] {
        let stream = STREAM.replace('\n', ends);
        let bytes = stream.as_bytes();
        for cut in 0..=bytes.len() {
            let (seen, passed) = fed(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(seen, expected(), "cut at {cut}");
            assert_eq!(passed, bytes);
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(fed(&single).0, expected());
    }
}

#[test]
fn the_boundary_is_the_end_of_the_last_whole_event() {
    let mut tap = SseTap::default();
    assert_eq!(tap.feed(b"data: 1\n"), None);
    assert_eq!(tap.feed(b"\ndata: 2\n\nda"), Some(10));
    assert_eq!(tap.feed(b"ta: 3\r\n\r"), Some(8));
    assert_eq!(tap.feed(b"\n"), Some(1));
    assert_eq!(tap.feed(b"x\n\r\n"), Some(4));
    assert_eq!(tap.observed().events, 3);
}

#[test]
fn an_event_beyond_the_bound_is_left_out_and_the_next_one_is_read() {
    let mut tap = SseTap::default();
    let part = vec![b'x'; MAX_EVENT_BYTES / 2];
    tap.feed(b"data: ");
    for _ in 0..8 {
        assert_eq!(tap.feed(&part), None);
        assert!(tap.memory() <= 3 * MAX_EVENT_BYTES);
    }
    assert_eq!(tap.feed(b"\ndata: {\"type\":\"message_stop\"}\n\n"), Some(32));
    assert!(!tap.observed().complete);
    tap.feed(b"data: {\"type\":\"message_stop\"}\n\n");
    assert!(tap.observed().complete);
    assert!(tap.memory() <= 64 * 1024);
}

#[test]
fn later_figures_replace_earlier_ones() {
    let mut tap = SseTap::default();
    for (event, output) in [
        (
            r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3}}}}"#,
            1,
        ),
        (r#"{"type":"message_delta","usage":{"output_tokens":4}}"#, 4),
        (r#"{"type":"message_delta","usage":{"output_tokens":6,"input_tokens":8}}"#, 6),
        (r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#, 6),
    ] {
        tap.feed(format!("data:{event}\n\n").as_bytes());
        assert_eq!(tap.observed().usage.output, output);
    }
    let seen = tap.into_observed();
    assert_eq!(
        seen.usage,
        Usage { input: 8, output: 6, cache_read: 0, cache_write_5m: 2, cache_write_1h: 3 }
    );
    assert_eq!(seen.error_type.as_deref(), Some("overloaded_error"));
    assert!(!seen.complete);
}

#[test]
fn whole_answers_are_read() {
    let seen = Observed::of_body(
        br#"{"id":"msg_2","type":"message","role":"assistant","model":"claude-demo","stop_reason":"end_turn",
        "content":[{"type":"text","text":"four"},{"type":"tool_use","id":"t","name":"n","input":{"a":1}}],
        "usage":{"input_tokens":3,"output_tokens":4}}"#,
    );
    assert_eq!(seen.usage, Usage { input: 3, output: 4, ..Usage::default() });
    assert_eq!((seen.stop_reason.as_deref(), seen.complete, seen.characters), (Some("end_turn"), true, 11));
    assert_eq!(seen.tool_calls.len(), 1);
    let count = Observed::of_body(br#"{"input_tokens": 12}"#);
    assert_eq!((count.usage.input, count.input_known), (12, true));
    let error =
        Observed::of_body(br#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#);
    assert_eq!(error.error_type.as_deref(), Some("rate_limit_error"));
    assert_eq!(Observed::of_body(b"<html>"), Observed::default());
}

#[test]
fn long_names_and_many_tool_calls_are_bounded() {
    let mut tap = SseTap::default();
    let event = |name: &str| {
        format!(
            "data: {{\"type\":\"content_block_start\",\"content_block\":{{\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"{name}\"}}}}\n\n"
        )
    };
    tap.feed(event(&"n".repeat(300)).as_bytes());
    assert_eq!((tap.observed().tool_calls.len(), tap.observed().tool_call_count), (0, 1));
    for _ in 0..200 {
        tap.feed(event("n").as_bytes());
    }
    assert_eq!((tap.observed().tool_calls.len(), tap.observed().tool_call_count), (MAX_TOOL_CALLS, 201));
}

proptest! {
    #[test]
    fn any_chunking_of_any_bytes_passes_them_unchanged(
        bytes in proptest::collection::vec(prop::sample::select(b"data: {}\r\n\n\n:x\"".to_vec()), 0..200),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let mut tap = SseTap::default();
        for chunk in &chunks {
            tap.feed(chunk);
        }
        let mut whole = SseTap::default();
        whole.feed(&bytes);
        prop_assert_eq!(tap.into_observed(), whole.into_observed());
    }

    #[test]
    fn characters_are_counted_as_they_decode(text in any::<String>()) {
        prop_assert_eq!(characters(&serde_json::to_string(&text).unwrap()), text.chars().count() as u64);
    }
}
