//! `bench govern`: the hook endpoint under load, every decision durable before its answer.

use crate::load::{self, Outcome, Plan, Workload};
use crate::machine;
use crate::options::{Engine, Options};
use crate::principals;
use crate::product::Product;
use crate::report::{Report, finished, median};
use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::http::response::Parts;
use std::rc::Rc;
use std::time::Duration;

/// Users, and sessions of each; their tokens are used in turn.
const PRINCIPALS: usize = 50;
const SESSIONS_EACH: usize = 20;

/// Which calls are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Every call is allowed.
    Allow,
    /// One call in five is denied: a secret in its arguments, or a destructive tool.
    Mixed,
}

impl Mix {
    fn name(self) -> &'static str {
        match self {
            Self::Allow => "all allowed",
            Self::Mixed => "one in five denied",
        }
    }

    fn is_denied(self, number: u64) -> bool {
        self == Self::Mixed && number.is_multiple_of(5)
    }
}

pub fn bench(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "govern",
        "Hook decisions",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "`POST /api/v1/hooks/govern?plugin_id=demo` over HTTP/1.1 keep-alive, closed loop, {PRINCIPALS} principals \
             with {SESSIONS_EACH} sessions each, every call with an id of its own; entity rule, six policies, durable ledger (full sync); \
             HTTP and pipeline limits raised; generator, server and, on PostgreSQL, the database on the same cores. Answers \
             other than 200 with the right decision end the run as failed; rows in `governance_decisions` must equal requests."
        ),
        "at least 14,000 a second with p99 ≤ 15 ms at 50 connections on SQLite (aim: 28,000, 8 ms), 10,000 with p99 ≤ 20 ms on \
         PostgreSQL; p50 ≤ 0.45 ms at 1 connection.",
    );
    let mut rows = Vec::new();
    for engine in &options.engines {
        rows.extend(engine_rows(*engine, options, &mut report)?);
    }
    let head = [
        "engine",
        "calls",
        "connections",
        "decisions/s",
        "p50 ms",
        "p99 ms",
        "CPU µs server",
        "CPU µs database",
    ];
    report.table(&head, &rows);
    report.publish(options)
}

fn engine_rows(engine: Engine, options: &Options, report: &mut Report) -> Result<Vec<Vec<String>>> {
    let product = Product::start(engine, &[])?;
    let mut load = Load::new(&product)?;
    let before = product.count("governance_decisions")?;
    let mut rows = Vec::new();
    let plans =
        options.connections_or(&[1, 50, 100]).into_iter().map(|connections| (Mix::Allow, connections));
    for (mix, connections) in plans.chain([(Mix::Mixed, 50)]) {
        let mut figures: [Vec<f64>; 5] = Default::default();
        for _ in 0..options.runs_or(3) {
            let (outcome, cpu) = load.run(&product, mix, connections, options.warm_up(), options.run)?;
            let each = |used: Duration| used.as_secs_f64() * 1e6 / outcome.measured.max(1) as f64;
            let values =
                [outcome.rate(), outcome.millis(50.0), outcome.millis(99.0), each(cpu.0), each(cpu.1)];
            figures.iter_mut().zip(values).for_each(|(list, value)| list.push(value));
        }
        let [rate, p50, p99, server, database] = figures.map(median);
        rows.push(finished(vec![
            engine.name().to_owned(),
            mix.name().to_owned(),
            connections.to_string(),
            format!("{rate:.0}"),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{server:.0}"),
            if engine == Engine::Sqlite { "–".to_owned() } else { format!("{database:.0}") },
        ]));
    }
    let written = product.count("governance_decisions")? - before;
    let sent = load.sent();
    ensure!(written == sent, "{sent} requests, but {written} rows");
    let (resident, peak) = machine::memory(product.server.pid())?;
    report.note(&format!(
        "{}: {sent} requests gave {written} rows; `audit verify` passed; memory after the load {} MB, peak {} MB.",
        engine.name(),
        resident / 1024,
        peak / 1024
    ));
    product.verify()?;
    Ok(rows)
}

/// The calls of many principals, each with an id of its own.
pub struct Load {
    tokens: Rc<[String]>,
    next: u64,
}

impl Load {
    pub fn new(product: &Product) -> Result<Self> {
        Ok(Self { tokens: principals::tokens(product, PRINCIPALS, SESSIONS_EACH)?.into(), next: 0 })
    }

    /// Calls so far.
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// One run, with the CPU time that the server and its database used meanwhile. An answer that is not as it must be is an
    /// error.
    pub fn run(
        &mut self,
        product: &Product,
        mix: Mix,
        connections: usize,
        warm_up: Duration,
        run: Duration,
    ) -> Result<(Outcome, (Duration, Duration))> {
        let plan = Plan { address: product.address()?, connections, warm_up, run, first: self.next };
        let workload = Hooks { mix, tokens: Rc::clone(&self.tokens), address: plan.address.to_string() };
        let (outcome, start, end) = load::run(&plan, Rc::new(workload), product.cpu_reader())?;
        let (unexpected, errors) = (outcome.unexpected, outcome.errors);
        ensure!(unexpected == 0 && errors == 0, "{unexpected} unexpected answers, {errors} errors");
        self.next += outcome.sent;
        Ok((outcome, (end.0.saturating_sub(start.0), end.1.saturating_sub(start.1))))
    }

    /// At least so many calls more, unmeasured.
    pub fn send(&mut self, product: &Product, connections: usize, calls: u64) -> Result<()> {
        let end = self.next + calls;
        while self.next < end {
            self.run(product, Mix::Allow, connections, Duration::ZERO, Duration::from_secs(5))?;
        }
        Ok(())
    }
}

struct Hooks {
    mix: Mix,
    tokens: Rc<[String]>,
    address: String,
}

impl Workload for Hooks {
    fn request(&self, number: u64) -> Request<Full<Bytes>> {
        let (tool, input) = if !self.mix.is_denied(number) {
            (
                "Bash",
                r#"{"command":"cargo test -p parser --lib -- lexer","description":"Run the lexer's tests"}"#,
            )
        } else if number.is_multiple_of(2) {
            ("mcp__crm__delete_customer", r#"{"customer_id":"c-1042"}"#)
        } else {
            (
                "Bash",
                r#"{"command":"git remote add origin https://ghp_16C7e42F292c6912E7710c838347Ae178B4a@github.com/a/b"}"#,
            )
        };
        let body = format!(
            r#"{{"hook_event_name":"PreToolUse","session_id":"bench-{}","cwd":"/home/dev/parser","permission_mode":"default","tool_name":"{tool}","tool_input":{input},"tool_use_id":"toolu_{number:024x}"}}"#,
            number % 997
        );
        let token = self.tokens.get(number as usize % self.tokens.len()).map_or("", String::as_str);
        let request = Request::post("/api/v1/hooks/govern?plugin_id=demo")
            .header("host", &self.address)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::from(body));
        request.unwrap_or_else(|error| unreachable!("a fixed request: {error}"))
    }

    fn is_expected(&self, number: u64, parts: &Parts) -> bool {
        let decision = if self.mix.is_denied(number) { "deny" } else { "allow" };
        let given = parts.headers.get("x-systemprompt-decision");
        parts.status == 200 && given.is_some_and(|value| value == decision)
    }
}
