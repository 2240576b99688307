//! Source trees, in which there are no secrets to find: what is found there is a false finding.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use systemprompt_security::governance::{FindingClass, SecretScanner};

/// Sources and what stands beside them, by their name's end. Keys in `.pem` files of test suites are keys: to find them is not wrong.
const TEXT: [&str; 13] =
    ["py", "rs", "toml", "md", "txt", "json", "c", "h", "html", "yml", "yaml", "js", "cfg"];
const MAX_FILE: u64 = 2 * 1024 * 1024;

/// Scans at most `most` bytes of each folder, in the order of the paths.
pub fn scan(scanner: &SecretScanner, most: u64, folders: &[&Path]) -> Value {
    let (mut bytes, mut files, mut generic, mut took) = (0, 0, 0, Duration::ZERO);
    let mut findings = Vec::new();
    for folder in folders {
        let mut paths = Vec::new();
        collect(folder, &mut paths);
        paths.sort();
        let mut own = 0;
        for path in paths {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if own + text.len() as u64 > most {
                break;
            }
            own += text.len() as u64;
            files += 1;
            let began = Instant::now();
            let found = scanner.scan_text(&text);
            took += began.elapsed();
            for finding in found {
                if finding.class == FindingClass::Generic {
                    generic += 1;
                    continue;
                }
                let line = text.bytes().take(finding.offset).filter(|b| *b == b'\n').count() + 1;
                let place = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                findings.push(json!({"rule": finding.rule_id, "file": place, "line": line}));
            }
        }
        bytes += own;
    }
    json!({"bytes": bytes, "files": files, "generic": generic, "seconds": took.as_secs_f64(), "specific": findings})
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        // Packages that somebody installed are no part of the library.
        if kind.is_dir() && path.file_name().is_some_and(|name| name == "site-packages") {
            continue;
        }
        if kind.is_dir() {
            collect(&path, paths);
        } else if kind.is_file()
            && path.extension().is_some_and(|e| TEXT.iter().any(|t| e == *t))
            && entry.metadata().is_ok_and(|m| m.len() <= MAX_FILE)
        {
            paths.push(path);
        }
    }
}
