//! What a child writes to its standard error: always read, so that it never blocks, and kept in bounds (SCR-57): the last
//! lines in memory, a log file with one predecessor, both without values in use and without control characters.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use systemprompt_leak::{Scanner, StreamScanner};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Bytes of lines that are kept in memory.
const RING_BYTES: usize = 256 * 1024;
/// A line is cut here.
const MAX_LINE: usize = 8 * 1024;
/// Lines a second beyond which lines are only counted.
const MAX_RATE: u32 = 200;
/// A log file that reaches this size becomes the predecessor.
const MAX_FILE: u64 = 10 * 1024 * 1024;

/// The last lines of a child. Clones share them.
#[derive(Clone, Default)]
pub struct ErrorLines(Arc<Mutex<Ring>>);

#[derive(Default)]
struct Ring {
    lines: VecDeque<String>,
    bytes: usize,
}

impl ErrorLines {
    /// The last `count` lines, oldest first.
    pub fn last(&self, count: usize) -> Vec<String> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.lines.iter().skip(ring.lines.len().saturating_sub(count)).cloned().collect()
    }

    fn push(&self, line: String) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += line.len();
        ring.lines.push_back(line);
        while ring.bytes > RING_BYTES {
            let Some(old) = ring.lines.pop_front() else { break };
            ring.bytes -= old.len();
        }
    }
}

/// Reads `errors` to its end.
pub async fn drain<R: AsyncRead + Unpin>(mut errors: R, scanner: Scanner, lines: ErrorLines, log: PathBuf) {
    let mut reader = Lines::new(scanner);
    let mut file = LogFile::open(&log).await;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = errors.read(&mut buffer).await.unwrap_or_default();
        let done = match buffer.get(..read) {
            Some(bytes) if read > 0 => reader.take(bytes),
            _ => reader.end(),
        };
        for line in done {
            file.write(&line).await;
            lines.push(line);
        }
        if read == 0 {
            file.flush().await;
            return;
        }
        file.flush().await;
    }
}

/// Cuts cleaned bytes into lines. Values that span lines are found too, since the scan comes before the cut.
struct Lines {
    scanner: Scanner,
    scan: Option<StreamScanner>,
    clean: Vec<u8>,
    /// The rest of a line that was cut is skipped.
    skipping: bool,
    second: Instant,
    in_second: u32,
    dropped: u32,
}

impl Lines {
    fn new(scanner: Scanner) -> Self {
        Self {
            scan: Some(scanner.stream()),
            scanner,
            clean: Vec::new(),
            skipping: false,
            second: Instant::now(),
            in_second: 0,
            dropped: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        if let Some(scan) = &mut self.scan {
            scan.push(bytes, &mut self.clean);
        }
        self.split(false)
    }

    fn end(&mut self) -> Vec<String> {
        if let Some(scan) = self.scan.take() {
            scan.finish(&mut self.clean);
        }
        let mut lines = self.split(true);
        lines.extend(self.skipped());
        lines
    }

    fn split(&mut self, end: bool) -> Vec<String> {
        let clean = std::mem::take(&mut self.clean);
        let mut lines = Vec::new();
        let mut rest = clean.as_slice();
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(at);
            rest = after.get(1..).unwrap_or_default();
            if !std::mem::take(&mut self.skipping) {
                self.line(line, &mut lines);
            }
        }
        if self.skipping {
            rest = &[];
        } else if rest.len() > MAX_LINE || (end && !rest.is_empty()) {
            self.line(rest, &mut lines);
            self.skipping = !end;
            rest = &[];
        }
        self.clean = rest.to_vec();
        lines
    }

    fn line(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            lines.extend(self.skipped());
            self.second = Instant::now();
            self.in_second = 0;
        }
        if self.in_second >= MAX_RATE {
            self.dropped += 1;
            return;
        }
        self.in_second += 1;
        let cut = bytes.get(..bytes.len().min(MAX_LINE)).unwrap_or_default();
        let text = String::from_utf8_lossy(cut);
        let text = text.trim_end_matches('\r');
        // The stream was scanned as it stands; a whole line can be read as well.
        let clean = self.scanner.redact_text(text);
        lines.push(printable(clean.as_ref().map_or(text, |(clean, _)| clean)));
    }

    fn skipped(&mut self) -> Option<String> {
        let dropped = std::mem::take(&mut self.dropped);
        (dropped > 0).then(|| format!("[{dropped} lines were dropped: more than {MAX_RATE} in a second]"))
    }
}

/// Control characters in escaped form, so that a log can be shown in a terminal.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The log of a server; a file that cannot be written is told once and then left.
struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl LogFile {
    async fn open(path: &Path) -> Self {
        let file = Self::append(path).await;
        if let Err(error) = &file {
            tracing::warn!(path = %path.display(), %error, "the log of an MCP server cannot be written");
        }
        let file = file.ok();
        let size = match &file {
            Some(file) => file.metadata().await.map(|m| m.len()).unwrap_or_default(),
            None => 0,
        };
        Self { path: path.to_owned(), file, size }
    }

    async fn append(path: &Path) -> std::io::Result<File> {
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).await
    }

    async fn write(&mut self, line: &str) {
        if self.size >= MAX_FILE {
            self.flush().await;
            self.file = None;
            let before = self.path.with_extension("log.1");
            if tokio::fs::rename(&self.path, before).await.is_ok() {
                *self = Self::open(&self.path.clone()).await;
            }
        }
        if let Some(file) = &mut self.file {
            let text = format!("{line}\n");
            self.size += text.len() as u64;
            if file.write_all(text.as_bytes()).await.is_err() {
                self.file = None;
            }
        }
    }

    async fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            let _ = file.flush().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use systemprompt_models::Secret;

    async fn drained(input: &[u8], secret: &str) -> (Vec<String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/mcp/x.log");
        let scanner = Scanner::new();
        let _hold = scanner.hold("crm", &Secret::from(secret)).unwrap();
        let lines = ErrorLines::default();
        drain(input, scanner, lines.clone(), log.clone()).await;
        (lines.last(1000), std::fs::read_to_string(log).unwrap())
    }

    #[tokio::test]
    async fn lines_are_cleaned_of_secrets_and_control_characters() {
        let input = b"starting\r\ntoken=line-one\nline-two!\n\x1b[31mred\x1b[0m\nno end";
        let (lines, log) = drained(input, "line-one\nline-two").await;
        let hidden = b"at line%2done\\u000aline-two";
        assert_eq!(drained(hidden, "line-one\nline-two").await.0, ["at [redacted:crm]"]);
        assert_eq!(lines, ["starting", "token=[redacted:crm]!", "\\u{1b}[31mred\\u{1b}[0m", "no end"]);
        assert_eq!(log, lines.join("\n") + "\n");
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_the_ring_is_bounded() {
        let mut input = vec![b'x'; 3 * MAX_LINE];
        input.extend_from_slice(b"\nshort\n");
        let (lines, _) = drained(&input, "some-secret-value").await;
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, 5]);
        let ring = ErrorLines::default();
        for i in 0..1000 {
            ring.push(format!("{i:01000}"));
        }
        assert_eq!(ring.last(10_000).len(), RING_BYTES / 1000);
    }

    #[tokio::test]
    async fn a_flood_is_counted_instead_of_kept() {
        let input = "flood\n".repeat(1000);
        let (lines, _) = drained(input.as_bytes(), "some-secret-value").await;
        assert!(lines.len() < 1000, "{}", lines.len());
        assert!(lines.last().unwrap().contains("lines were dropped"), "{:?}", lines.last());
    }
}
