//! What a log shows of secrets, in text and in JSON, in messages, fields and spans.

use super::*;
use std::io::{self, Write};
use std::sync::Mutex;
use tracing_subscriber::layer::SubscriberExt;

const TOKEN: &str = "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";
const KEY: &str = "sp-live-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfG123456";
const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln";

fn redactor() -> Redactor {
    Redactor::new(Arc::new(SecretScanner::builtin().unwrap()))
}

#[test]
fn names_count_in_any_case_and_spelling() {
    for name in [
        "password",
        "Passwd",
        "SECRET",
        "token",
        "access_token",
        "access-token",
        "accessToken",
        "Refresh-Token",
        "id_token",
        "Authorization",
        "auth_token",
        "cookie",
        "Set-Cookie",
        "api_key",
        "apikey",
        "X-Api-Key",
        "x_api_key",
        "client_secret",
        "private_key",
        "code",
        "code_verifier",
        "Webhook-Signature",
        "x-mcp-proxy-auth",
        "http.request.header.authorization",
    ] {
        assert!(is_secret_name(name), "{name}");
    }
    for name in ["status_code", "tokens", "token_count", "user", "secret_name", "key", "codec", "cookies", ""]
    {
        assert!(!is_secret_name(name), "{name}");
    }
}

#[test]
fn pairs_and_tokens_are_masked_in_text_and_the_rest_stays() {
    let redactor = redactor();
    for (line, want) in [
        ("user=ada token=abc next=1".to_owned(), "user=ada token=[REDACTED] next=1"),
        ("password=\"a \\\"b\\\" c\" x".to_owned(), "password=[REDACTED] x"),
        ("GET /cb?code=abc123&state=x".to_owned(), "GET /cb?code=[REDACTED]&state=x"),
        ("Authorization: Bearer abc.def, x\nHost: h".to_owned(), "Authorization: [REDACTED]\nHost: h"),
        ("set-cookie: a=b; c=d".to_owned(), "set-cookie: [REDACTED]"),
        ("X-Api-Key: abc".to_owned(), "X-Api-Key: [REDACTED]"),
        ("Config { password: \"hunter2\", port: 1 }".to_owned(), "Config { password: [REDACTED], port: 1 }"),
        (
            "\u{1b}[3mtoken\u{1b}[0m\u{1b}[2m=\u{1b}[0mabc".to_owned(),
            "\u{1b}[3mtoken\u{1b}[0m\u{1b}[2m=\u{1b}[0m[REDACTED]",
        ),
        (format!("got {TOKEN} from {KEY} as {JWT}."), "got [REDACTED] from [REDACTED] as [REDACTED]"),
        (
            "unexpected token: `,` at line 3, status_code=200".to_owned(),
            "unexpected token: `,` at line 3, status_code=200",
        ),
        (
            "{\"token\":7,\"n\":{\"cookie\":[\"a\",{\"b\":\"c\"}]},\"m\":\"code=9\"}".to_owned(),
            "{\"token\":\"[REDACTED]\",\"n\":{\"cookie\":[\"[REDACTED]\",{\"[REDACTED]\":\"[REDACTED]\"}]},\"m\":\"code=[REDACTED]\"}",
        ),
        (
            format!("{{\"message\":\"key {KEY}\",\"x\":\"\u{e9}\\n\"}}"),
            "{\"message\":\"key [REDACTED]\",\"x\":\"\u{e9}\\n\"}",
        ),
        ("plain words, 100% fine".to_owned(), "plain words, 100% fine"),
    ] {
        assert_eq!(redactor.line(&line), want, "{line}");
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn speak() {
    let error = io::Error::other(format!("upstream refused {TOKEN}"));
    let span = tracing::info_span!("request", user = "ada", access_token = "spansecret", key = KEY);
    let _entered = span.enter();
    tracing::info!(
        code = 123_456,
        password = "with spaces hunter2",
        header = %format!("Bearer {JWT}"),
        error = &error as &dyn std::error::Error,
        port = 8080,
        "signed in with token=plainsecret and {KEY}"
    );
}

#[test]
fn layers_write_no_secret_of_messages_fields_errors_or_spans() {
    let secrets = [TOKEN, KEY, JWT, "spansecret", "hunter2", "123456,", "plainsecret"];
    let check = |written: &Sink| {
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for kept in ["ada", "8080", "signed in with", "upstream refused", REDACTED] {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
        text
    };
    let redactor = redactor();
    for ansi in [false, true] {
        let sink = Sink::default();
        let made = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(ansi)
            .fmt_fields(redactor.fields())
            .with_writer(redactor.writer(move || made.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), speak);
        check(&sink);
    }
    let sink = Sink::default();
    let made = sink.clone();
    let layer = tracing_subscriber::fmt::layer().json().with_writer(redactor.writer(move || made.clone()));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), speak);
    let line = check(&sink);
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["fields"]["code"], REDACTED);
    assert_eq!(json["span"]["access_token"], REDACTED);
}

/// The fields are masked first and the line again after that; a mask stays what it is.
#[test]
fn masking_twice_is_masking_once() {
    let redactor = redactor();
    for (text, masked) in [
        ("secret=abc rest", "secret=[REDACTED] rest"),
        ("secret=[REDACTED] rest", "secret=[REDACTED] rest"),
        ("secret=[REDACTED]abc rest", "secret=[REDACTED] rest"),
        ("(token=abc)", "(token=[REDACTED])"),
    ] {
        assert_eq!(redactor.line(text), masked);
        assert_eq!(redactor.line(masked), masked);
    }
}
