//! `bench start`: from the start of the process until it is ready, and its memory when idle.

use crate::machine;
use crate::options::Options;
use crate::product::Product;
use crate::report::Report;
use anyhow::{Context, Result};
use std::time::Duration;

const STARTS: usize = 11;
const IDLE: Duration = Duration::from_secs(5);

pub fn bench(options: &Options) -> Result<()> {
    let machine = machine::describe(&std::env::temp_dir())?;
    let mut report = Report::new(
        "start",
        "Start and idle memory",
        &machine,
        "An existing data folder of `up --demo`, started eleven times: time from starting the process to its ready line \
         (median and slowest). Memory five seconds after the last start, before any request.",
        "ready in under 0.5 s, under 50 MB idle.",
    );
    let mut rows = Vec::new();
    for engine in &options.engines {
        let mut product = Product::start(*engine, &[])?;
        let mut times = Vec::new();
        for _ in 0..STARTS {
            product = product.restart()?;
            times.push(product.server.ready_in());
        }
        times.sort_unstable();
        std::thread::sleep(IDLE);
        let (resident, _) = machine::memory(product.server.pid())?;
        let millis = |time: Option<&Duration>| time.map(|time| format!("{} ms", time.as_millis()));
        rows.push(vec![
            engine.name().to_owned(),
            millis(times.get(STARTS / 2)).context("a start")?,
            millis(times.last()).context("a start")?,
            format!("{:.1} MB", resident as f64 / 1024.0),
        ]);
    }
    report.table(&["engine", "ready", "slowest", "idle memory"], &rows);
    report.publish(options)
}
