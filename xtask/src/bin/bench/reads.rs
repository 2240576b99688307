//! `bench reads`: how fast a grown ledger answers an auditor: queries by person and time, the first and the hundredth page,
//! and proofs of single records.

use crate::govern::Load;
use crate::machine;
use crate::options::{Engine, Options};
use crate::product::Product;
use crate::report::{Report, finished};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const ROWS: u64 = 1_000_000;
const CONNECTIONS: usize = 50;
/// People among the newest records, at least: each sends some twenty calls in a row.
const FEWEST: usize = 20;
/// Queries by each person, pages followed, and records proved.
const EACH: usize = 10;
const PAGES: usize = 100;
const PROOFS: usize = 200;
const WEEK: i64 = 7 * 24 * 3600 * 1000;

pub fn bench(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "reads",
        "Reading the ledger",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "A server whose ledger holds {ROWS} decisions of 50 people, asked over HTTP by one administrator. *Person and week*: \
             `GET /api/v1/admin/audit?actor=…&since=…&until=…&limit=50`, each time another end of the week, so that each query is a \
             record of its own and waits for its commit. *Page*: the same filter followed {PAGES} pages deep. *Proof*: \
             `GET …/audit/{{id}}/proof` of records from all over the ledger."
        ),
        "person and week p99 at most 50 ms; page 100 at most 1.5 times page 1; proof at most 2 ms and 2 KiB beside its record (the \
         specification asks this of ten million records).",
    );
    let mut rows = Vec::new();
    for engine in &options.engines {
        rows.push(finished(measure(*engine)?));
    }
    let head = [
        "engine",
        "records",
        "person and week p50 ms",
        "p99 ms",
        "page 1 p50 ms",
        "pages 91–100 p50 ms",
        "proof p50 ms",
        "p99 ms",
        "proof bytes",
    ];
    report.table(&head, &rows);
    report.publish(options)
}

fn measure(engine: Engine) -> Result<Vec<String>> {
    let product = Product::start(engine, &[])?;
    let mut load = Load::new(&product)?;
    load.send(&product, CONNECTIONS, ROWS)?;
    // Look-ups and checkpoints follow the writer; they are caught up with when nobody waits for them.
    std::thread::sleep(Duration::from_secs(15));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entries = product.count("ledger_entries")?;
    let row = runtime.block_on(ask(engine, &product, entries))?;
    product.verify()?;
    Ok(row)
}

async fn ask(engine: Engine, product: &Product, entries: u64) -> Result<Vec<String>> {
    #[expect(clippy::disallowed_methods, reason = "the load generator's own client")]
    let http = reqwest::Client::builder().no_proxy().build()?;
    let asker = Asker { http, product };
    let newest = asker.get("audit?kind=governance.decision&limit=500").await?.0;
    let newest = items(&newest)?;
    let people: BTreeSet<&str> =
        newest.iter().filter_map(|item| item.pointer("/record/actor/id")?.as_str()).collect();
    ensure!(people.len() >= FEWEST, "{} people among the newest records", people.len());
    let now = newest.first().and_then(|item| item.get("at")?.as_i64()).context("a time")? + 1000;

    let mut by_person = histogram()?;
    for round in 0..EACH {
        for person in &people {
            let until = now + round as i64;
            let path = format!("audit?actor={person}&since={}&until={until}&limit=50", until - WEEK);
            let (page, time) = asker.get(&path).await?;
            ensure!(items(&page)?.len() == 50, "a short page");
            by_person.saturating_record(time);
        }
    }
    let (mut first, mut last) = (histogram()?, histogram()?);
    for person in people.iter().take(EACH) {
        let path = format!("audit?actor={person}&limit=50");
        let mut cursor = String::new();
        for number in 1..=PAGES {
            let (page, time) = asker.get(&format!("{path}{cursor}")).await?;
            if number == 1 {
                first.saturating_record(time);
            } else if number > PAGES - 10 {
                last.saturating_record(time);
            }
            let next = page.get("next").and_then(Value::as_str).context("a further page")?;
            cursor = format!("&cursor={next}");
        }
    }
    let (mut proofs, mut bytes) = (histogram()?, 0);
    for number in 0..PROOFS {
        let at = now - 1000 - (number as i64 * 97);
        let path = format!("audit?kind=governance.decision&until={at}&limit=1");
        let page = asker.get(&path).await?.0;
        let Some(id) = items(&page)?.first().and_then(|item| item.get("id")?.as_str()) else { continue };
        let (proof, time) = asker.get(&format!("audit/{id}/proof")).await?;
        proofs.saturating_record(time);
        let record = proof.get("record").and_then(Value::as_str).map_or(0, str::len);
        bytes = bytes.max(proof.to_string().len() - record);
    }
    let ms = |times: &Histogram<u64>, percentile: f64| {
        format!("{:.2}", times.value_at_percentile(percentile) as f64 / 1e6)
    };
    Ok(vec![
        engine.name().to_owned(),
        entries.to_string(),
        ms(&by_person, 50.0),
        ms(&by_person, 99.0),
        ms(&first, 50.0),
        ms(&last, 50.0),
        ms(&proofs, 50.0),
        ms(&proofs, 99.0),
        bytes.to_string(),
    ])
}

fn items(page: &Value) -> Result<&Vec<Value>> {
    page.get("items").and_then(Value::as_array).context("a page with items")
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?)
}

struct Asker<'a> {
    http: reqwest::Client,
    product: &'a Product,
}

impl Asker<'_> {
    /// The answer, and the nanoseconds until it was read.
    async fn get(&self, path: &str) -> Result<(Value, u64)> {
        let server = &self.product.server;
        let request = self.http.get(format!("{}/api/v1/admin/{path}", server.url()));
        let start = Instant::now();
        let answer = request.bearer_auth(server.admin_token()).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        let time = u64::try_from(start.elapsed().as_nanos())?;
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok((serde_json::from_str(&text)?, time))
    }
}
