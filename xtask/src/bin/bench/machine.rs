//! The machine that a figure is from, and what a process used of it.

use anyhow::{Context, Result};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use xtask::process::{output, root};

/// Clock ticks a second in `/proc/<pid>/stat`; Linux shows 100 on every architecture.
const TICKS: u32 = 100;

/// Processor, cores, kernel, file system, commit and load, in one line.
pub fn describe(folder: &Path) -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let files = output(Command::new("stat").args(["--file-system", "--format=%T"]).arg(folder))?;
    let commit = output(Command::new("git").args(["rev-parse", "--short=9", "HEAD"]).current_dir(root()))?;
    let fsync = fsync_time(folder)?;
    Ok(format!(
        "{model}, {cores} cores, Linux {}, {files} (fdatasync {} µs), load before {load}, commit {commit}",
        kernel.trim(),
        fsync.as_micros()
    ))
}

/// Median time of an appended 4 KiB block with `fdatasync`.
pub fn fsync_time(folder: &Path) -> Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let block = [7_u8; 4096];
    let mut times = Vec::new();
    for _ in 0..201 {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    file.seek(SeekFrom::Start(0))?;
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no measurement")
}

/// CPU time of a process and of those below it, ended children included.
pub fn cpu(pid: u32) -> Result<Duration> {
    let own = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    let below: u64 = descendants(pid).into_iter().filter_map(|pid| stat(pid).ok()).sum();
    Ok(Duration::from_secs(own + below) / TICKS)
}

/// utime, stime, cutime and cstime, in ticks. The second field, a name in parentheses, may hold spaces.
fn stat(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = text.rsplit_once(')').context("a line of /proc/<pid>/stat")?;
    Ok(after.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum())
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        let file = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(file).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    found.split_off(1)
}

/// Resident and peak resident memory in KiB.
pub fn memory(pid: u32) -> Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
    };
    Ok((field("VmRSS:"), field("VmHWM:")))
}

/// Lets the peak of a process begin anew at what it has now.
pub fn forget_peak(pid: u32) -> Result<()> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}
