//! `bench messages`: a model request through the product, beside the same request straight to the upstream and through a
//! bare proxy of the same HTTP stack, in the same minute.

use crate::load::{self, Plan, Workload};
use crate::machine;
use crate::options::{Engine, Options};
use crate::product::Product;
use crate::report::{Report, finished, median};
use crate::upstream::Beside;
use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::http::response::Parts;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Bodies: a short question, and a coding session of 115 KB in 40 messages.
const LARGE: usize = 115_000;
const LARGE_MESSAGES: usize = 40;

/// How much of a request is new to the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing was seen before.
    First,
    /// The same conversation with another last message.
    Next,
}

struct Shape {
    name: &'static str,
    bytes: usize,
    messages: usize,
    turn: Turn,
    is_streamed: bool,
}

const SHAPES: &[Shape] = &[
    Shape { name: "100 B, JSON", bytes: 100, messages: 1, turn: Turn::First, is_streamed: false },
    Shape { name: "100 B, SSE", bytes: 100, messages: 1, turn: Turn::First, is_streamed: true },
    Shape {
        name: "115 KB first turn, JSON",
        bytes: LARGE,
        messages: LARGE_MESSAGES,
        turn: Turn::First,
        is_streamed: false,
    },
    Shape {
        name: "115 KB first turn, SSE",
        bytes: LARGE,
        messages: LARGE_MESSAGES,
        turn: Turn::First,
        is_streamed: true,
    },
    Shape {
        name: "115 KB next turn, SSE",
        bytes: LARGE,
        messages: LARGE_MESSAGES,
        turn: Turn::Next,
        is_streamed: true,
    },
];

/// A place to send to, with the processes whose CPU time is counted.
struct Place {
    name: &'static str,
    address: SocketAddr,
    token: String,
    pids: Vec<u32>,
}

pub fn bench(options: &Options) -> Result<()> {
    let upstream = Beside::upstream()?;
    let proxy = Beside::proxy(upstream.address)?;
    let mut report = Report::new(
        "messages",
        "Model requests",
        &machine::describe(&std::env::temp_dir())?,
        "`POST /v1/messages` to an upstream that answers from memory (JSON of 360 bytes, or 38 server-sent events): directly, \
         through a bare proxy (axum, reqwest), and through the product with authentication, rules, secret scan and durable \
         ledger. Closed loop, upstream, proxy, product and generator on the same cores. *First turn*: no message was seen \
         before. *Next turn*: the same conversation with a new last message. CPU is the process's own for one request.",
        "at 100 B at most 50 µs CPU and 0.35 ms p50 over the bare proxy; at 115 KB at most 450 µs CPU on a first turn.",
    );
    // The seeded rules let the demo users take the route `demo`; here it leads to the upstream.
    let providers = format!(
        r#"[{{"name":"bench","type":"anthropic","base_url":"http://{}","auth":"none"}}]"#,
        upstream.address
    );
    let settings = [
        ("SYSTEMPROMPT__GATEWAY__PROVIDERS", providers.as_str()),
        (
            "SYSTEMPROMPT__GATEWAY__ROUTES",
            r#"[{"name":"demo","model":"*","targets":[{"provider":"bench"}]}]"#,
        ),
        ("SYSTEMPROMPT__GATEWAY__DEFAULT_ROUTE", "demo"),
    ];
    let mut rows = Vec::new();
    for engine in &options.engines {
        let product = Product::start(*engine, &settings)?;
        let token = product.server.user_token().to_owned();
        let places = [
            Place { name: "direct", address: upstream.address, token: token.clone(), pids: Vec::new() },
            Place {
                name: "bare proxy",
                address: proxy.address,
                token: token.clone(),
                pids: vec![proxy.pid()],
            },
            Place {
                name: engine_name(*engine),
                address: product.address()?,
                token,
                pids: vec![product.server.pid()],
            },
        ];
        let before = product.count("ai_requests")?;
        let mut sent = 0;
        let mut next = 0;
        for shape in SHAPES {
            for connections in options.connections_or(&[1, 16]) {
                for place in &places {
                    let is_product = place.address == product.address()?;
                    // The other two do not store: once is enough.
                    if !is_product && options.engines.first() != Some(engine) {
                        continue;
                    }
                    let (row, count) = measure(shape, connections, place, &mut next, options)?;
                    rows.push(finished(row));
                    sent += if is_product { count } else { 0 };
                }
            }
        }
        let rows_written = product.count("ai_requests")? - before;
        ensure!(rows_written == sent, "{sent} requests, but {rows_written} rows in ai_requests");
        let (resident, peak) = machine::memory(product.server.pid())?;
        report.note(&format!(
            "{}: {sent} requests gave {rows_written} rows; memory after the load {} MB, peak {} MB.",
            engine.name(),
            resident / 1024,
            peak / 1024
        ));
        product.verify()?;
    }
    let head = [
        "request",
        "connections",
        "through",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "first byte p50 ms",
        "CPU µs",
    ];
    report.table(&head, &rows);
    report.publish(options)
}

fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "product, SQLite",
        Engine::Postgres => "product, PostgreSQL",
    }
}

fn measure(
    shape: &'static Shape,
    connections: usize,
    place: &Place,
    next: &mut u64,
    options: &Options,
) -> Result<(Vec<String>, u64)> {
    let mut figures: [Vec<f64>; 5] = Default::default();
    let first = *next;
    for _ in 0..options.runs_or(1) {
        let plan = Plan {
            address: place.address,
            connections,
            warm_up: options.warm_up(),
            run: options.run,
            first: *next,
        };
        let pids = place.pids.clone();
        let cpu = move || -> Duration { pids.iter().filter_map(|pid| machine::cpu(*pid).ok()).sum() };
        let (outcome, before, after) = load::run(&plan, Rc::new(Messages::new(shape, place)), cpu)?;
        let (unexpected, errors) = (outcome.unexpected, outcome.errors);
        ensure!(
            unexpected == 0 && errors == 0,
            "{}, {}: {unexpected} unexpected answers, {errors} errors",
            shape.name,
            place.name
        );
        *next += outcome.sent;
        let used = after.saturating_sub(before).as_secs_f64() * 1e6 / outcome.measured.max(1) as f64;
        let values = [
            outcome.rate(),
            outcome.millis(50.0),
            outcome.millis(99.0),
            outcome.first_byte_millis(50.0),
            used,
        ];
        figures.iter_mut().zip(values).for_each(|(list, value)| list.push(value));
    }
    let [rate, p50, p99, first_byte, cpu] = figures.map(median);
    let row = vec![
        shape.name.to_owned(),
        connections.to_string(),
        place.name.to_owned(),
        format!("{rate:.0}"),
        format!("{p50:.3}"),
        format!("{p99:.3}"),
        format!("{first_byte:.3}"),
        if place.pids.is_empty() { "–".to_owned() } else { format!("{cpu:.0}") },
    ];
    Ok((row, *next - first))
}

/// Makes bodies from a template, with a number where they must differ.
struct Messages {
    head: String,
    /// Each message up to the place of its number.
    turns: Vec<String>,
    turn: Turn,
    token: String,
    address: String,
}

impl Messages {
    fn new(shape: &Shape, place: &Place) -> Self {
        let stream = if shape.is_streamed { "\"stream\":true," } else { "" };
        let head = format!("{{\"model\":\"bench\",{stream}\"max_tokens\":64,\"messages\":[");
        // An odd number of messages ends with the user's.
        let count = shape.messages | 1;
        let size = (shape.bytes - head.len()) / count;
        let message = |at: usize| {
            let role = if at.is_multiple_of(2) { "user" } else { "assistant" };
            let frame = format!("{{\"role\":\"{role}\",\"content\":\"");
            let prose = prose(at);
            let text = prose.chars().cycle().take(size.saturating_sub(frame.len() + 16));
            format!("{frame}{}", text.collect::<String>())
        };
        let turns = (0..count).map(message).collect();
        Self { head, turns, turn: shape.turn, token: place.token.clone(), address: place.address.to_string() }
    }

    fn body(&self, number: u64) -> String {
        let mut body = self.head.clone();
        let last = self.turns.len() - 1;
        for (at, message) in self.turns.iter().enumerate() {
            let number = if self.turn == Turn::First || at == last { number } else { 0 };
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(body, "{comma}{message} {number:x}\"}}");
        }
        body.push_str("]}");
        body
    }
}

/// What conversations with a coding assistant look like: prose, code, paths, numbers.
fn prose(at: usize) -> String {
    const TEXTS: [&str; 4] = [
        "Please read src/parser/lexer.rs and tell me why the test on line 214 fails with a timeout. ",
        "fn next_token(&mut self) -> Option<Token> { self.skip(); let start = self.at; match self.peek()? { _ => None } } ",
        "The build took 4.7 s; 128 of 131 tests passed, see https://example.com/builds/2026/11/22/index.html for the log. ",
        "I moved the buffer out of the loop, since it was allocated 16384 times, and the time fell from 812 ms to 97 ms. ",
    ];
    TEXTS.iter().cycle().skip(at).take(4).copied().collect()
}

impl Workload for Messages {
    fn request(&self, number: u64) -> Request<Full<Bytes>> {
        let request = Request::post("/v1/messages")
            .header("host", &self.address)
            .header("content-type", "application/json")
            .header("anthropic-version", "2023-06-01")
            .header("x-api-key", &self.token)
            .body(Full::from(self.body(number)));
        request.unwrap_or_else(|error| unreachable!("a fixed request: {error}"))
    }

    fn is_expected(&self, _number: u64, parts: &Parts) -> bool {
        parts.status == 200
    }
}
