use super::*;
use crate::stream_tap::{Observed, SseTap};
use std::path::Path;

const TOOLS: &str = r#""tools":[{"name":"crm_lookup","input_schema":{"type":"object","properties":{"customer":{"type":"string"},"limit":{"type":"integer","minimum":3}},"required":["customer","limit"]}},{"name":"crm","input_schema":{"type":"object"}}]"#;

fn ask(body: &str) -> Answer {
    answer(Operation::Messages, body.as_bytes(), [0xab; 32])
}

fn user(text: &str, more: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        r#"{{"model":"claude-demo","max_tokens":256,{more}"messages":[{{"role":"user","content":{text}}}]}}"#
    )
}

/// Compares with the file under `tests/golden/demo`.
fn golden(name: &str, body: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/demo").join(name);
    let expected = std::fs::read(&path).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(body), String::from_utf8_lossy(&expected), "{name}");
}

#[test]
fn golden_answers() {
    let history = format!(
        r#"{{"model":"claude-demo-large","max_tokens":64,"stream":true,{TOOLS},"system":[{{"type":"text","text":"Be brief.","cache_control":{{"type":"ephemeral"}}}}],"messages":[{{"role":"user","content":"look it up"}},{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"crm_lookup","input":{{}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"text","text":"Ada Lovelace"}}]}}]}}]}}"#
    );
    let cases = [
        ("hello.json", user("hello", "")),
        ("hello.sse", user("hello", "\"stream\":true,")),
        ("tool.json", user("please call crm_lookup", &format!("{TOOLS},"))),
        ("tool.sse", user("please call crm_lookup", &format!("\"stream\":true,{TOOLS},"))),
        ("tool_directive.json", user(r#"[[demo:tool crm {"a":[[1]]}]]"#, &format!("{TOOLS},"))),
        ("tool_result.sse", history),
        ("tokens.json", user("[[demo:tokens 12]]", "")),
        ("stop.json", user("[[demo:stop refusal]]", "")),
        ("unknown.json", user("[[demo:dance]]", "")),
        ("error.json", user("[[demo:error 529]]", "")),
        ("malformed.json", "{\"model\":1}".to_owned()),
    ];
    for (name, body) in cases {
        golden(name, &ask(&body).body());
    }
    let count = answer(Operation::CountTokens, user("hello", "").as_bytes(), [0; 32]);
    golden("count_tokens.json", &count.body());
}

#[test]
fn json_and_stream_tell_the_same() {
    let table =
        [user("hello", ""), user("use crm_lookup", &format!("{TOOLS},")), user("[[demo:tokens 40]]", "")];
    for body in table {
        let whole = Observed::of_body(&ask(&body).body());
        let streamed = ask(&body.replacen('{', "{\"stream\":true,", 1));
        let mut tap = SseTap::default();
        tap.feed(&streamed.body());
        let stream = tap.into_observed();
        assert_eq!(
            (&whole.usage, &whole.stop_reason, &whole.tool_calls, whole.characters, whole.complete),
            (&stream.usage, &stream.stop_reason, &stream.tool_calls, stream.characters, stream.complete)
        );
        assert!(whole.usage.output > 0 && whole.usage.input > 0);
    }
}

#[test]
fn directives_shape_the_answer() {
    let plain = ask(&user("[[demo:error 429]]", ""));
    assert_eq!((plain.status, plain.retry_after), (429, Some(1)));
    let slow = ask(&user(
        "[[demo:latency 40]] [[demo:silence 2]] [[demo:rate 100]] [[demo:tokens 50]]",
        "\"stream\":true,",
    ));
    assert_eq!(slow.latency, Duration::from_millis(40));
    let pauses: Duration = slow.steps.iter().map(|step| step.pause).sum();
    assert!(pauses > Duration::from_millis(2_450) && pauses <= Duration::from_millis(2_500), "{pauses:?}");
    let cut = ask(&user("[[demo:cut 4]]", "\"stream\":true,"));
    assert!(cut.broken && cut.steps.len() == 4);
    assert!(ask(&user("[[demo:cut 1]]", "")).broken);
    let leak = String::from_utf8(ask(&user("[[demo:leak aws]]", "")).body()).unwrap();
    assert!(leak.contains("AKIA"));
    let forced = ask(&user("hi", &format!(r#"{TOOLS},"tool_choice":{{"type":"any"}},"#)));
    assert_eq!(Observed::of_body(&forced.body()).tool_calls[0].name.as_ref(), "crm_lookup");
    let none = ask(&user("use crm_lookup", &format!(r#"{TOOLS},"tool_choice":{{"type":"none"}},"#)));
    assert_eq!(Observed::of_body(&none.body()).tool_calls, []);
}

#[test]
fn gzip_answers_unpack_to_the_plain_ones() {
    use std::io::Read as _;
    for stream in ["", "\"stream\":true,"] {
        let (packed, plain) =
            (ask(&user("[[demo:encoding gzip]] x", stream)), ask(&user("[[demo:encoding gzap]] x", stream)));
        assert!(packed.gzip && !plain.gzip);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed.body()[..]).read_to_string(&mut text).unwrap();
        assert!(text.contains("msg_demo_"));
    }
}

#[test]
fn max_tokens_cuts_the_answer() {
    let body = user("hello", "").replace("256", "3");
    let seen = Observed::of_body(&ask(&body).body());
    assert_eq!(
        (seen.stop_reason.as_deref(), seen.usage.output, seen.characters),
        (Some("max_tokens"), 3, 12)
    );
    let body = user("[[demo:tokens 90]]", "").replace("256", "30");
    let seen = Observed::of_body(&ask(&body).body());
    assert_eq!((seen.stop_reason.as_deref(), seen.usage.output), (Some("max_tokens"), 30));
}

#[test]
fn cache_figures_follow_the_turns() {
    let system = r#""system":[{"type":"text","text":"Be brief and friendly to everybody.","cache_control":{"type":"ephemeral"}}],"#;
    let first = Observed::of_body(&ask(&user("hello", system)).body()).usage;
    assert!(first.cache_write_5m > 0 && first.cache_read == 0);
    let later = user("hello", system).replace(
        "\"messages\":[",
        "\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},",
    );
    let later = Observed::of_body(&ask(&later).body()).usage;
    assert!(later.cache_read > 0 && later.cache_write_5m == 0);
}

#[test]
fn what_a_model_could_not_answer_is_an_error() {
    for body in [
        r#"{"model":"claude-demo","max_tokens":5,"messages":[]}"#,
        r#"{"model":"claude-demo","max_tokens":5}"#,
        r#"{"model":"claude-demo","messages":[{"role":"user","content":"x"}]}"#,
        r#"{"model":"claude-demo","max_tokens":0,"messages":[{"role":"user","content":"x"}]}"#,
    ] {
        assert_eq!(ask(body).status, 400, "{body}");
    }
}
