//! `bench edge`: what the edge costs a request, beside a bare axum handler with the same answer, and with many bans.

use crate::load::{self, Outcome, Plan, Workload};
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
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use systemprompt_security::services::ScannerDetector;

/// The document both serve: public, answered from memory.
pub const PATH: &str = "/.well-known/jwks.json";
const BANS: u64 = 100_000;
const ROUNDS: u32 = 200_000;

pub fn bench(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "edge",
        "Edge",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "`GET {PATH}` over HTTP/1.1 keep-alive, closed loop: a public document from memory, behind every layer of the edge but \
             authentication, beside a bare axum handler that answers the same bytes. CPU time of the server process for each \
             request. *Bans* adds {BANS} single addresses to the ban list."
        ),
        "the edge at most 20 µs CPU a request; with 100,000 bans at most 1.2 times as much; a scanner function at most 500 ns.",
    );
    let connections = options.connections_or(&[16]);
    let mut rows = Vec::new();
    let mut product = Product::start(Engine::Sqlite, &[])?;
    let bare = Beside::bare()?;
    let mut at_16 = Vec::new();
    for connections in &connections {
        let pid = bare.pid();
        let cpu = move || machine::cpu(pid).unwrap_or_default();
        rows.push(row("bare axum", *connections, bare.address, cpu, options, &mut at_16)?);
        rows.push(of_product("systemprompt", *connections, &product, options, &mut at_16)?);
    }
    product = product.seeded(&[&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {BANS}) \
         INSERT INTO banned_ips (id, network, reason, source, created_by, created_at, hits) \
         SELECT 'ban_bench_' || CAST(i AS TEXT), '11.' || CAST(i / 65536 AS TEXT) || '.' || CAST((i / 256) % 256 AS TEXT) || '.' \
         || CAST(i % 256 AS TEXT) || '/32', 'bench', 'manual', 'bench', 0, 0 FROM n"
    )])?;
    for connections in &connections {
        rows.push(of_product("systemprompt, bans", *connections, &product, options, &mut at_16)?);
    }
    report.table(&["server", "connections", "requests/s", "p50 ms", "p99 ms", "CPU µs"], &rows);
    if let [bare, ours, banned] = at_16[..] {
        report.note(&format!(
            "The edge and what it serves cost {:.1} µs a request more than the bare handler; with bans {:.2} times as much in all.",
            ours - bare,
            banned / ours
        ));
    }
    report.note(&scanner());
    report.publish(options)
}

fn of_product(
    name: &str,
    connections: usize,
    product: &Product,
    options: &Options,
    cpus: &mut Vec<f64>,
) -> Result<Vec<String>> {
    let cpu = product.cpu_reader();
    row(name, connections, product.address()?, move || cpu().0, options, cpus)
}

fn row(
    name: &str,
    connections: usize,
    address: SocketAddr,
    cpu: impl Fn() -> Duration + Clone + 'static,
    options: &Options,
    cpus: &mut Vec<f64>,
) -> Result<Vec<String>> {
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..options.runs_or(3) {
        let plan = Plan { address, connections, warm_up: options.warm_up(), run: options.run / 3, first: 0 };
        let workload = Document(address.to_string());
        let (outcome, before, after): (Outcome, _, _) = load::run(&plan, Rc::new(workload), cpu.clone())?;
        ensure!(outcome.unexpected == 0 && outcome.errors == 0, "{outcome:?}");
        let each = after.saturating_sub(before).as_secs_f64() * 1e6 / outcome.measured.max(1) as f64;
        let values = [outcome.rate(), outcome.millis(50.0), outcome.millis(99.0), each];
        figures.iter_mut().zip(values).for_each(|(list, value)| list.push(value));
    }
    let [rate, p50, p99, each] = figures.map(median);
    cpus.push(each);
    Ok(finished(vec![
        name.to_owned(),
        connections.to_string(),
        format!("{rate:.0}"),
        format!("{p50:.2}"),
        format!("{p99:.2}"),
        format!("{each:.1}"),
    ]))
}

/// The scanner's questions in process, each asked of what it takes longest over: text without a hit.
fn scanner() -> String {
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";
    let path = "/shop/articles/2026/11/a-long-and-entirely-harmless-title-of-some-page.html";
    let nanos = |ask: &dyn Fn() -> bool| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(ask());
        }
        start.elapsed().as_nanos() / u128::from(ROUNDS)
    };
    format!(
        "Scanner functions, in process: path {} ns, agent {} ns, outdated browser {} ns, all together {} ns.",
        nanos(&|| ScannerDetector::is_scanner_path(black_box(path))),
        nanos(&|| ScannerDetector::is_scanner_agent(black_box(agent))),
        nanos(&|| ScannerDetector::is_outdated_browser(black_box(agent))),
        nanos(&|| ScannerDetector::is_scanner(black_box(path), Some(black_box(agent)), 3, 60)),
    )
}

struct Document(String);

impl Workload for Document {
    fn request(&self, _number: u64) -> Request<Full<Bytes>> {
        let request = Request::get(PATH).header("host", &self.0).body(Full::default());
        request.unwrap_or_else(|error| unreachable!("a fixed request: {error}"))
    }

    fn is_expected(&self, _number: u64, parts: &Parts) -> bool {
        parts.status == 200
    }
}
