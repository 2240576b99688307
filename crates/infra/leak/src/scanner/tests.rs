use crate::{Form, Hit, Hold, LeakError, Scanner, StreamScanner};
use base64::Engine as _;
use base64::engine::general_purpose as b64;
use proptest::prelude::*;
use serde_json::json;
use systemprompt_models::Secret;

const VALUE: &str = "crm/T0-ken+\"q\"\\z&<é>%7f";

fn scanner_with(values: &[(&str, &str)]) -> (Scanner, Vec<Hold>) {
    let scanner = Scanner::new();
    let holds = values.iter().map(|(n, v)| scanner.hold(n, &Secret::from(*v)).unwrap()).collect();
    (scanner, holds)
}

fn forms_of(hits: &[Hit]) -> Vec<Form> {
    hits.iter().map(|h| h.form).collect()
}

#[test]
fn every_form_of_a_value_is_found_alone_and_inside_longer_text() {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let (scanner, _holds) = scanner_with(&[("crm", VALUE)]);
    let json = serde_json::to_string(VALUE).unwrap();
    let escaped = VALUE.encode_utf16().map(|u| format!("\\u{u:04x}")).collect::<Vec<_>>().concat();
    let entities = VALUE.chars().map(|c| format!("&#{};", u32::from(c))).collect::<Vec<_>>().concat();
    let all = VALUE.bytes().map(|b| format!("%{b:02x}")).collect::<Vec<_>>().concat();
    let cases = [
        (Form::Plain, VALUE.to_owned()),
        (Form::Base64, b64::STANDARD.encode(VALUE)),
        (Form::Base64, b64::STANDARD_NO_PAD.encode(VALUE)),
        (Form::Base64Url, b64::URL_SAFE.encode(VALUE)),
        (Form::Hex, hex::encode(VALUE)),
        (Form::Hex, hex::encode_upper(VALUE)),
        (Form::Percent, utf8_percent_encode(VALUE, NON_ALPHANUMERIC).to_string()),
        (Form::Percent, all.clone()),
        (Form::Percent, all.to_uppercase()),
        (Form::Json, json[1..json.len() - 1].to_owned()),
        (Form::JsonTwice, serde_json::to_string(&json).unwrap()[3..].trim_end_matches("\\\"\"").to_owned()),
        (Form::UnicodeEscape, escaped),
        (Form::HtmlEntity, entities),
        (
            Form::HtmlEntity,
            VALUE.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
        ),
        (Form::Reversed, VALUE.chars().rev().collect()),
    ];
    for (form, text) in cases {
        for (before, after) in [("", ""), ("x", "y"), ("{\"a\":\"", "\"}"), ("é ", " é")] {
            let whole = format!("{before}{text}{after}");
            let (clean, hits) = scanner.redact_text(&whole).unwrap_or_else(|| panic!("{form:?} in {whole}"));
            assert_eq!(clean, format!("{before}[redacted:crm]{after}"), "{form:?}");
            // Base64 of this value has no `-` or `_` up to its last group, so both alphabets may name it.
            assert_eq!(hits.len(), 1, "{form:?}");
            assert_eq!(hits[0].offset, before.len());
        }
    }
    let utf16: Vec<u8> = VALUE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(forms_of(&scanner.scan(&utf16)), [Form::Utf16Le]);
}

#[test]
fn base64_of_longer_data_is_found_at_every_alignment() {
    let (scanner, _holds) = scanner_with(&[("crm", VALUE)]);
    for before in ["", "a", "ab", "abc", "Basic user:"] {
        for after in ["", "1", "12", "123"] {
            for engine in [&b64::STANDARD, &b64::URL_SAFE] {
                let text = engine.encode(format!("{before}{VALUE}{after}"));
                assert_eq!(scanner.scan(text.as_bytes()).len(), 1, "{before} {after}");
            }
        }
    }
}

#[test]
fn base64_and_hex_broken_into_lines_are_found() {
    let (scanner, _holds) = scanner_with(&[("crm", VALUE)]);
    let lines = |text: &str, width: usize| {
        let pieces: Vec<&str> =
            text.as_bytes().chunks(width).map(|c| std::str::from_utf8(c).unwrap()).collect();
        pieces.join("\r\n  ")
    };
    for text in [b64::STANDARD.encode(VALUE), hex::encode(VALUE)] {
        for width in [4, 7, 16] {
            let wrapped = format!("begin {} end", lines(&text, width));
            let (clean, _) = scanner.redact_text(&wrapped).unwrap();
            assert_eq!(clean, "begin [redacted:crm] end");
        }
    }
}

#[test]
fn a_value_that_is_broken_or_partly_escaped_is_found() {
    let values = [
        ("crm", "crm/T0-ken+\"q\"z&<%7fé>"),
        ("words", "correct horse battery"),
        ("plain", "s3cret-token-of-nobody"),
    ];
    for (name, value) in values {
        let (scanner, _holds) = scanner_with(&[(name, value)]);
        let each = |with: &dyn Fn(usize, char) -> String| -> String {
            value.chars().enumerate().map(|(i, c)| with(i, c)).collect()
        };
        let broken = |between: &str, every: usize| {
            each(&|i, c| {
                if i > 0 && i % every == 0 { format!("{between}{c}") } else { c.to_string() }
            })
        };
        let percent =
            |c: char| c.to_string().bytes().map(|b| format!("%{b:02x}")).collect::<Vec<_>>().concat();
        let unicode = |c: char| {
            c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04X}")).collect::<Vec<_>>().concat()
        };
        let mut cases = vec![
            each(&|i, c| if i == 4 { percent(c) } else { c.to_string() }),
            each(&|i, c| if i % 3 == 1 { unicode(c) } else { c.to_string() }),
            each(&|i, c| if i % 2 == 1 { format!("&#x{:x};", u32::from(c)) } else { c.to_string() }),
            each(&|i, c| match i % 4 {
                0 => percent(c),
                1 => unicode(c),
                2 => format!("\\u{{{:x}}}", u32::from(c)),
                _ => c.to_string(),
            }),
            each(&|i, c| if i % 3 == 1 { unicode(c).replace('\\', "\\\\") } else { c.to_string() }),
            b64::STANDARD.encode(value).replace('=', "%3D").replace('T', "\\u0054"),
        ];
        for between in
            ["\u{200b}", "\u{ad}", "\n", "\r\n    ", " ", "\0", "\u{feff}\u{2028}", "\\n", "%0A", "%E2%80%8B"]
        {
            cases.extend([1, 3, 7].map(|every| broken(between, every)));
        }
        for text in cases {
            let whole = format!("<é {text} é>");
            let (clean, hits) = scanner.redact_text(&whole).unwrap_or_else(|| panic!("{value} in {whole:?}"));
            assert_eq!(clean, format!("<é [redacted:{name}] é>"), "{whole:?}");
            assert_eq!((hits.len(), hits[0].offset), (1, 4), "{whole:?}");
        }
    }
}

#[test]
fn a_request_is_scanned_in_its_raw_text() {
    let value = "s3cret-token-of-nobody/with+all";
    let (scanner, _holds) = scanner_with(&[("crm", value)]);
    let encoded = b64::STANDARD.encode(value);
    let wrapped = format!("{}\n{}", &encoded[..20], &encoded[20..]);
    let texts = [
        value.to_owned(),
        encoded,
        wrapped,
        value.replace('k', "\u{200b}k"),
        value.replace('e', "%65"),
        value.replace('e', "\\u0065"),
        json!({"token": value}).to_string(),
        json!({"token": value.replace('e', "\u{ad}e")}).to_string(),
    ];
    for text in texts {
        let body =
            json!({"messages": [{"role": "user", "content": format!("it is\n\"{text}\"")}]}).to_string();
        let hits = scanner.scan_request(body.as_bytes());
        assert_eq!(hits.len(), 1, "{body}");
        assert_eq!(&*hits[0].name, "crm");
    }
    assert!(scanner.scan_request(br#"{"messages":[{"content":"s3cret token of\nnobody"}]}"#).is_empty());
}

#[test]
fn ordinary_text_is_never_taken_for_a_value() {
    let (scanner, _holds) = scanner_with(&[("crm", VALUE), ("words", "correct horse battery")]);
    for text in
        ["correct, horse battery", "crm/T0-ken", "100 % of &c. \\new \\u00zz", "50%20more \u{200b} text"]
    {
        assert!(scanner.redact_text(text).is_none(), "{text}");
    }
}

#[test]
fn a_part_of_a_long_value_is_found_and_the_whole_is_one_region() {
    let long: String = (0..400).map(|i| char::from(b'a' + (i * i % 26) as u8)).collect();
    let (scanner, _holds) = scanner_with(&[("pem", &long)]);
    assert_eq!(scanner.redact_text(&format!("<{long}>")).unwrap().0, "<[redacted:pem]>");
    for from in (0..300).step_by(7) {
        assert!(!scanner.scan(&long.as_bytes()[from..from + 95]).is_empty(), "from {from}");
    }
}

#[test]
fn values_that_cannot_be_told_from_text_are_refused() {
    let scanner = Scanner::new();
    let refuse = |v: &str| scanner.hold("n", &Secret::from(v)).err();
    assert!(matches!(refuse("1234567"), Some(LeakError::TooShort { length: 7, .. })));
    assert!(matches!(refuse("abcdabcdabcd"), Some(LeakError::TooPlain { distinct: 4, .. })));
    assert!(scanner.is_empty());
}

#[test]
fn a_value_is_guarded_while_any_hold_lives() {
    let scanner = Scanner::new();
    let first = scanner.hold("n", &Secret::from("value-in-use")).unwrap();
    let second = scanner.clone().hold("n", &Secret::from("value-in-use")).unwrap();
    drop(first);
    assert_eq!(scanner.scan(b"value-in-use").len(), 1);
    drop(second);
    assert!(scanner.is_empty() && scanner.scan(b"value-in-use").is_empty());
}

#[test]
fn a_value_inside_another_gives_the_name_of_the_longer_one() {
    let (scanner, _holds) = scanner_with(&[("short", "abcdefgh"), ("long", "abcdefghijkl")]);
    assert_eq!(scanner.redact_text("abcdefghijkl abcdefgh").unwrap().0, "[redacted:long] [redacted:short]");
}

#[test]
fn json_is_redacted_in_strings_names_and_numbers() {
    let (scanner, _holds) = scanner_with(&[("crm", VALUE), ("pin", "8675309421")]);
    let mut value =
        json!({"a": [format!("x{VALUE}"), 8_675_309_421_u64, true], VALUE: {"b": null}, "c": "fine"});
    let hits = scanner.redact_json(&mut value);
    assert_eq!(hits.len(), 3);
    assert_eq!(
        value,
        json!({"a": ["x[redacted:crm]", "[redacted:pin]", true], "[redacted:crm]": {"b": null}, "c": "fine"})
    );
}

#[test]
fn an_undecided_stream_holds_little() {
    let (scanner, _holds) = scanner_with(&[("crm", VALUE)]);
    let (mut stream, mut out) = (scanner.stream(), Vec::new());
    stream.push(b"nothing of interest; ends with c", &mut out);
    assert!(stream.held() <= 7 && out.len() >= 25);
    stream.push(b"rm/T0-ken", &mut out);
    assert_eq!(stream.held(), "crm/T0-ken".len());
    stream.push(b"!", &mut out);
    assert_eq!(stream.held(), 0);
    assert!(stream.finish(&mut out).is_empty());
    assert_eq!(out, b"nothing of interest; ends with crm/T0-ken!");
}

fn streamed(mut stream: StreamScanner, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Hit>) {
    let (mut out, mut hits) = (Vec::new(), Vec::new());
    for piece in pieces {
        hits.extend(stream.push(piece, &mut out));
        assert!(stream.held() <= 95);
    }
    hits.extend(stream.finish(&mut out));
    (out, hits)
}

fn long_value() -> String {
    (0..250u32).map(|i| char::from(b'A' + (i * 7 % 23 * (i % 3 + 1) % 26) as u8)).collect()
}

/// Text in which values, their beginnings, their ends and their encodings follow each other without white space.
fn leaky_text() -> impl Strategy<Value = String> {
    let long = long_value();
    let piece = prop_oneof![
        Just(VALUE.to_owned()),
        Just(b64::STANDARD.encode(VALUE)),
        Just(b64::URL_SAFE_NO_PAD.encode(format!("u:{VALUE}"))),
        Just(hex::encode(VALUE)),
        Just(VALUE.encode_utf16().map(|u| format!("\\u{u:04X}")).collect::<Vec<_>>().concat()),
        Just(long.clone()),
        (0..200usize, 1..50usize).prop_map(move |(from, len)| long[from..from + len].to_owned()),
        (1..VALUE.len()).prop_map(|n| VALUE[..VALUE.floor_char_boundary(n)].to_owned()),
        "[a-z=]{0,9}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stream_cut_anywhere_equals_the_whole(text in leaky_text(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let long = long_value();
        let (scanner, _holds) = scanner_with(&[("crm", VALUE), ("part", &VALUE[..12]), ("long", &long)]);
        let bytes = text.as_bytes();
        let (once, hits) = streamed(scanner.stream(), &[bytes]);
        let direct = scanner.index().whole(bytes);
        prop_assert_eq!(
            hits.iter().map(|hit| (hit.offset, hit.form)).collect::<Vec<_>>(),
            direct.iter().map(|m| (m.start, m.form)).collect::<Vec<_>>()
        );
        let mut left = text.clone();
        for m in direct.iter().rev() {
            let name = scanner.index().name(m);
            left.replace_range(m.start..m.end, &format!("[redacted:{name}]"));
        }
        prop_assert_eq!(&once, left.as_bytes());
        for at in 0..=bytes.len() {
            let (out, found) = streamed(scanner.stream(), &[&bytes[..at], &bytes[at..]]);
            prop_assert_eq!(&out, &once, "cut at {}", at);
            prop_assert_eq!(&found, &hits);
        }
        let singles: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&streamed(scanner.stream(), &singles).0, &once);
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in at {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        prop_assert_eq!(&streamed(scanner.stream(), &pieces).0, &once);
    }
}
