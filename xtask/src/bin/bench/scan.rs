//! `bench scan` and `bench scan-history`: the secret scan in process, one thread, and what a conversation costs that is sent again.

use crate::machine;
use crate::options::Options;
use crate::report::{Report, finished, median};
use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde_json::json;
use std::hint::black_box;
use std::time::{Duration, Instant};
use systemprompt_security::governance::{SecretScanner, Segment};

const SIZES: [(&str, usize); 3] = [("4 KiB", 4 * 1024), ("115 KB", 115_000), ("1 MiB", 1024 * 1024)];
/// A made-up key, put together so that no scanner of repositories takes it for a leak.
const KEY: [&str; 2] = ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"];
/// Distance of the secrets in dirty text, in bytes.
const DIRTY_EVERY: usize = 4 * 1024;
const MIB: f64 = 1024.0 * 1024.0;

pub fn scan(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "scan",
        "Secret scan",
        &machine::describe(&std::env::temp_dir())?,
        "`SecretScanner::scan_segment` in process on one thread, over JSON of a coding conversation: prose, source, paths, ids and digests. \
         *Dirty* text has a key in every 4 KiB. Each text is another one, so that no verdict is known; rate over a run without a timer \
         inside, percentiles from a pass that times each call. Compile is the start-up cost of all rules.",
        "at least 80 MiB/s; 4 KiB p99 at most 100 µs; compile at most 80 ms.",
    );
    let mut rows = Vec::new();
    for (name, size) in SIZES {
        for is_dirty in [false, true] {
            rows.push(finished(measure(name, size, is_dirty, options)?));
        }
    }
    report.table(&["JSON", "text", "MiB/s", "p50 µs", "p99 µs", "findings"], &rows);
    let mut compile = Vec::new();
    for _ in 0..options.runs_or(3) * 3 {
        let start = Instant::now();
        black_box(SecretScanner::builtin()?);
        compile.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let rules = SecretScanner::builtin()?.rules().count();
    report.note(&format!("Compile: {:.1} ms for {rules} rules.", median(compile)));
    report.publish(options)
}

fn measure(name: &str, size: usize, is_dirty: bool, options: &Options) -> Result<Vec<String>> {
    let scanner = SecretScanner::builtin()?;
    let mut number = 0;
    let mut rates = Vec::new();
    let mut times = Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3)?;
    let mut findings = 0;
    // The first texts compile the regexes that they ask for.
    for _ in 0..4 {
        black_box(look(&scanner, &text(size, is_dirty, next(&mut number))));
    }
    for _ in 0..options.runs_or(3) {
        let count = (32 * 1024 * 1024 / size).max(8);
        let texts: Vec<Vec<u8>> = (0..count).map(|_| text(size, is_dirty, next(&mut number))).collect();
        let bytes: usize = texts.iter().map(Vec::len).sum();
        let start = Instant::now();
        for text in &texts {
            findings = look(&scanner, text);
        }
        rates.push(bytes as f64 / MIB / start.elapsed().as_secs_f64());
        let texts: Vec<Vec<u8>> =
            (0..count.min(2_000)).map(|_| text(size, is_dirty, next(&mut number))).collect();
        for text in &texts {
            let start = Instant::now();
            black_box(look(&scanner, text));
            times.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
        }
    }
    ensure!((findings > 0) == is_dirty, "{findings} findings in {name}, dirty: {is_dirty}");
    let micros = |percentile: f64| format!("{:.1}", times.value_at_percentile(percentile) as f64 / 1e3);
    Ok(vec![
        name.to_owned(),
        if is_dirty { "dirty" } else { "clean" }.to_owned(),
        format!("{:.0}", median(rates)),
        micros(50.0),
        micros(99.0),
        findings.to_string(),
    ])
}

fn next(number: &mut u64) -> u64 {
    *number += 1;
    *number
}

fn look(scanner: &SecretScanner, json: &[u8]) -> usize {
    scanner.scan_segment(&Segment { pointer: "".into(), json }).map_or(0, |found| found.len())
}

/// JSON of about `size` bytes: the messages of a coding conversation.
fn text(size: usize, is_dirty: bool, seed: u64) -> Vec<u8> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut number = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut messages = Vec::new();
    let (mut length, mut dirt) = (0, 0);
    while length + 400 < size || messages.is_empty() {
        let n = number();
        let mut piece = match n % 5 {
            0 => format!(
                "fn part_{n}(input: &str) -> Result<Vec<u8>, Error> {{\n    let parsed = input.trim().parse::<u64>()?;\n    Ok(parsed.to_be_bytes().to_vec())\n}}\n"
            ),
            1 => format!(
                "Please look at crates/part-{n}/src/lib.rs and say why the test `reads_{n}` fails since yesterday; the log is below.\n"
            ),
            2 => format!(
                "{{\"id\": \"{n:016x}\", \"sha256\": \"{:016x}{:016x}{n:016x}\", \"ok\": true}}\n",
                number(),
                number()
            ),
            3 => format!(
                "  at https://github.com/example/project/blob/main/src/part_{n}.ts#L{}\n  see docs/guide.md, token count {}, 100% of the lines\n",
                n % 900,
                n % 9000
            ),
            _ => format!(
                "The gateway answered 200 after {} ms; nothing was changed in module {n}, and the cache stays as it is.\n",
                n % 3000
            ),
        };
        if is_dirty && length >= dirt {
            piece.push_str("export TOKEN=");
            piece.push_str(&KEY.concat());
            piece.push('\n');
            dirt += DIRTY_EVERY;
        }
        length += piece.len() + 40;
        let role = if n.is_multiple_of(2) { "user" } else { "assistant" };
        messages.push(json!({"role": role, "content": piece}));
    }
    json!({ "messages": messages }).to_string().into_bytes()
}

pub fn history(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "scan-history",
        "Secret scan of a conversation that is sent again",
        &machine::describe(&std::env::temp_dir())?,
        "115 KB of messages, each a segment of its own as the gateway judges them, and one new message of 1 KiB with each turn. *Cold*: no \
         verdict is known; *turn*: all but the new message were judged before. In process, one thread.",
        "a turn at most 10 % of a cold scan.",
    );
    let (mut cold, mut turns) = (Vec::new(), Vec::new());
    for run in 0..options.runs_or(3) as u64 {
        let messages: Vec<Vec<u8>> = (0..115).map(|n| text(1_000, false, run * 1_000_000 + n)).collect();
        let scanner = SecretScanner::builtin()?;
        black_box(look(&scanner, &text(100_000, false, u64::MAX - run)));
        cold.push(whole(&scanner, &messages).as_secs_f64() * 1e6);
        let mut own = Vec::new();
        let mut messages = messages;
        for turn in 0..200 {
            messages.push(text(1_000, false, run * 1_000_000 + 10_000 + turn));
            own.push(whole(&scanner, &messages).as_secs_f64() * 1e6);
            messages.pop();
        }
        turns.push(median(own));
    }
    let (cold, turn) = (median(cold), median(turns));
    let row =
        finished(vec![format!("{cold:.0}"), format!("{turn:.0}"), format!("{:.1} %", turn / cold * 100.0)]);
    report.table(&["cold µs", "turn µs", "turn of cold"], &[row]);
    report.publish(options)
}

fn whole(scanner: &SecretScanner, messages: &[Vec<u8>]) -> Duration {
    let start = Instant::now();
    for message in messages {
        black_box(look(scanner, message));
    }
    start.elapsed()
}
