//! `bench security-memory`: what the security plane weighs in a process of its own: idle, filled, and once what filled it has ended.

use crate::authz::rule_set;
use crate::machine;
use crate::options::Options;
use crate::report::Report;
use crate::tokens::{House, SESSIONS};
use anyhow::{Result, ensure};
use serde_json::json;
use systemprompt_models::{Clock, Millis, SystemClock};
use systemprompt_security::auth::AuthMode;
use systemprompt_security::governance::rate_limit::rate;
use systemprompt_security::governance::{Origin, PastCall, RateLimiter, SecretScanner};
use systemprompt_security::jwt::Surface;

const RULES: usize = 100_000;
const KEYS: usize = 100_000;
/// After so long nothing of the call limit is remembered.
const LATER: Millis = 3_600_000;

pub fn bench(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "security-memory",
        "Memory of the security plane",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "Growth of the resident memory of a process that has only the plane, over the same process before it: *idle* with the \
             compiled secret rules, the keys and empty caches; *filled* with {SESSIONS} known tokens, {RULES} rules and {KEYS} users \
             of the call limit; *ended* when the tokens are forgotten, the rules gone and the calls an hour old; *filled again* with \
             other users. The allocator gives pages back late, so what does not grow is told by the last column."
        ),
        "idle at most 12 MiB; filled at most 80 MiB; filled again within 10 % of filled.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir_in(xtask::process::target())?;
    let row = runtime.block_on(async {
        let house = House::open(folder.path()).await?;
        let requests = house.requests().await?;
        let before = resident()?;
        let (service, limiter, scanner) = (house.service(), RateLimiter::new(), SecretScanner::builtin()?);
        let idle = resident()? - before;
        let mut filled = Vec::new();
        let mut ended = 0.0;
        for round in 0..2 {
            for headers in &requests {
                service.authenticate(headers, Surface::Api, AuthMode::Required).await?;
            }
            let rules = rule_set(RULES);
            call(&limiter, round, SystemClock.now() + round as Millis * 2 * LATER).await?;
            filled.push(resident()? - before);
            ensure!(rules.epoch() == 1 && scanner.rules().count() > 0, "nothing was measured");
            service.forget();
            drop(rules);
            call(&limiter, 2 + round, SystemClock.now() + (round as Millis * 2 + 1) * LATER).await?;
            ended = resident()? - before;
        }
        let mut row = vec![idle];
        row.extend(filled.first());
        row.push(ended);
        row.extend(filled.last());
        anyhow::Ok(row)
    })?;
    let cells: Vec<String> = row.iter().map(|mebibytes| format!("{mebibytes:.1} MiB")).collect();
    report.table(&["idle", "filled", "ended", "filled again"], &[cells]);
    report.publish(options)
}

/// A call of each of [`KEYS`] users that no other round has.
async fn call(limiter: &RateLimiter, round: usize, at: Millis) -> Result<()> {
    let rate = rate(&json!({}))?;
    for number in 0..KEYS {
        let (user_id, call_id) = (format!("usr_{round}_{number}"), format!("call_{round}_{number}"));
        let call =
            PastCall { user_id: &user_id, session_id: "ses", call_id: &call_id, origin: Origin::Hook, at };
        limiter.charge(&rate, &call).await;
    }
    Ok(())
}

/// Resident memory of this process in MiB.
fn resident() -> Result<f64> {
    Ok(machine::memory(std::process::id())?.0 as f64 / 1024.0)
}
