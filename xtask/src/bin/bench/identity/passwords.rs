//! Signing in with a password, beside Argon2id alone.

use super::measure::{Length, runs};
use super::plane::Plane;
use super::seed::{self, PASSWORD};
use super::{CONNECTIONS, Tables};
use crate::machine;
use crate::options::Options;
use crate::report::{finished, median};
use anyhow::{Context, Result, anyhow};
use argon2::password_hash::PasswordHasher as _;
use std::time::{Duration, Instant};

/// Enough that every permit to hash is taken, and few enough that nobody is sent away.
const PEOPLE: usize = CONNECTIONS / 8;

pub fn sign_ins(plane: &Plane, options: &Options, tables: &mut Tables) -> Result<()> {
    let length = Length::short(options);
    let pid = plane.product.server.pid();
    let page = plane.side.site.sign_in_page()?;
    let (before, _) = machine::memory(pid)?;
    machine::forget_peak(pid)?;
    // By turns, so that what changes on the machine changes for both.
    let mut rates = Vec::new();
    let figures = runs(&plane.side, PEOPLE, &length, || {
        rates.push(alone(length.run)?);
        Ok(plane.side.site.sign_ins(&page))
    })?;
    let (_, peak) = machine::memory(pid)?;
    let alone = median(rates);
    tables.passwords.push(finished(vec![
        plane.engine.name().to_owned(),
        format!("{:.1}", figures.rate()),
        format!("{alone:.1}"),
        format!("{:.0} %", 100.0 * figures.rate() / alone),
        format!("{:.0}", figures.p99()),
        format!("{:.1} MiB", before as f64 / 1024.0),
        format!("{:.1} MiB", peak.saturating_sub(before) as f64 / 1024.0),
    ]));
    Ok(())
}

/// Hashes a second of as many threads as the product lets hash.
fn alone(run: Duration) -> Result<f64> {
    let threads = std::thread::available_parallelism()?.get().max(2);
    let begin = Instant::now();
    let hashes = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(move || hash_until(begin + run))).collect();
        let done = |thread: std::thread::ScopedJoinHandle<'_, Result<u64>>| {
            thread.join().map_err(|_| anyhow!("a thread that hashes panicked"))?
        };
        all.into_iter().map(done).sum::<Result<u64>>()
    })?;
    Ok(hashes as f64 / begin.elapsed().as_secs_f64())
}

fn hash_until(end: Instant) -> Result<u64> {
    let argon2 = seed::argon2()?;
    let mut hashes = 0;
    while Instant::now() < end {
        argon2.hash_password_with_salt(PASSWORD.as_bytes(), &[7; 16]).context("hashing")?;
        hashes += 1;
    }
    Ok(hashes)
}
