//! The gateway as its callers see it, on both engines, against the demo provider and a real upstream on loopback.

mod fixture;

use super::*;
use fixture::{
    Fixture, JSON_ANSWER, Upstream, body, call, chunked, closed, config, gateways, gateways_with_history,
    principal, streamed, user,
};
use futures_util::StreamExt as _;
use http::HeaderName;
use serde_json::{Value, json};
use std::time::Duration;
use systemprompt_audit::verify::{Scope, verify};
use systemprompt_config::profile::governance::History;
use systemprompt_security::authz::DenyAllHook;

fn stream(reply: GatewayReply) -> Box<ReplyStream> {
    match reply.body {
        ReplyBody::Stream(stream) => stream,
        ReplyBody::Full(body) => panic!("not a stream: {body:?}"),
    }
}

fn full(reply: &GatewayReply) -> &Bytes {
    match &reply.body {
        ReplyBody::Full(body) => body,
        ReplyBody::Stream(_) => panic!("a stream"),
    }
}

async fn read(mut stream: Box<ReplyStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// The server moves calls and streams between threads.
fn movable<T: Send + 'static>(value: T) -> T {
    value
}

/// A made-up key, put together so that no scanner of repositories takes it for a leak.
fn aws_key() -> String {
    format!("{}{}", "AKIA", "ZQ3DWHJR5TKLX2VM")
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// The record text of an entry.
async fn record(fixture: &Fixture, id: &str) -> Value {
    let row = fixture.ledger.reader().by_id(id).await.unwrap().unwrap();
    serde_json::from_str(&row.record.unwrap()).unwrap()
}

#[tokio::test]
async fn an_answer_is_recorded_before_and_after() {
    for fixture in gateways(&config(None)).await {
        let request = user("hello", "");
        let reply = fixture.service.handle(call(&request)).await.unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers["content-type"], "application/json");
        assert!(reply.headers["request-id"].to_str().unwrap().starts_with("req_demo_"));
        assert_eq!(reply.headers["x-systemprompt-request-id"], reply.request_id.as_str());
        let answer = full(&reply).clone();
        let row = closed(&fixture, &reply.request_id).await;
        assert_eq!(reply.headers["x-systemprompt-decision-id"], row.decision_id.as_str());
        assert_eq!((row.outcome.as_deref(), row.status, row.stream), (Some("ok"), Some(200), 0));
        assert_eq!(row.client_body_sha256, hash(request.as_bytes()));
        assert_eq!(row.forwarded_body_sha256, row.client_body_sha256);
        assert_eq!(row.response_sha256.as_deref(), Some(&*hash(&answer)));
        assert_eq!(
            (row.route.as_str(), row.provider.as_str(), row.operation.as_str()),
            ("demo", "demo", "messages")
        );
        assert_eq!((row.max_tokens, row.edits.as_str()), (Some(256), "[]"));
        assert_eq!(
            (row.usage_source.as_deref(), row.price_source.as_deref()),
            (Some("upstream"), Some("catalog"))
        );
        assert_eq!(row.cost_micro, Some(row.input_tokens.unwrap() + 5 * row.output_tokens.unwrap()));
        assert_eq!(row.conversation_id.split(':').next(), Some("usr_ada"));
        assert!(row.ttft_ms.is_some() && row.total_ms >= row.upstream_ms && row.closed_at >= row.sent_at);

        let opened = record(&fixture, &row.ledger_opened).await;
        assert_eq!((&opened["kind"], &opened["outcome"]), (&json!("inference.opened"), &json!("opened")));
        assert_eq!(opened["detail"]["request_id"], row.id);
        assert_eq!(opened["detail"]["body"], commitment(&row.body_salt, &sha256(request.as_bytes())));
        assert!(
            !opened.to_string().contains(&row.client_body_sha256),
            "the plain hash stays out of the ledger"
        );
        assert_eq!(opened["subject_entity"], json!({"kind": "gateway_route", "id": "demo"}));
        let end = record(&fixture, &row.ledger_closed.clone().unwrap()).await;
        assert_eq!((&end["kind"], &end["outcome"]), (&json!("inference.closed"), &json!("ok")));
        assert_eq!(end["detail"]["usage"]["output"], row.output_tokens.unwrap());
        assert_eq!(end["detail"]["stop_reason"], "end_turn");

        let requests = fixture.service.requests();
        let decision = DecisionId::new(row.decision_id.clone());
        assert_eq!(requests.by_decision(&decision).await.unwrap().unwrap(), row);
        let entry = row.ledger_opened.as_str().into();
        assert_eq!(requests.by_decision_entry(&entry).await.unwrap().unwrap(), row);
        assert_eq!(requests.by_trace(&row.trace_id, 100).await.unwrap(), std::slice::from_ref(&row.id));
        assert_eq!(requests.by_decision(&DecisionId::generate()).await.unwrap(), None);
        let report =
            verify(&fixture.ledger.reader(), fixture.ledger.tables(), &Scope::default()).await.unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[tokio::test]
async fn a_stream_is_recorded_when_it_ends() {
    for fixture in gateways(&config(None)).await {
        let request = user("[[demo:tokens 40]]", "\"stream\":true,");
        let (service, call) = (fixture.service.clone(), call(&request));
        let reply = movable(movable(async move { service.handle(call).await }).await.unwrap());
        assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
        let id = reply.request_id.clone();
        assert_eq!(fixture.service.requests().by_id(id.as_str()).await.unwrap().unwrap().outcome, None);
        assert_eq!(fixture.service.load().open, 1);
        let bytes = read(stream(reply)).await;
        let row = closed(&fixture, &id).await;
        assert_eq!((row.outcome.as_deref(), row.output_tokens, row.stream), (Some("ok"), Some(40), 1));
        assert_eq!(row.response_sha256.as_deref(), Some(&*hash(&bytes)));
        assert_eq!((row.response_bytes, row.injected_pings), (Some(bytes.len() as i64), Some(0)));
        assert_eq!(row.stop_reason.as_deref(), Some("end_turn"));
        fixture.idle().await;
    }
}

#[tokio::test]
async fn a_tool_call_of_the_model_is_counted() {
    for fixture in gateways(&config(None)).await {
        let request = user("use crm_lookup", "\"tools\":[{\"name\":\"crm_lookup\",\"input_schema\":{}}],");
        let reply = fixture.service.handle(call(&request)).await.unwrap();
        let row = closed(&fixture, &reply.request_id).await;
        assert_eq!((row.tool_calls, row.stop_reason.as_deref()), (Some(1), Some("tool_use")));
        let end = record(&fixture, &row.ledger_closed.unwrap()).await;
        assert_eq!(end["detail"]["tool_calls"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_denied_call_goes_nowhere() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    for fixture in fixture::gateways_with(&config(Some(&upstream.url)), Arc::new(DenyAllHook::DEFAULT)).await
    {
        let refusal = fixture.service.handle(call(&body("claude-up", "hi"))).await.unwrap_err();
        assert_eq!(refusal.code, Code::Denied);
        assert_eq!(refusal.policy.as_deref(), Some("authz_default_deny"));
        let entry = refusal.decision_id.unwrap().entry();
        assert_eq!(record(&fixture, entry.as_str()).await["outcome"], "deny");
        assert_eq!(fixture.service.load().open, 0);
        let context = call("{}").context;
        assert!(fixture.service.models(&context, &PageQuery::default()).await.unwrap().data.is_empty());
        assert_eq!(fixture.service.model(&context, "claude-demo").await.unwrap_err().code, Code::NotFound);
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_secret_in_any_part_of_the_body_is_refused() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    let secret = aws_key();
    let places = [
        body("claude-up", &secret),
        json!({"model": "claude-up", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "system": secret}).to_string(),
        json!({"model": "claude-up", "max_tokens": 5, "messages": [], "unheard_of": {"deep": [secret]}}).to_string(),
        json!({"model": "claude-up", "max_tokens": 5, "messages": [], "tools": [{"description": secret}]}).to_string(),
        json!({"model": "claude-up", "max_tokens": 5, "messages": [], "metadata": {"user_id": secret}}).to_string(),
        json!({"model": secret, "max_tokens": 5, "messages": []}).to_string(),
    ];
    for fixture in gateways(&config(Some(&upstream.url))).await {
        for place in &places {
            let refusal = fixture.service.handle(call(place)).await.unwrap_err();
            assert_eq!(
                (refusal.code, refusal.policy.as_deref()),
                (Code::Denied, Some("secret_scan")),
                "{place}"
            );
            assert!(!refusal.sentence().contains(&secret));
        }
    }
    assert_eq!(upstream.requests().len(), 0);
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// A conversation of so many turns, the second of which may hold a secret.
fn turns(first: &str, second: &str, more: usize) -> String {
    let mut messages = vec![
        json!({"role": "user", "content": first}),
        json!({"role": "assistant", "content": "yes"}),
        json!({"role": "user", "content": second}),
    ];
    for turn in 0..more {
        messages.push(json!({"role": "assistant", "content": format!("answer {turn}")}));
        messages.push(json!({"role": "user", "content": format!("question {turn}")}));
    }
    json!({"model": "claude-up", "max_tokens": 5, "messages": messages}).to_string()
}

#[tokio::test]
async fn case_30_a_refused_secret_stays_refused_when_the_history_is_sent_again() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    let secret = format!("the key is {}, use it", aws_key());
    for fixture in gateways_with_history(&config(Some(&upstream.url)), History::Block).await {
        let first = fixture.service.handle(call(&turns("hello", &secret, 0))).await.unwrap_err();
        assert!(!first.sentence().contains("refused before"), "{}", first.sentence());
        for more in [1, 2] {
            let again = fixture.service.handle(call(&turns("hello", &secret, more))).await.unwrap_err();
            assert!(again.sentence().contains("`/messages/2` was refused before"), "{}", again.sentence());
            assert!(!again.sentence().contains(&aws_key()));
        }
        fixture.service.handle(call(&turns("hello", "without it", 2))).await.unwrap();
    }
    let seen: Vec<String> = upstream.requests().iter().map(|seen| text(&seen.body)).collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| !request.contains(&aws_key())));
}

#[tokio::test]
async fn case_30_with_redact_a_known_block_goes_on_redacted_and_an_invented_history_is_refused() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    let secret = format!("the key is {}, use it", aws_key());
    for fixture in gateways_with_history(&config(Some(&upstream.url)), History::Redact).await {
        // A history that this house never saw.
        let invented = fixture.service.handle(call(&turns("another", &secret, 3))).await.unwrap_err();
        assert_eq!(invented.policy.as_deref(), Some("secret_scan"));

        fixture.service.handle(call(&turns("hello", &secret, 0))).await.unwrap_err();
        let before = upstream.requests().len();
        let body = turns("hello", &secret, 1);
        let reply = fixture.service.handle(call(&body)).await.unwrap();
        assert_eq!(reply.status, 200);
        let row = closed(&fixture, &reply.request_id).await;
        assert_ne!(row.forwarded_body_sha256, row.client_body_sha256);
        assert!(row.edits.contains("secret_redaction") && row.edits.contains("/messages/2"), "{}", row.edits);
        let sent = text(&upstream.requests()[before].body);
        assert!(
            !sent.contains(&aws_key()) && sent.contains("the key is [secret:aws-access-key-id:"),
            "{sent}"
        );
        // Everything around the secret is the client's own.
        let (head, tail) = body.split_once(&aws_key()).unwrap();
        assert!(sent.contains(tail) && sent.contains(head), "{sent}");
        // The mark is the same each time, so that the provider's cache stays warm.
        fixture.service.handle(call(&body)).await.unwrap();
        assert_eq!(text(&upstream.requests()[before + 1].body), sent);
        // Another new secret is refused all the same.
        let other = turns("hello", &secret, 1).replace("question 0", &aws_key().replace('Z', "Y"));
        fixture.service.handle(call(&other)).await.unwrap_err();
    }
    assert!(upstream.requests().iter().all(|seen| !text(&seen.body).contains(&aws_key())));
}

#[tokio::test]
async fn case_30_with_audit_a_known_block_passes_flagged() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    let secret = format!("the key is {}, use it", aws_key());
    for fixture in gateways_with_history(&config(Some(&upstream.url)), History::Audit).await {
        fixture.service.handle(call(&turns("hello", &secret, 0))).await.unwrap_err();
        let reply = fixture.service.handle(call(&turns("hello", &secret, 1))).await.unwrap();
        let decision = reply.headers["x-systemprompt-decision-id"].to_str().unwrap().to_owned();
        assert!(!decision.is_empty());
    }
}

#[tokio::test]
async fn a_secret_in_the_query_or_a_header_is_refused() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    let secret = aws_key();
    let clean = body("claude-up", "hello");
    for fixture in gateways(&config(Some(&upstream.url))).await {
        let mut calls = Vec::new();
        for query in
            [format!("beta=true&note={secret}"), format!("{secret}=1"), secret.replacen('Z', "%5A", 1)]
        {
            calls.push(GatewayCall { query: Some(query), ..call(&clean) });
        }
        for name in [
            "anthropic-beta",
            "anthropic-invented",
            "x-stainless-lang",
            "idempotency-key",
            "user-agent",
            "x-gateway-conversation-id",
        ] {
            let mut with = call(&clean);
            with.headers.append(name, HeaderValue::from_static("first"));
            with.headers.append(name, HeaderValue::from_str(&secret).unwrap());
            calls.push(with);
        }
        let mut named = call(&clean);
        let name: HeaderName = format!("anthropic-{}", secret.to_lowercase()).parse().unwrap();
        named.headers.append(name, HeaderValue::from_static("x"));
        for call in calls {
            let place = format!("{call:?}");
            let refusal = fixture.service.handle(call).await.unwrap_err();
            assert_eq!(refusal.policy.as_deref(), Some("secret_scan"), "{place}");
        }
        // What stays here is not judged: the caller's own credential stands there.
        let mut own = call(&clean);
        own.headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {secret}")).unwrap());
        assert_eq!(fixture.service.handle(own).await.unwrap().status, 200);
    }
    assert_eq!(upstream.requests().len(), 2, "one on each engine");
}

#[tokio::test]
async fn a_value_in_use_in_a_request_is_refused_and_recorded() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    let value = "s3cret-of-the-crm/4711";
    for fixture in gateways(&config(Some(&upstream.url))).await {
        let _hold = fixture.in_use.hold("crm_token", &systemprompt_models::Secret::from(value)).unwrap();
        let mut header = call(&body("claude-up", "hello"));
        header.headers.insert("anthropic-beta", HeaderValue::from_str(&hex::encode(value)).unwrap());
        let calls = [
            call(&body("claude-up", &format!("my token is {value}"))),
            call(&body("claude-up", &value.replace('-', "\\u002d"))),
            call(&body("claude-up", &value.replace('-', "%2D"))),
            call(&user(&hex::encode_upper(value), "")),
            call(
                &json!({"model": "claude-up", "messages": [], "tools": [{"description": value}]}).to_string(),
            ),
            GatewayCall { query: Some(format!("note={value}")), ..call(&body("claude-up", "hello")) },
            header,
        ];
        for call in calls {
            let before =
                fixture.ledger.reader().page(fixture.ledger.stream(), 0, 10_000).await.unwrap().len();
            let place = format!("{call:?}");
            let refusal = fixture.service.handle(call).await.unwrap_err();
            assert_eq!(
                (refusal.code, refusal.policy.as_deref()),
                (Code::Denied, Some("secret_leak")),
                "{place}"
            );
            assert!(refusal.sentence().contains("`crm_token`") && !refusal.sentence().contains(value));
            let entries = fixture.ledger.reader().page(fixture.ledger.stream(), 0, 10_000).await.unwrap();
            let records: Vec<Value> = entries[before..]
                .iter()
                .map(|entry| serde_json::from_str(entry.record.as_deref().unwrap()).unwrap())
                .collect();
            let kinds: Vec<&Value> = records.iter().map(|record| &record["kind"]).collect();
            assert_eq!(kinds, ["governance.decision", "secret.leak"], "{place}");
            assert_eq!(records[0]["policy"], "secret_leak");
            let leak = &records[1];
            assert_eq!((&leak["outcome"], &leak["detail"]["name"]), (&json!("blocked"), &json!("crm_token")));
            assert_eq!(
                (&leak["detail"]["where"], &leak["detail"]["direction"]),
                (&json!("model_request"), &json!("in"))
            );
            assert!(!leak.to_string().contains(value));
        }
        let report =
            verify(&fixture.ledger.reader(), fixture.ledger.tables(), &Scope::default()).await.unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
    assert_eq!(upstream.requests().len(), 0);
}

/// The newest `secret.leak` record.
async fn newest_leak(fixture: &Fixture) -> Value {
    let entries = fixture.ledger.reader().page(fixture.ledger.stream(), 0, 10_000).await.unwrap();
    let leak = entries.iter().rfind(|entry| entry.kind == "secret.leak");
    serde_json::from_str(leak.unwrap().record.as_deref().unwrap()).unwrap()
}

#[tokio::test]
async fn an_answer_with_a_value_in_use_is_withheld() {
    let value = "s3cret-of-the-crm/4711";
    let answers = [value.to_owned(), hex::encode(value), value.replace('c', "\\u0063")];
    let bodies = answers.map(|text| {
        format!(r#"{{"id":"msg","model":"m","content":[{{"type":"text","text":"it is {text}."}}]}}"#)
    });
    for body in bodies {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, body.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        for (encoding, bytes) in [("", body.clone().into_bytes()), ("content-encoding: gzip\r\n", packed)] {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{encoding}content-length: {}\r\n\r\n",
                bytes.len()
            );
            let answer = [head.into_bytes(), bytes].concat();
            let upstream = Upstream::start(move |_| vec![(Duration::ZERO, answer.clone())]).await;
            for fixture in gateways(&config(Some(&upstream.url))).await {
                let _hold =
                    fixture.in_use.hold("crm_token", &systemprompt_models::Secret::from(value)).unwrap();
                let reply = fixture
                    .service
                    .handle(call(&user("hello", "").replace("claude-demo", "x")))
                    .await
                    .unwrap();
                assert_eq!(
                    (reply.status.as_u16(), &reply.headers["x-should-retry"]),
                    (502, &HeaderValue::from_static("false"))
                );
                let answer: Value = serde_json::from_slice(full(&reply)).unwrap();
                assert_eq!(answer["error"]["type"], "api_error");
                assert!(answer["error"]["message"].as_str().unwrap().contains("`crm_token`"), "{answer}");
                let row = closed(&fixture, &reply.request_id).await;
                assert_eq!(
                    (row.outcome.as_deref(), row.error_type.as_deref()),
                    (Some("upstream_error"), Some("secret_leak"))
                );
                let leak = newest_leak(&fixture).await;
                assert_eq!(
                    (&leak["outcome"], &leak["detail"]["name"]),
                    (&json!("blocked"), &json!("crm_token"))
                );
                assert_eq!(
                    (&leak["detail"]["where"], &leak["detail"]["direction"]),
                    (&json!("model_answer"), &json!("out"))
                );
                assert_eq!(leak["detail"]["request_id"], row.id);
            }
        }
    }
}

#[tokio::test]
async fn a_streamed_answer_ends_before_a_value_in_use_is_whole() {
    let value = "s3cret-of-the-crm/4711";
    let event = |data: Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap());
    let delta = |kind: &str, member: &str, text: &str| {
        event(json!({"type": "content_block_delta", "index": 0, "delta": {"type": kind, member: text}}))
    };
    for (kind, member) in
        [("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json")]
    {
        for size in [1, 3, value.len()] {
            let pieces = value.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap());
            let mut events = vec![
                event(json!({"type": "message_start", "message": {"id": "msg_1", "content": []}})),
                delta(kind, member, "it is "),
            ];
            events.extend(pieces.map(|piece| delta(kind, member, piece)));
            events.extend([delta(kind, member, " and more"), event(json!({"type": "message_stop"}))]);
            let text = format!("{}0\r\n\r\n", chunked(&events.concat(), 40));
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let answer = streamed(&format!("{head}{text}"));
            let upstream = Upstream::start(move |_| answer.clone()).await;
            for fixture in gateways(&config(Some(&upstream.url))).await {
                let _hold =
                    fixture.in_use.hold("crm_token", &systemprompt_models::Secret::from(value)).unwrap();
                let request = user("hello", "\"stream\":true,").replace("claude-demo", "x");
                let reply = fixture.service.handle(call(&request)).await.unwrap();
                let id = reply.request_id.clone();
                let out = String::from_utf8(read(stream(reply)).await).unwrap();
                let told: String = out
                    .lines()
                    .filter_map(|line| line.strip_prefix("data: "))
                    .filter_map(|data| {
                        serde_json::from_str::<Value>(data).unwrap()["delta"][member]
                            .as_str()
                            .map(str::to_owned)
                    })
                    .collect();
                assert!(
                    !told.contains(value) && !out.contains("and more") && !out.contains("message_stop"),
                    "{out}"
                );
                assert!(out.contains("event: error\n") && out.contains("`crm_token`"), "{out}");
                let row = closed(&fixture, &id).await;
                assert_eq!(
                    (row.outcome.as_deref(), row.error_type.as_deref()),
                    (Some("upstream_error"), Some("secret_leak"))
                );
                assert_eq!(newest_leak(&fixture).await["detail"]["where"], "model_answer");
            }
        }
    }
}

#[tokio::test]
async fn bytes_query_and_headers_reach_the_upstream_unchanged() {
    let upstream = Upstream::start(|_| {
        streamed("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_up\r\nset-cookie: a=b\r\nanthropic-organization-id: o\r\nanthropic-ratelimit-requests-limit: 5\r\nx-context-id: forged\r\ncontent-length: 34\r\n\r\n{\"id\":\"msg_1\",\"odd\" : 1.0e0 ,\"x\":1}")
    })
    .await;
    for fixture in gateways(&config(Some(&upstream.url))).await {
        let request = " {\"invented\" : [ 1.0e0, \"\\u00e9\" ],\"model\":\"claude-up\",\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}] } ";
        let mut sent = call(request);
        sent.query = Some("beta=true&x=%20".into());
        for (name, value) in [
            ("anthropic-beta", "one"),
            ("anthropic-beta", "two,three"),
            ("anthropic-version", "2023-06-01"),
            ("x-claude-code-session-id", "s-1"),
            ("authorization", "Bearer ours"),
            ("x-api-key", "ours"),
            ("x-context-id", "forged"),
            ("x-user-id", "forged"),
            ("cookie", "c=1"),
            ("accept-encoding", "gzip, br"),
        ] {
            sent.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let reply = fixture.service.handle(sent).await.unwrap();
        assert_eq!(full(&reply).as_ref(), b"{\"id\":\"msg_1\",\"odd\" : 1.0e0 ,\"x\":1");
        let names: Vec<&str> = reply.headers.keys().map(HeaderName::as_str).collect();
        for name in ["set-cookie", "x-context-id", "anthropic-ratelimit-requests-limit", "content-length"] {
            assert!(!names.contains(&name), "{name}");
        }
        assert_eq!(reply.headers["anthropic-organization-id"], "o");
        let row = closed(&fixture, &reply.request_id).await;
        assert_eq!(row.provider_request_id.as_deref(), Some("req_up"));
        assert_eq!(row.conversation_id, "usr_ada:s-1");

        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.line, "POST /v1/messages?beta=true&x=%20 HTTP/1.1");
        assert_eq!(seen.body, request.as_bytes());
        assert_eq!(seen.values("anthropic-beta"), ["one", "two,three"]);
        assert_eq!(seen.values("x-api-key"), ["upstream-key"]);
        assert_eq!(seen.values("accept-encoding"), ["identity"]);
        assert_eq!(seen.values("x-fixed"), ["always"]);
        for name in ["authorization", "cookie", "x-context-id", "x-user-id", "x-trace-id"] {
            assert_eq!(seen.values(name), [""; 0], "{name}");
        }
    }
}

#[tokio::test]
async fn an_alias_changes_the_model_value_and_nothing_else() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    for fixture in gateways(&config(Some(&upstream.url))).await {
        let request = body("fast", "hi \\u00e9");
        let reply = fixture.service.handle(call(&request)).await.unwrap();
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(
            String::from_utf8(seen.body.clone()).unwrap(),
            request.replace("\"fast\"", "\"claude-haiku-4-5\"")
        );
        let row = closed(&fixture, &reply.request_id).await;
        assert_eq!(row.client_body_sha256, hash(request.as_bytes()));
        assert_eq!(row.forwarded_body_sha256, hash(&seen.body));
        assert_eq!((row.model_requested.as_str(), row.model_upstream.as_str()), ("fast", "claude-haiku-4-5"));
        let edits: Value = serde_json::from_str(&row.edits).unwrap();
        assert_eq!((&edits[0]["kind"], &edits[0]["path"]), (&json!("model_alias"), &json!("/model")));
        assert_eq!(record(&fixture, &row.ledger_opened).await["detail"]["edits"], json!(["model_alias"]));
        assert_eq!(row.price_id.as_deref(), Some("claude-haiku-4-5@2025-10-01"));
    }
}

#[tokio::test]
async fn an_upstream_stream_passes_byte_for_byte() {
    let events = "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"x\",\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\r\n\r\n: odd\r\nevent: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\r\n\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        fixture::chunked(events, 37)
    );
    let upstream = Upstream::start(move |_| streamed(&answer)).await;
    for fixture in gateways(&config(Some(&upstream.url))).await {
        let request = body("claude-up", "hi").replacen('{', "{\"stream\":true,", 1);
        let reply = fixture.service.handle(call(&request)).await.unwrap();
        let id = reply.request_id.clone();
        assert_eq!(String::from_utf8(read(stream(reply)).await).unwrap(), events);
        let row = closed(&fixture, &id).await;
        assert_eq!(
            (row.outcome.as_deref(), row.input_tokens, row.output_tokens),
            (Some("ok"), Some(7), Some(9))
        );
        assert_eq!(
            (row.model_response.as_deref(), row.response_sha256.as_deref()),
            (Some("x"), Some(&*hash(events.as_bytes())))
        );
    }
}

#[tokio::test]
async fn errors_of_the_upstream_pass_unchanged() {
    let error = r#"{"type":"error","error":{"type":"rate_limit_error","message":"Slow  down"}}"#;
    let answer = format!(
        "HTTP/1.1 429 Too Many\r\ncontent-type: application/json\r\nretry-after: 7\r\nx-should-retry: true\r\ncontent-length: {}\r\n\r\n{error}",
        error.len()
    );
    let upstream = Upstream::start(move |_| streamed(&answer)).await;
    for fixture in gateways(&config(Some(&upstream.url))).await {
        let reply = fixture.service.handle(call(&body("claude-up", "hi"))).await.unwrap();
        assert_eq!((reply.status.as_u16(), full(&reply).as_ref()), (429, error.as_bytes()));
        assert_eq!(
            (&reply.headers["retry-after"], &reply.headers["x-should-retry"]),
            (&"7".parse().unwrap(), &"true".parse().unwrap())
        );
        let row = closed(&fixture, &reply.request_id).await;
        assert_eq!(
            (row.outcome.as_deref(), row.status, row.cost_micro),
            (Some("upstream_error"), Some(429), Some(0))
        );
        assert_eq!(row.error_type.as_deref(), Some("rate_limit_error"));
    }
}

#[tokio::test]
async fn failures_of_the_upstream_have_their_own_errors() {
    let silent = Upstream::start(|_| vec![(Duration::from_mins(1), Vec::new())]).await;
    let answers: [(&str, u16, &str, &str, bool); 4] = [
        (
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
            502,
            "api_error",
            "credential_rejected",
            true,
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n",
            502,
            "api_error",
            "redirect",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{\"half\":",
            502,
            "api_error",
            "connection_lost",
            false,
        ),
        ("", 502, "api_error", "connection_lost", false),
    ];
    for (answer, status, kind, error_type, no_retry) in answers {
        let upstream = Upstream::start(move |_| streamed(answer)).await;
        for fixture in gateways(&config(Some(&upstream.url))).await {
            let reply = fixture.service.handle(call(&body("claude-up", "hi"))).await.unwrap();
            let told: Value = serde_json::from_slice(full(&reply)).unwrap();
            assert_eq!((reply.status.as_u16(), &told["error"]["type"]), (status, &json!(kind)), "{answer}");
            assert_eq!(reply.headers.get("x-should-retry").is_some_and(|v| v == "false"), no_retry);
            assert_eq!(
                closed(&fixture, &reply.request_id).await.error_type.as_deref(),
                Some(error_type),
                "{answer}"
            );
        }
    }
    for fixture in gateways(&config(Some(&silent.url))).await {
        let reply = fixture.service.handle(call(&body("claude-up", "hi"))).await.unwrap();
        let told: Value = serde_json::from_slice(full(&reply)).unwrap();
        assert_eq!((reply.status.as_u16(), &told["error"]["type"]), (504, &json!("timeout_error")));
        let row = closed(&fixture, &reply.request_id).await;
        assert_eq!(
            (row.error_type.as_deref(), row.usage_source.as_deref()),
            (Some("timeout"), Some("estimated"))
        );
    }
    for fixture in gateways(&config(Some("http://127.0.0.1:9"))).await {
        let reply = fixture.service.handle(call(&body("claude-up", "hi"))).await.unwrap();
        assert_eq!(reply.status, 502);
        let row = closed(&fixture, &reply.request_id).await;
        assert_eq!((row.error_type.as_deref(), row.cost_micro), (Some("connect"), Some(0)));
    }
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_call_and_pays_for_what_was_sent() {
    for fixture in gateways(&config(None)).await {
        let request =
            user("[[demo:tokens 400]] [[demo:rate 200]]", "\"stream\":true,").replace("256", "1000");
        let reply = fixture.service.handle(call(&request)).await.unwrap();
        let id = reply.request_id.clone();
        let mut stream = stream(reply);
        for _ in 0..8 {
            stream.next().await.unwrap().unwrap();
        }
        drop(stream);
        let row = closed(&fixture, &id).await;
        assert_eq!(
            (row.outcome.as_deref(), row.usage_source.as_deref()),
            (Some("client_aborted"), Some("estimated"))
        );
        assert!(row.cost_micro.unwrap() > 0 && row.output_tokens.unwrap() < 400);
        assert_eq!(record(&fixture, &row.ledger_closed.unwrap()).await["outcome"], "cancelled");

        // Gone before the first byte: the future of the call is dropped.
        let slow = user("[[demo:latency 30000]]", "");
        let waiting =
            tokio::time::timeout(Duration::from_millis(300), fixture.service.handle(call(&slow))).await;
        assert!(waiting.is_err());
        let newest = fixture.newest().await;
        assert_ne!(newest, id);
        assert_eq!(closed(&fixture, &newest).await.outcome.as_deref(), Some("client_aborted"));
        fixture.idle().await;
    }
}

#[tokio::test]
async fn a_torn_stream_ends_without_a_false_end() {
    for fixture in gateways(&config(None)).await {
        let reply = fixture.service.handle(call(&user("[[demo:cut 4]]", "\"stream\":true,"))).await.unwrap();
        let id = reply.request_id.clone();
        let text = String::from_utf8(read(stream(reply)).await).unwrap();
        assert!(text.ends_with("\"upstream connection lost\"}}\n\n") && !text.contains("message_stop"));
        let row = closed(&fixture, &id).await;
        assert_eq!(
            (row.outcome.as_deref(), row.error_type.as_deref()),
            (Some("upstream_broken"), Some("connection_lost"))
        );
    }
}

#[tokio::test]
async fn counting_is_governed_recorded_and_free() {
    for fixture in gateways(&config(None)).await {
        let mut request = call(&user("hello", ""));
        request.operation = Operation::CountTokens;
        let reply = fixture.service.handle(request).await.unwrap();
        let tokens: Value = serde_json::from_slice(full(&reply)).unwrap();
        let row = closed(&fixture, &reply.request_id).await;
        assert_eq!((row.operation.as_str(), row.cost_micro), ("count_tokens", Some(0)));
        assert_eq!(row.input_tokens, tokens["input_tokens"].as_i64());
    }
}

#[tokio::test]
async fn nothing_is_sent_that_cannot_be_recorded() {
    let upstream = Upstream::start(|_| streamed(JSON_ANSWER)).await;
    for fixture in gateways(&config(Some(&upstream.url))).await {
        fixture.ledger.stop().await;
        let refusal = fixture.service.handle(call(&body("claude-up", "hi"))).await.unwrap_err();
        assert_eq!((refusal.status(), refusal.retry_after), (503, Some(5)), "{refusal}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_before_it_is_recorded() {
    let mut closed_gateway = config(None);
    closed_gateway["enabled"] = false.into();
    for fixture in gateways(&closed_gateway).await {
        assert_eq!(fixture.service.handle(call(&user("x", ""))).await.unwrap_err().code, Code::NotFound);
    }
    let mut narrow = config(None);
    narrow["max_streams"] = 1.into();
    for fixture in gateways(&narrow).await {
        let refusal = fixture.service.handle(call(&body("unheard-of", "x"))).await.unwrap_err();
        assert_eq!((refusal.code, &*refusal.reason), (Code::NotFound, "model: unheard-of"));
        let refusal = fixture.service.handle(call("{\"model\":\"m\",\"model\":\"n\"}")).await.unwrap_err();
        assert_eq!(refusal.code, Code::BadRequest);
        let held = fixture.service.handle(call(&user("x", "\"stream\":true,"))).await.unwrap();
        let refusal = fixture.service.handle(call(&user("x", ""))).await.unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after), (Code::Overloaded, Some(1)));
        read(stream(held)).await;
        fixture.idle().await;
        assert!(fixture.service.handle(call(&user("x", ""))).await.is_ok());
    }
}

#[tokio::test]
async fn a_missing_credential_refuses_the_call() {
    for fixture in fixture::gateways_without_secrets(&config(Some("http://127.0.0.1:9"))).await {
        let refusal = fixture.service.handle(call(&body("claude-up", "x"))).await.unwrap_err();
        assert_eq!(refusal.code, Code::Upstream);
        assert_eq!(fixture.service.registry().missing_secrets(), [("up".into(), "anthropic".into())]);
    }
}

#[tokio::test]
async fn a_bad_reload_keeps_the_old_routes() {
    for fixture in gateways(&config(None)).await {
        let bad = serde_json::from_value(
            json!({"routes": [{"name": "a", "model": "*", "targets": [{"provider": "none"}]}]}),
        )
        .unwrap();
        assert!(fixture.service.reload(&bad, &Secrets::default()).is_err());
        assert!(fixture.service.handle(call(&user("x", ""))).await.is_ok());
        let empty = serde_json::from_value(json!({})).unwrap();
        fixture.service.reload(&empty, &Secrets::default()).unwrap();
        assert_eq!(fixture.service.handle(call(&user("x", ""))).await.unwrap_err().code, Code::NotFound);
    }
}

#[tokio::test]
async fn what_a_crash_left_open_is_closed_once() {
    for fixture in gateways(&config(None)).await {
        let reply = fixture.service.handle(call(&user("x", ""))).await.unwrap();
        closed(&fixture, &reply.request_id).await;
        for _ in 0..20 {
            fixture.leave_open().await;
        }
        let stream = fixture.ledger.stream().to_string();
        let (a, b) = tokio::join!(
            fixture.service.recover(&stream, i64::MAX, "node_restart"),
            fixture.service.recover(&stream, i64::MAX, "node_restart"),
        );
        assert_eq!(a.unwrap() + b.unwrap(), 20);
        assert_eq!(fixture.service.recover(&stream, i64::MAX, "node_restart").await.unwrap(), 0);
        let row = closed(&fixture, &fixture.newest().await).await;
        assert_eq!(
            (row.outcome.as_deref(), row.error_type.as_deref()),
            (Some("expired"), Some("node_restart"))
        );
        let end = record(&fixture, &row.ledger_closed.unwrap()).await;
        assert_eq!((&end["outcome"], &end["reason"]), (&json!("interrupted"), &json!("node_restart")));
        assert_eq!(end["detail"]["opened"], row.ledger_opened);
        let report =
            verify(&fixture.ledger.reader(), fixture.ledger.tables(), &Scope::default()).await.unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[tokio::test]
async fn models_are_listed_for_those_who_may_use_them() {
    for fixture in gateways(&config(None)).await {
        let context = RequestContext::new(Arc::new(principal()), "trc_1".into());
        let page = fixture
            .service
            .models(&context, &PageQuery { limit: Some(1), ..PageQuery::default() })
            .await
            .unwrap();
        assert_eq!((&*page.data[0].id, page.has_more), ("claude-demo", true));
        assert_eq!(
            &*fixture.service.model(&context, "claude-demo-large").await.unwrap().display_name,
            "Claude Demo Large"
        );
        let bad = PageQuery { limit: Some(0), ..PageQuery::default() };
        assert_eq!(fixture.service.models(&context, &bad).await.unwrap_err().code, Code::BadRequest);
    }
}
