//! What a million stored tokens cost a refresh and an introspection.

use super::endpoints::Chain;
use super::measure::{Figures, Length};
use super::plane::Plane;
use super::{Tables, seed};
use crate::options::{Engine, Options};
use crate::report::finished;
use anyhow::Result;
use std::time::Duration;

const FEW: usize = 10_000;
const MANY: usize = 1_000_000;
/// Codes of one run.
const CODES: usize = 3_000;
const CONNECTIONS: usize = 16;
/// The database catches up with what was put into it.
const SETTLE: Duration = Duration::from_secs(5);

/// Sessions, grants and refresh tokens in either number; returns what the ledger's verification said.
pub fn tokens(engine: Engine, options: &Options, tables: &mut Tables) -> Result<String> {
    let plane = Plane::start(engine, "EdDSA")?.seeded(&seed::sessions(1, FEW))?;
    let few = measure(&plane, options)?;
    let plane = plane.seeded(&seed::sessions(FEW + 1, MANY))?;
    let many = measure(&plane, options)?;
    for (stored, chain) in [(FEW, &few), (MANY, &many)] {
        let cells = |figures: &Figures, first: &Figures| {
            [
                format!("{:.2}", figures.p50()),
                format!("{:.2}", figures.p99()),
                format!("{:.2}", figures.p50() / first.p50()),
            ]
        };
        let mut row = vec![engine.name().to_owned(), stored.to_string()];
        row.extend(cells(&chain.refresh, &few.refresh));
        row.extend(cells(&chain.introspection, &few.introspection));
        tables.growth.push(finished(row));
    }
    plane.end()
}

fn measure(plane: &Plane, options: &Options) -> Result<Chain> {
    std::thread::sleep(SETTLE);
    let browsers = plane.side.site.browsers()?;
    let length = Length { warm_up: Duration::from_millis(200), ..Length::short(options) };
    let mut chain = Chain::default();
    for _ in 0..length.runs {
        chain.run(plane, &browsers, CONNECTIONS, &length, Some(CODES))?;
    }
    Ok(chain)
}
