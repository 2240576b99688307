//! What callers feel of the job that deletes what has ended.

use super::measure::{Figures, Length};
use super::plane::Plane;
use super::{CONNECTIONS, Tables, seed};
use crate::options::{Engine, Options};
use crate::report::finished;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Sessions, each with a grant and a refresh token: a million rows.
const SESSIONS: usize = 333_334;
const ROWS: &str = "oauth_refresh_tokens WHERE pepper_id = 'seed'";
/// The job looks once a minute whether it is due.
const PATIENCE: Duration = Duration::from_mins(3);
const LONGEST: Duration = Duration::from_mins(10);

/// Client credentials before the job and while it runs; returns what the ledger's verification said.
pub fn under_load(engine: Engine, options: &Options, tables: &mut Tables) -> Result<String> {
    let plane = Plane::start(engine, "EdDSA")?.seeded(&seed::ended_sessions(SESSIONS))?;
    let length = Length::short(options);
    let (mut before, mut meanwhile) = (Figures::default(), Figures::default());
    let run = |plane: &Plane, figures: &mut Figures| {
        figures.run(&plane.side, CONNECTIONS, &length, plane.side.site.client_credentials(""))
    };
    for _ in 0..length.runs {
        run(&plane, &mut before)?;
    }
    let stored = plane.product.count(ROWS)?;
    ensure!(stored == SESSIONS as u64, "{stored} rows, and the job had begun");
    await_rows(&plane, PATIENCE, |left| left < SESSIONS as u64)?;
    let began = Instant::now();
    let mut runs = 0;
    while runs < length.runs && plane.product.count(ROWS)? > 0 {
        run(&plane, &mut meanwhile)?;
        runs += 1;
    }
    ensure!(runs > 0, "the job was over before anything was measured");
    let left = "user_sessions WHERE id LIKE 'sess_seed_%'";
    let done = |plane: &Plane| anyhow::Ok(plane.product.count(left)? == 0);
    while !done(&plane)? {
        ensure!(began.elapsed() < LONGEST, "the rows are not deleted");
        std::thread::sleep(Duration::from_millis(500));
    }
    tables.cleanup.push(finished(vec![
        engine.name().to_owned(),
        (3 * SESSIONS).to_string(),
        format!("{:.0}", began.elapsed().as_secs_f64()),
        format!("{:.0}", before.rate()),
        format!("{:.2}", before.p99()),
        format!("{:.0}", meanwhile.rate()),
        format!("{:.2}", meanwhile.p99()),
        format!("{:.2}", meanwhile.p99() / before.p99()),
    ]));
    plane.end()
}

fn await_rows(plane: &Plane, patience: Duration, is_so: impl Fn(u64) -> bool) -> Result<()> {
    let began = Instant::now();
    while !is_so(plane.product.count(ROWS)?) {
        ensure!(began.elapsed() < patience, "the job does not begin");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
