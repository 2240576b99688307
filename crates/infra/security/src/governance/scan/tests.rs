//! The scanner from outside: each rule's examples, each encoding, and that the first look misses nothing.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;
use std::sync::LazyLock;

static SCANNER: LazyLock<SecretScanner> = LazyLock::new(|| SecretScanner::builtin().unwrap());

const TOKEN: &str = "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";
const CHAT: &str = "sk-ant-api03-Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv1Wx2Yz3-Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9AA";

fn scan(json: &str) -> Vec<Finding> {
    SCANNER.scan_segment(&Segment { pointer: "".into(), json: json.as_bytes() }).unwrap()
}

fn rules_of(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|f| &*f.rule_id).collect()
}

/// What the examples of `rules/providers.yaml` look like, which stand in a file of their own: a running product needs none.
#[derive(serde::Deserialize)]
struct Example {
    id: String,
    positive: Vec<String>,
    negative: Vec<String>,
}

/// Every rule with its examples.
fn examples() -> Vec<Example> {
    let published: Vec<Example> =
        serde_saphyr::from_str(include_str!("../../../rules/examples.yaml")).unwrap();
    let own = rules::sources(rules::BUILTIN[0]).unwrap();
    let own = own.into_iter().map(|r| Example { id: r.id, positive: r.positive, negative: r.negative });
    own.chain(published).collect()
}

#[test]
fn every_rule_compiles_and_finds_its_positive_examples_and_none_of_its_negative_ones() {
    let examples = examples();
    let rules = rules::RuleSet::parse(&rules::BUILTIN).unwrap();
    let mut wrong = Vec::new();
    for rule in &rules.rules {
        rule.check().unwrap();
        match examples.iter().find(|e| e.id == *rule.id) {
            Some(own) if !own.positive.is_empty() && !own.negative.is_empty() => {}
            _ => wrong.push(format!("{} has no examples", rule.id)),
        }
    }
    for rule in &examples {
        for example in &rule.positive {
            let found = SCANNER.scan_text(example);
            if !rules_of(&found).contains(&&*rule.id) {
                wrong.push(format!("{} misses {example}: {:?}", rule.id, rules_of(&found)));
            }
        }
        for example in &rule.negative {
            if rules_of(&SCANNER.scan_text(example)).contains(&&*rule.id) {
                wrong.push(format!("{} hits {example}", rule.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let specific = rules.rules.iter().filter(|r| r.class == FindingClass::Specific).count();
    assert!(specific >= 220, "{specific} specific rules");
}

#[test]
fn control_characters_and_half_surrogates_hide_nothing() {
    for (name, secret) in [("github", TOKEN), ("anthropic", CHAT)] {
        for at in [1, 3, 5, 9, 17, 30, secret.len() - 1] {
            let (head, tail) = secret.split_at(at);
            for hidden in [
                "\\u0000",
                "\\u0001",
                "\\u001f",
                "\\u007f",
                "\u{7f}",
                "\\ud800",
                "\\udc00",
                "\\ud800\\ud800",
                "\\ufffd",
                "\u{fffd}",
                "\\u0000\\u0000\\u200b",
                "\u{85}",
                "%00",
                "%7F",
            ] {
                for json in [
                    format!(r#"{{"note":"use {head}{hidden}{tail} now"}}"#),
                    format!(r#"{{"{head}{hidden}{tail}":1}}"#),
                ] {
                    assert!(!scan(&json).is_empty(), "{name} {json:?}");
                }
            }
            let raw = format!("use {head}\0{tail} now");
            assert!(!SCANNER.scan_text(&raw).is_empty(), "{name} {raw:?}");
            let inner = json!({"a": format!("{head}\0{tail}")}).to_string();
            assert!(!scan(&json!({"text": inner}).to_string()).is_empty(), "{name} inside JSON text");
            assert!(
                !scan(&json!({"text": STANDARD.encode(format!("use {head}\0{tail}"))}).to_string())
                    .is_empty()
            );
        }
    }
    let many = format!(r#""{}""#, "a\\u0000".repeat(200_000));
    assert!(scan(&many).is_empty());
}

#[test]
fn the_named_providers_are_covered() {
    let providers: Vec<&str> = SCANNER.rules().map(|(_, provider)| provider).collect();
    for provider in [
        "aws",
        "github",
        "gitlab",
        "slack",
        "stripe",
        "google",
        "azure",
        "anthropic",
        "openai",
        "npm",
        "pypi",
        "jwt",
        "pem",
        "connection",
        "twilio",
        "sendgrid",
        "mailgun",
        "heroku",
    ] {
        assert!(providers.contains(&provider), "{provider}");
    }
}

fn escaped(text: &str) -> String {
    text.encode_utf16().fold(String::new(), |out, unit| out + &format!("\\u{unit:04x}"))
}

fn wide(text: &str) -> String {
    text.chars().map(|c| char::from_u32(c as u32 + 0xFEE0).unwrap()).collect()
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |out, b| out + &format!("%{b:02X}"))
}

fn wrap(text: &str) -> String {
    STANDARD
        .encode(text)
        .as_bytes()
        .chunks(64)
        .map(|l| String::from_utf8_lossy(l).into_owned())
        .collect::<Vec<_>>()
        .join("\\n")
}

#[test]
fn a_secret_is_found_in_every_encoding_with_its_place() {
    let nested = serde_json::json!({"k": TOKEN}).to_string();
    let long = format!("{} {TOKEN} {}", "prose before it ".repeat(6), "and after it ".repeat(6));
    let b64 = STANDARD.encode(TOKEN);
    let in_line = STANDARD.encode(format!("token: {TOKEN}"));
    let utf8 = |s: &str| s.len();
    for (json, pointer, offset, length) in [
        (format!("\"{TOKEN}\""), "", 0, 40),
        (format!("{{\"a\":[1,\"x {TOKEN}.\"]}}"), "/a/1", 2, 40),
        (format!("{{\"a/b~\":\"{TOKEN}\"}}"), "/a~1b~0", 0, 40),
        (format!("{{\"a\":\"one\",\"a\":\"{TOKEN}\"}}"), "/a", 0, 40),
        (format!("{{\"a\":\"line\\n{TOKEN}\\n\"}}"), "/a", 5, 40),
        (format!("{{\"a\":\"{}\"}}", escaped(TOKEN)), "/a", 0, 40),
        (format!("{{\"a\":\"gh\\u0070{}\"}}", &TOKEN[3..]), "/a", 0, 40),
        (format!("{{\"a\":\"{}\\u200b{}\"}}", &TOKEN[..2], &TOKEN[2..]), "/a", 0, 43),
        (format!("{{\"a\":\"{}\u{200b}{}\"}}", &TOKEN[..20], &TOKEN[20..]), "/a", 0, 43),
        (format!("{{\"a\":\"{}\"}}", wide(TOKEN)), "/a", 0, utf8(&wide(TOKEN))),
        (format!("{{\"a\":\"{}\"}}", percent(TOKEN)), "/a", 0, 120),
        (format!("{{\"a\":\"see x={} y\"}}", percent(TOKEN)), "/a", 6, 120),
        (format!("{{\"a\":\"{b64}\"}}"), "/a", 0, b64.len()),
        (format!("{{\"a\":\"Basic {in_line}\\n\"}}"), "/a", 6, in_line.len()),
        (
            format!("{{\"a\":\"\\n{}\\n\"}}", URL_SAFE_NO_PAD.encode(&long)),
            "/a",
            1,
            URL_SAFE_NO_PAD.encode(&long).len(),
        ),
        (format!("{{\"a\":\"{}\"}}", wrap(&long)), "/a", 0, wrap(&long).replace("\\n", "\n").len()),
        (serde_json::json!({"a": nested}).to_string(), "/a", 6, 40),
        (serde_json::json!({"a": format!("{{\"k\":\"x\\n{TOKEN}\"}}")}).to_string(), "/a", 9, 40),
        (serde_json::json!({"a": format!("{{\"k\":\"{}\"}}", escaped(TOKEN))}).to_string(), "/a", 6, 240),
        (format!("not json: {TOKEN}"), "", 10, 40),
        (format!("{{\"cut\":\"{TOKEN}"), "", 8, 40),
    ] {
        let found = scan(&json);
        assert_eq!(rules_of(&found), ["github-token"], "{json}");
        let finding = &found[0];
        assert_eq!((&*finding.pointer, finding.offset, finding.length), (pointer, offset, length), "{json}");
        assert_eq!(finding.confidence, Confidence::High, "{json}");
        assert_eq!(finding.hmac, scan(&format!("\"{TOKEN}\""))[0].hmac, "{json}");
    }
}

#[test]
fn keys_are_scanned_and_masked_in_pointers() {
    let found = scan(&format!("{{\"{TOKEN}\":{{\"k\":\"{CHAT}\"}}}}"));
    assert_eq!(rules_of(&found), ["github-token", "anthropic-key"]);
    let mark = found[0].marker();
    assert_eq!(&*found[0].pointer, format!("/{mark}"));
    assert_eq!(&*found[1].pointer, format!("/{mark}/k"));
    let long = scan(&format!("{{\"{}\":\"{TOKEN}\"}}", "\u{1f600}".repeat(60)));
    assert_eq!(&*long[0].pointer, format!("/{}\u{2026}", "\u{1f600}".repeat(32)));
}

#[test]
fn a_finding_tells_nothing_of_the_secret() {
    let json = format!("{{\"{TOKEN}\":\"{CHAT}\",\"u\":\"postgres://app:hunter2xyz@db/x\"}}");
    let told = serde_json::to_string(&scan(&json)).unwrap();
    for secret in [TOKEN, CHAT, "hunter2xyz"] {
        for at in 0..secret.len() - 5 {
            assert!(!told.contains(&secret[at..at + 6]), "{} in {told}", &secret[at..at + 6]);
        }
    }
}

#[test]
fn digests_need_the_key_and_stay_under_it() {
    let digest = |key: &[u8]| SecretScanner::builtin_with_key(key).unwrap().scan_text(TOKEN)[0].hmac.clone();
    assert_eq!(SCANNER.with_key(b"one").unwrap().scan_text(TOKEN)[0].hmac, digest(b"one"));
    assert_eq!(digest(&[1; 32]), digest(&[1; 32]));
    assert_ne!(digest(&[1; 32]), digest(&[2; 32]));
}

#[test]
fn a_wrong_checksum_lowers_confidence_only() {
    let found = SCANNER.scan_text(&TOKEN.replace("0mLq17", "0mLq18"));
    assert_eq!(found[0].confidence, Confidence::Medium);
}

#[test]
fn what_looks_random_is_a_generic_finding() {
    let found = SCANNER.scan_text("key 9uI2nicgdMBN7DB9NtLE7rTAADf85E4OO8vyfLmF end");
    assert_eq!(
        (rules_of(&found)[0], found[0].class, found[0].offset),
        ("generic-high-entropy", FindingClass::Generic, 4)
    );
    assert!(
        SCANNER
            .scan_text("018f3c2e-7d4b-7c1a-9a55-2f6f0e1b8c77 /usr/lib/x86_64-linux-gnu/libc.so")
            .is_empty()
    );
}

#[test]
fn too_deep_or_too_many_parts_are_refused_with_and_without_secrets() {
    for body in ["1", "\"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\""] {
        let deep = format!("{}{body}{}", "[".repeat(65), "]".repeat(65));
        let segment = Segment { pointer: "".into(), json: deep.as_bytes() };
        assert_eq!(SCANNER.scan_segment(&segment), Err(TooComplex::Depth));
    }
    let wide = format!("[{}1]", "0,".repeat(MAX_NODES));
    let segment = Segment { pointer: "".into(), json: wide.as_bytes() };
    assert_eq!(SCANNER.scan_segment(&segment), Err(TooComplex::Nodes));
}

#[test]
fn judged_text_is_recognised_wherever_it_stands() {
    let json = format!("{{\"text\":\"{} {TOKEN}\"}}", "long prose ".repeat(100));
    let at = |pointer: &'static str| Segment { pointer: pointer.into(), json: json.as_bytes() };
    let first = SCANNER.scan_segment(&at("/messages/0")).unwrap();
    let digest = SCANNER.cache.digest(json.as_bytes()).unwrap();
    assert_eq!(SCANNER.cache.get(&digest).unwrap().len(), 1);
    let again = SCANNER.scan_segment(&at("/messages/3")).unwrap();
    assert_eq!(&*first[0].pointer, "/messages/0/text");
    assert_eq!(&*again[0].pointer, "/messages/3/text");
    assert_eq!((first[0].offset, &first[0].hmac), (again[0].offset, &again[0].hmac));
    let changed = json.replace("long prose long", "long Prose long");
    assert_ne!(SCANNER.cache.digest(changed.as_bytes()).unwrap(), digest);
}

#[test]
fn redaction_replaces_secrets_and_leaves_all_other_bytes() {
    let mark = SCANNER.scan_text(TOKEN)[0].marker();
    assert_eq!(
        SCANNER.redact_text(&format!("a {TOKEN} b {TOKEN} \u{1f600}")),
        format!("a {mark} b {mark} \u{1f600}")
    );
    let json = format!(" {{ \"a\\u0062\" : \"q\\\"\\n{}\" , \"b\":[ 1.0 ,\"x\\/y\"] }} ", escaped(TOKEN));
    let want = format!(" {{ \"a\\u0062\" : \"q\\\"\\n{mark}\" , \"b\":[ 1.0 ,\"x\\/y\"] }} ");
    let got = SCANNER.redact_json(json.as_bytes()).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), want);
    let clean = br#"{"a":"plain"}"#;
    assert!(matches!(SCANNER.redact_json(clean).unwrap(), Cow::Borrowed(b) if b == clean));
    assert!(scan(&want).is_empty());
}

/// Five secrets in 2 KiB of text.
fn five() -> (String, Vec<std::ops::Range<usize>>) {
    let secrets = [
        TOKEN,
        CHAT,
        "AKIAC6O6OYA7VNGCNGSU",
        "postgres://app:hunter2@db.internal/prod",
        "xoxb-264821940571-2648219405712-aB3dE5fG7hJ9kL1mN3pQ5rS7",
    ];
    let mut text = String::new();
    let mut spans = Vec::new();
    for secret in secrets {
        text.push_str(&"words in between, \u{e9}\u{4e2d} ".repeat(17));
        spans.push(text.len()..text.len() + secret.len());
        text.push_str(secret);
        text.push_str(", ");
    }
    text.push_str("and so on.");
    (text, spans)
}

#[test]
fn four_byte_characters_at_every_offset_hide_nothing_and_break_nothing() {
    let (text, spans) = five();
    assert!(text.len() > 2000 && SCANNER.scan_text(&text).len() == 5);
    for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
        let changed = format!("{}\u{1f600}{}", &text[..at], &text[at..]);
        let found = SCANNER.scan_text(&changed);
        let whole = spans.iter().filter(|s| !(s.start < at && at < s.end)).count();
        assert!(found.len() >= whole, "at {at}: {found:?}");
        for finding in &found {
            assert!(changed.get(finding.offset..finding.offset + finding.length).is_some(), "at {at}");
        }
        assert!(SCANNER.redact_text(&changed).contains("\u{1f600}") || whole < 5, "at {at}");
    }
}

fn streamed(text: &[u8], pieces: &[usize]) -> Vec<Finding> {
    static SHARED: LazyLock<Arc<SecretScanner>> =
        LazyLock::new(|| Arc::new(SCANNER.with_key(b"stream").unwrap()));
    let mut stream = StreamScanner::new(SHARED.clone(), "/content/0");
    let (mut found, mut at) = (Vec::new(), 0);
    for piece in pieces.iter().cycle() {
        let end = text.len().min(at + piece);
        found.extend(stream.push(&text[at..end]));
        at = end;
        if at == text.len() {
            break;
        }
    }
    found.extend(stream.finish());
    found.sort_by_key(|f| f.offset);
    found
}

#[test]
fn case_29_every_chunking_finds_the_same() {
    let (text, spans) = five();
    assert!(text.len() > 2000 && spans.len() == 5);
    let whole = SCANNER.with_key(b"stream").unwrap().scan_text(&text);
    let place = |f: &Finding| (f.rule_id.clone(), f.offset, f.length, f.hmac.clone());
    let want: Vec<_> = whole.iter().map(place).collect();
    assert_eq!(want.len(), 5);
    let check = |pieces: &[usize]| {
        let found = streamed(text.as_bytes(), pieces);
        assert_eq!(found.iter().map(place).collect::<Vec<_>>(), want, "pieces of {pieces:?}");
        assert!(found.iter().all(|f| &*f.pointer == "/content/0"));
    };
    for size in 1..=64 {
        check(&[size]);
    }
    for size in [127, 255, 256, 257, 511, 512, 513, 1000, text.len()] {
        check(&[size]);
    }
    // Cut once, at every place.
    for at in 1..text.len() {
        check(&[at, text.len()]);
    }
}

#[test]
fn a_private_key_and_a_long_token_are_found_across_the_overlap() {
    let body = "MIIEpAIBAAKCAQEA7bq9Zw0xHk3yVn5c2sJm8tR4uLpQeGdFhK1oT6iYzWvXbNaC\n".repeat(24);
    let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n");
    let jwt = format!("eyJhbGciOiJSUzI1NiJ9.eyJ{}.{}", "c3ViIjoiMTIz".repeat(200), "a1B2c3D4".repeat(40));
    let text = format!(
        "{}{pem}{}{jwt} and the rest. {}",
        "words ".repeat(99),
        "more ".repeat(300),
        "x ".repeat(400)
    );
    let whole = SCANNER.scan_text(&text);
    let place = |f: &Finding| (f.rule_id.clone(), f.offset, f.length);
    let specific = |f: &&Finding| f.class == FindingClass::Specific;
    let want: Vec<_> = whole.iter().filter(specific).map(place).collect();
    assert_eq!(want.iter().map(|(rule, ..)| &**rule).collect::<Vec<_>>(), ["private-key", "jwt"]);
    for size in [1, 7, 256, 700, 4096, text.len()] {
        let found = streamed(text.as_bytes(), &[size]);
        let found: Vec<_> = found.iter().filter(specific).map(place).collect();
        assert_eq!(found, want, "pieces of {size}");
    }
}

#[test]
fn case_29_a_stream_of_four_byte_characters_breaks_nothing() {
    let (text, _) = five();
    for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)).step_by(7) {
        let changed = format!("{}\u{1f600}{}", &text[..at], &text[at..]);
        let want = streamed(changed.as_bytes(), &[changed.len()]).len();
        for size in [1, 2, 3, 5] {
            assert_eq!(streamed(changed.as_bytes(), &[size]).len(), want, "at {at}, pieces of {size}");
        }
    }
}

#[test]
fn keys_glued_to_words_or_cut_by_line_breaks_or_encoded_twice_are_found() {
    for text in [
        format!("my{TOKEN}"),
        format!("prefix_{TOKEN}_suffix"),
        format!("x{CHAT}"),
        "myAKIAC6O6OYA7VNGCNGSU".to_owned(),
        format!("{}\n{}", &TOKEN[..20], &TOKEN[20..]),
        format!("{}\r\n    {}", &TOKEN[..9], &TOKEN[9..]),
        format!("{}\n{}\n{}", &CHAT[..30], &CHAT[30..60], &CHAT[60..]),
        STANDARD.encode(STANDARD.encode(format!("the token is {TOKEN}"))),
        percent(&percent(TOKEN)),
        STANDARD.encode(format!("a={}", percent(TOKEN))),
        percent(&STANDARD.encode(format!("the token is {TOKEN}"))),
    ] {
        assert!(SCANNER.has_secret(&text), "{text}");
        assert!(
            scan(&json!({"a": text}).to_string()).iter().any(|f| f.class == FindingClass::Specific),
            "{text}"
        );
    }
    for text in [
        // What is no key stays none when its lines are joined.
        format!("{}\n\nNew paragraph", &TOKEN[..20]),
        "task-\nrunner-for-the-weekly-report-2026".to_owned(),
        "npm_\nconfig_registry_of_the_house_2026_and_more".to_owned(),
        "the disk-based sk-learn pipeline".to_owned(),
    ] {
        assert!(!SCANNER.has_secret(&text), "{text}");
    }
}

/// A text as forms encode it.
fn form(text: &str) -> String {
    text.bytes().fold(String::new(), |out, b| match b {
        b' ' => out + "+",
        b if b.is_ascii_alphanumeric() || b == b'-' => out + &char::from(b).to_string(),
        b => out + &format!("%{b:02X}"),
    })
}

#[test]
fn a_private_key_is_found_however_it_is_encoded() {
    let body = "MIIEpAIBAAKCAQEA7bq9Zw0xHk3yVn5c2sJm8tR4uLpQeGdFhK1oT6iYzWvXbNaC\n".repeat(8);
    let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n");
    for text in [
        form(&pem),
        format!("a=1&key={}&b=2", form(&pem)),
        pem.replace('\n', "%0A").replace(' ', "%20"),
        pem.replace('\n', "%0A"),
        pem.replace('\n', "%0D%0A"),
        pem.replace("BEGIN RSA", "BEGIN%20RSA"),
        pem.replacen("-----BEGIN", "%2D----BEGIN", 1),
        form(&form(&pem)),
        form(&STANDARD.encode(&pem)),
        STANDARD.encode(form(&pem)),
    ] {
        for json in [json!({ "a": text }), json!({ "a": format!("see 100% of it: {text} and so on") })] {
            assert!(rules_of(&scan(&json.to_string())).contains(&"private-key"), "{text}");
        }
        assert!(SCANNER.has_secret(&text), "{text}");
    }
}

#[test]
fn base64_is_read_wherever_in_it_a_secret_stands() {
    let noise = |len: usize| -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .collect()
    };
    let with = |before: usize, after: usize| {
        STANDARD.encode([&noise(before)[..], TOKEN.as_bytes(), &noise(after)].concat())
    };
    let lines = |text: &str, width: usize, feed: &str| {
        let lines: Vec<&str> = text.as_bytes().chunks(width).map(|l| str::from_utf8(l).unwrap()).collect();
        lines.join(feed)
    };
    let prose = STANDARD.encode(format!("{} {TOKEN}", "prose before it ".repeat(6)));
    for text in [
        with(30, 4),
        with(31, 40),
        with(80, 3),
        with(70_000, 100),
        with(300_001, 300_000),
        STANDARD.encode(format!("{}{TOKEN}", "plain words ".repeat(9_000))),
        lines(&prose, 24, "\n"),
        lines(&prose, 40, "\r\n"),
        lines(&prose, 59, "\n"),
        lines(&with(100, 40), 76, "\n"),
    ] {
        let found = scan(&json!({ "a": text }).to_string());
        assert!(rules_of(&found).contains(&"github-token"), "{}: {found:?}", &text[..40]);
        assert!(SCANNER.has_secret(&text), "{}", &text[..40]);
    }
}

#[test]
fn a_number_that_its_name_gives_away_is_found_and_replaced_by_a_string() {
    let json = r#"{"discord":193746582910473856,"n":[1,2]}"#;
    let found = scan(json);
    assert_eq!((rules_of(&found), &*found[0].pointer), (vec!["discord-client-id"], "/discord"));
    let clean = SCANNER.redact_json_where(json.as_bytes(), &|_| true).unwrap();
    let want = format!(r#"{{"discord":"{}","n":[1,2]}}"#, found[0].marker());
    assert_eq!(String::from_utf8_lossy(&clean), want);
}

#[test]
fn the_name_of_a_member_gives_its_value_away() {
    let hex = "9f86d081884c7d659a2feaa0c55ad015";
    for (json, rule, pointer) in [
        (json!({"env": {"TWILIO_AUTH_TOKEN": hex}}), "twilio-auth-token", "/env/TWILIO_AUTH_TOKEN"),
        (
            json!({"aws_secret_access_key": "ZCzJs6DdB1QRwmyjC/FWfP64ojXa+6eGqAismkSV"}),
            "aws-secret-access-key",
            "/aws_secret_access_key",
        ),
    ] {
        let text = json.to_string();
        let found = scan(&text);
        let found = found.iter().find(|f| &*f.rule_id == rule).unwrap_or_else(|| panic!("{text}: {found:?}"));
        assert_eq!((&*found.pointer, found.offset), (pointer, 0));
        let clean = String::from_utf8(SCANNER.redact_json(text.as_bytes()).unwrap().into_owned()).unwrap();
        assert!(
            !clean.contains(&text[text.len() - 20..text.len() - 4]) && clean.contains(&found.marker()),
            "{clean}"
        );
    }
    assert!(scan(&json!({"md5": hex, "twilio": "a client"}).to_string()).is_empty());
}

#[test]
fn segments_cut_at_every_byte_give_the_findings_of_their_parts() {
    let (text, spans) = five();
    for at in 0..=text.len() {
        let (left, right) = text.as_bytes().split_at(at);
        let mut found = 0;
        for json in [left, right] {
            found += SCANNER.scan_segment(&Segment { pointer: "/p".into(), json }).unwrap().len();
        }
        let whole = spans.iter().filter(|s| !(s.start < at && at < s.end)).count();
        assert!(found >= whole && found <= whole + 2, "cut at {at}: {found} of {whole}");
    }
}

/// All examples of all rules.
static EXAMPLES: LazyLock<Vec<String>> =
    LazyLock::new(|| examples().into_iter().flat_map(|r| r.positive.into_iter().chain(r.negative)).collect());

const NOISE: [&str; 24] = [
    "plain words ",
    "\n",
    "\\",
    "\"",
    "/",
    "https://docs.example.org/a/b-c_d?x=1%20y#z ",
    "018f3c2e-7d4b-7c1a-9a55-2f6f0e1b8c77",
    "3f786850e387550fdab836ed7e6dc881de23001b ",
    "/usr/lib/x86_64-linux-gnu/python3/dist-packages ",
    "caf\u{e9} \u{4e2d}\u{6587} ",
    "\u{1f600}",
    "\u{200b}",
    "\u{2026}",
    "\u{ff27}\u{ff28}",
    "100% ",
    "\\u0041",
    "\\n",
    "{\"k\": \"",
    "\"}",
    "task-list ",
    "VGhlIHF1aWNrIGJyb3duIGZveCBqdW1wcyBvdmVyIHRoZSBsYXp5IGRvZyBhbmQg",
    "npm_config_registry",
    "\t<a&b>",
    "9uI2nicgdMBN7DB9NtLE7rT++Df85E4OO8vyfLmF",
];

/// A piece of text: noise, or an example in some encoding.
fn piece() -> impl Strategy<Value = String> {
    let example = (any::<prop::sample::Index>(), 0..10usize, any::<prop::sample::Index>()).prop_map(
        |(which, how, where_)| {
            let text = which.get(&EXAMPLES).clone();
            let ends: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
            let at = *where_.get(&ends);
            let (left, right) = text.split_at(at);
            match how {
                0 => escaped(&text),
                1 => STANDARD.encode(&text),
                2 => URL_SAFE_NO_PAD.encode(format!("{} {text}", "some words before it ".repeat(at % 7))),
                3 => wrap(&format!("{} {text}", "some words before it ".repeat(3 + at % 7)))
                    .replace("\\n", "\n"),
                4 => percent(&text),
                5 => format!("{left}{}", percent(right)),
                6 => format!("{left}\u{200b}{right}"),
                7 => serde_json::json!({ "k": text }).to_string(),
                8 => text
                    .chars()
                    .map(|c| char::from_u32(c as u32 + 0xFEE0).filter(|_| c.is_ascii_graphic()).unwrap_or(c))
                    .collect(),
                _ => text,
            }
        },
    );
    prop_oneof![
        2 => prop::sample::select(&NOISE[..]).prop_map(str::to_owned),
        1 => example,
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..6).prop_map(|pieces| pieces.concat())
}

/// A JSON string literal, escaped as different writers do: as little as possible, slashes too, all beyond ASCII, or `<>&`.
fn literal(text: &str, style: u8) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    match style {
        0 => quoted,
        1 => quoted.replace('/', "\\/"),
        2 => quoted
            .chars()
            .map(|c| if c.is_ascii() { c.to_string() } else { escaped(&c.to_string()) })
            .collect(),
        _ => quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
    }
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => (text(), 0..4u8).prop_map(|(t, style)| literal(&t, style)),
        1 => prop::sample::select(&["null", "true", "-1.5e3", "[]", "{}"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[ {} ]", v.join(" , "))),
            prop::collection::vec((text(), 0..4u8, inner), 0..4).prop_map(|v| {
                let members: Vec<String> =
                    v.into_iter().map(|(k, s, v)| format!("{}:{v}", literal(&k, s))).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn the_first_look_misses_nothing_that_the_full_walk_finds(json in json()) {
        let full = SCANNER.full(json.as_bytes(), &|_| true).unwrap();
        prop_assert_eq!(SCANNER.look(json.as_bytes()).unwrap(), full);
    }

    #[test]
    fn the_first_look_misses_nothing_in_text(text in text()) {
        let hits = SCANNER.engine().scan(text.as_bytes());
        prop_assert_eq!(SCANNER.scan_text(&text).len(), hits.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = SCANNER.scan_segment(&Segment { pointer: "".into(), json: &bytes });
        let _ = SCANNER.redact_json(&bytes);
    }
}
