//! `bench growth`: the decisions a second of `bench govern` on a new ledger, after a million decisions, and with a hundred
//! thousand rules.

use crate::govern::{Load, Mix};
use crate::machine;
use crate::options::{Engine, Options};
use crate::product::Product;
use crate::report::{Report, finished, median};
use anyhow::{Result, ensure};

const ROWS: u64 = 1_000_000;
const RULES: u64 = 100_000;
const CONNECTIONS: usize = 50;

pub fn bench(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "growth",
        "Growth",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "The load of *Hook decisions* (all allowed, {CONNECTIONS} connections) on one server: on its new ledger, when that holds \
             {ROWS} decisions, and after a restart with {RULES} rules over {} more entities.",
            RULES / 4
        ),
        "flat within 20 % (15 % for the ledger's rows).",
    );
    let mut rows = Vec::new();
    for engine in &options.engines {
        rows.extend(engine_rows(*engine, options)?);
    }
    report
        .table(&["engine", "state", "rows before", "decisions/s", "p50 ms", "p99 ms", "of the first"], &rows);
    report.publish(options)
}

fn engine_rows(engine: Engine, options: &Options) -> Result<Vec<Vec<String>>> {
    let mut product = Product::start(engine, &[])?;
    let mut load = Load::new(&product)?;
    let before = product.count("governance_decisions")?;
    let mut rows = Vec::new();
    let new = measure(engine, "new", &product, &mut load, options, None, &mut rows)?;
    load.send(&product, CONNECTIONS, ROWS.saturating_sub(load.sent()))?;
    measure(engine, "a million decisions", &product, &mut load, options, Some(new), &mut rows)?;
    product = product.seeded(&[
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
             INSERT INTO access_control_entities (entity_type, entity_id, default_included, source, created_at, updated_at) \
             SELECT 'mcp_server', 'bench-' || CAST(i AS TEXT), 0, 'api', 0, 0 FROM n",
            RULES / 4
        ),
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {RULES} - 1) \
             INSERT INTO access_control_rules (id, entity_type, entity_id, is_pattern, rule_type, rule_value, access, source, \
             created_by, created_at, updated_at, version) \
             SELECT 'rule_bench_' || CAST(i AS TEXT), 'mcp_server', 'bench-' || CAST(i / 4 + 1 AS TEXT), 0, \
             CASE i % 4 WHEN 0 THEN 'role' WHEN 1 THEN 'department' ELSE 'user' END, 'value-' || CAST(i AS TEXT), \
             CASE i % 4 WHEN 3 THEN 'deny' ELSE 'allow' END, 'api', 'bench', 0, 0, 1 FROM n"
        ),
    ])?;
    measure(engine, "and 100,000 rules", &product, &mut load, options, Some(new), &mut rows)?;
    let written = product.count("governance_decisions")? - before;
    ensure!(written == load.sent(), "{} requests, but {written} rows", load.sent());
    product.verify()?;
    Ok(rows)
}

fn measure(
    engine: Engine,
    state: &str,
    product: &Product,
    load: &mut Load,
    options: &Options,
    first: Option<f64>,
    rows: &mut Vec<Vec<String>>,
) -> Result<f64> {
    let so_far = load.sent();
    let mut figures: [Vec<f64>; 3] = Default::default();
    for _ in 0..options.runs_or(3) {
        let (outcome, _) = load.run(product, Mix::Allow, CONNECTIONS, options.warm_up(), options.run / 3)?;
        let values = [outcome.rate(), outcome.millis(50.0), outcome.millis(99.0)];
        figures.iter_mut().zip(values).for_each(|(list, value)| list.push(value));
    }
    let [rate, p50, p99] = figures.map(median);
    rows.push(finished(vec![
        engine.name().to_owned(),
        state.to_owned(),
        so_far.to_string(),
        format!("{rate:.0}"),
        format!("{p50:.2}"),
        format!("{p99:.2}"),
        first.map_or_else(|| "–".to_owned(), |first| format!("{:.2}", rate / first)),
    ]));
    Ok(rate)
}
