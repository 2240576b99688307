use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;

const OK: &str = r#"{"model":"m","messages":[]}"#;

fn refused(body: &str) -> (&'static str, Fault, usize) {
    let error = parse(body.as_bytes()).unwrap_err();
    (error.member, error.fault, error.offset)
}

#[test]
fn spans_are_the_raw_values() {
    let body = r#" {"model" : "claude-demo", "max_tokens": 16,"stream":true,
        "system":[{"type":"text","text":"be brief"}],
        "metadata":{"user_id":"u_session_1","x":[1]},
        "tools":[{"name":"a"},{"name":"b"}],
        "messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"text","text":"\u00e9"},{"type":"text","text":"z"}]}, 7],
        "context_management":{"edits":[]}, "temperature":1.0e0, "service_tier":"auto","speed":"fast" } "#;
    let bytes = body.as_bytes();
    let index = parse(bytes).unwrap();
    let at = |span: Option<Span>| std::str::from_utf8(span.unwrap().of(bytes)).unwrap();
    assert_eq!(&*index.model, "claude-demo");
    assert_eq!(at(Some(index.model_span)), "\"claude-demo\"");
    assert!(index.stream);
    assert_eq!(index.max_tokens, Some(16));
    assert_eq!(at(index.system), r#"[{"type":"text","text":"be brief"}]"#);
    assert_eq!(at(index.user_id), r#""u_session_1""#);
    assert_eq!(
        index.tools.iter().map(|t| at(Some(*t))).collect::<Vec<_>>(),
        [r#"{"name":"a"}"#, r#"{"name":"b"}"#]
    );
    assert_eq!(
        index.messages.iter().map(|m| m.role).collect::<Vec<_>>(),
        [Role::User, Role::Assistant, Role::Other]
    );
    assert_eq!(at(index.messages[0].content), "\"hi\"");
    assert_eq!(index.blocks(&index.messages[0]), []);
    let blocks = index.blocks(&index.messages[1]);
    assert_eq!(
        blocks.iter().map(|b| at(Some(*b))).collect::<Vec<_>>(),
        [r#"{"type":"text","text":"\u00e9"}"#, r#"{"type":"text","text":"z"}"#]
    );
    assert_eq!(at(Some(index.messages[2].span)), "7");
    assert_eq!(at(index.service_tier), "\"auto\"");
    assert_eq!(at(index.speed), "\"fast\"");
    let others = index.others.unwrap();
    assert_eq!(others.iter().map(|m| at(Some(m.name))).collect::<Vec<_>>(), ["\"context_management\""]);
    assert_eq!(at(Some(others[0].value)), r#"{"edits":[]}"#);
}

#[test]
fn names_are_compared_after_unescaping() {
    let body = br#"{"mod\u0065l":"a\u002db","messages":[{"r\u006fle":"us\u0065r"}]}"#;
    let index = parse(body).unwrap();
    assert_eq!(&*index.model, "a-b");
    assert_eq!(index.messages[0].role, Role::User);
}

#[test]
fn faulty_bodies_are_refused_with_member_and_offset() {
    let long = format!(r#"{{"model":"{}"}}"#, "é".repeat(257));
    let longest = format!(r#"{{"model":"{}"}}"#, "é".repeat(256));
    assert!(parse(longest.as_bytes()).is_ok());
    let deep =
        |levels: usize| format!(r#"{{"model":"m","x":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(parse(deep(127).as_bytes()).is_ok());
    let deep_content = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"model":"m","messages":[{{"content":[{open}{close}]}}]}}"#)
    };
    assert!(parse(deep_content(124).as_bytes()).is_ok());
    let table: &[(&str, &str, Fault, usize)] = &[
        ("", "body", Fault::Json, 0),
        ("[]", "body", Fault::NotAnObject, 0),
        ("\"x\"", "body", Fault::NotAnObject, 0),
        ("{}", "model", Fault::Missing, 2),
        (r#"{"messages":[]}"#, "model", Fault::Missing, 15),
        (r#"{"model":7}"#, "model", Fault::NotAString, 9),
        (r#"{"model":null}"#, "model", Fault::NotAString, 9),
        (r#"{"model":"\ud800"}"#, "model", Fault::NotAString, 9),
        (&long, "model", Fault::TooLong, 9),
        (r#"{"model":"a","model":"b"}"#, "model", Fault::Duplicate, 13),
        (r#"{"model":"a","mod\u0065l":"b"}"#, "model", Fault::Duplicate, 13),
        (r#"{"model":"a","messages":[],"messages":[]}"#, "messages", Fault::Duplicate, 27),
        (
            r#"{"model":"a","metadata":{"user_id":"a","user_id":"b"}}"#,
            "metadata.user_id",
            Fault::Duplicate,
            39,
        ),
        (r#"{"model":"a","messages":[{"role":"user","role":"x"}]}"#, "messages.role", Fault::Duplicate, 40),
        (
            r#"{"model":"a","messages":[{"content":1,"content":"x"}]}"#,
            "messages.content",
            Fault::Duplicate,
            38,
        ),
        (r#"{"model":"a","messages":[{]}"#, "messages", Fault::Json, 26),
        (r#"{"model":"a"} x"#, "body", Fault::Json, 14),
        (r#"{"model":"a",}"#, "body", Fault::Json, 13),
        (r#"{"model":"a" "b":1}"#, "body", Fault::Json, 13),
        ("{\"model\":\"a\nb\"}", "model", Fault::Json, 11),
        (r#"{"model":"a\x"}"#, "model", Fault::Json, 11),
        (r#"{"model":"a"#, "model", Fault::Json, 11),
        (&deep(128), "body", Fault::TooDeep, 17 + 127),
        (&deep_content(125), "messages", Fault::TooDeep, 13 + 24 + 124),
    ];
    for (body, member, fault, offset) in table {
        assert_eq!(refused(body), (*member, *fault, *offset), "{body}");
    }
}

#[test]
fn broken_utf8_is_refused_where_it_stands() {
    let mut body = OK.as_bytes().to_vec();
    body[10] = 0xff;
    let error = parse(&body).unwrap_err();
    assert_eq!((error.fault, error.offset), (Fault::Utf8, 10));
}

#[test]
fn unknown_members_may_repeat_and_hold_anything() {
    let body =
        br#"{"x":1,"x":[{"model":2,"model":3}],"model":"m","messages":"text","tools":{},"stream":"yes"}"#;
    let index = parse(body).unwrap();
    assert!(!index.stream);
    assert_eq!(index.messages_span.unwrap().of(body), b"\"text\"");
    assert_eq!(index.tools_span.unwrap().of(body), b"{}");
    assert_eq!(index.others.unwrap().len(), 1);
}

#[test]
fn lists_beyond_the_bound_are_refused() {
    let body = format!(r#"{{"model":"m","messages":[{}0]}}"#, "0,".repeat(MAX_ITEMS));
    assert_eq!(refused(&body).1, Fault::TooMany);
    let members = (0..=MAX_OTHER_MEMBERS).fold(String::new(), |all, i| format!("{all}\"x{i}\":\"\","));
    let index = parse(format!(r#"{{{members}"model":"m"}}"#).as_bytes()).unwrap();
    assert_eq!(index.others, None);
}

#[test]
fn the_refusal_names_member_and_offset() {
    let refusal = Refusal::from(parse(br#"{"model":7}"#).unwrap_err());
    assert_eq!(refusal.code, Code::BadRequest);
    assert_eq!(refusal.reason, "model: must be a string at byte 9");
    assert_eq!(refusal.validation_errors, [("model".to_owned(), "must be a string at byte 9".to_owned())]);
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<f64>().prop_map(|n| serde_json::to_string(&n).unwrap()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        "\"(\\\\u[0-9a-fA-F]{4}|[a-z ]|\\\\[nrt/\"])*\"",
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[ {} ]", items.join(" ,"))),
            proptest::collection::vec((any::<String>(), inner), 0..6).prop_map(|members| {
                let members = members
                    .into_iter()
                    .map(|(k, v)| format!("{}:\t{v}", serde_json::to_string(&format!("x{k}")).unwrap()));
                format!("{{{}}}", members.collect::<Vec<_>>().join(",\n"))
            }),
        ]
    })
}

/// Wraps `value` so that only its own validity decides.
fn wrap(value: &str) -> String {
    format!(r#"{{"x":{value},"model":"m"}}"#)
}

proptest! {
    #[test]
    fn valid_json_is_taken(value in json()) {
        prop_assert!(parse(wrap(&value).as_bytes()).is_ok());
    }

    #[test]
    fn damaged_json_is_judged_as_serde_json_judges_it(value in json(), at in any::<usize>(), byte in prop::sample::select(b"\"\\{}[]:,0-.eu \ntx".to_vec())) {
        let mut body = wrap(&value).into_bytes();
        let at = at % body.len();
        body[at] = byte;
        let ours = parse(&body);
        let valid = std::str::from_utf8(&body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        match ours {
            Ok(_) => prop_assert!(valid),
            Err(error) if matches!(error.fault, Fault::Json | Fault::Utf8) => prop_assert!(!valid),
            // A fault of another kind ends the pass; what comes behind it is not read.
            Err(_) => {}
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&body);
    }
}
