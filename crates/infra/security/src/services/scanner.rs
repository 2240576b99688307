//! What a vulnerability scanner looks like: its paths, its agents, its speed (SEC-22). Pure functions, linear in their
//! input, ASCII case-insensitive; the edge decides which requests are asked about.

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use std::sync::LazyLock;

/// Extensions that probes ask for. Compared with what follows the last dot of the last path segment.
pub const SCANNER_EXTENSIONS: [&str; 12] =
    ["php", "env", "git", "sql", "bak", "old", "zip", "gz", "db", "config", "cgi", "htm"];

/// Parts of paths that probes ask for.
pub const SCANNER_PATHS: [&str; 18] = [
    "/admin",
    "/wp-admin",
    "/wp-content",
    "/uploads",
    "/cgi-bin",
    "/phpmyadmin",
    "/xmlrpc",
    "/luci",
    "/ssi.cgi",
    "internal_forms_authentication",
    "/identity",
    "/login.htm",
    "/manager/html",
    "/config/",
    "/setup.cgi",
    "/eval-stdin.php",
    "/shell.php",
    "/c99.php",
];

/// Parts of the agent strings of scanners and of clients that only scanners still use.
pub const SCANNER_AGENTS: [&str; 25] = [
    "masscan",
    "nmap",
    "nikto",
    "sqlmap",
    "havij",
    "acunetix",
    "nessus",
    "openvas",
    "w3af",
    "metasploit",
    "burpsuite",
    "zap",
    "zgrab",
    "censys",
    "shodan",
    "palo alto",
    "cortex",
    "xpanse",
    "probe-image-size",
    "libredtail",
    "httpclient",
    "httpunit",
    "java/",
    "wp-http",
    "wp-cron",
];

/// Generic clients whose agent string is shorter than they send it in a real program, in bytes.
const GENERIC_CLIENTS: [(&str, usize); 5] =
    [("curl", 20), ("wget", 20), ("python-requests", 30), ("go-http-client", 30), ("ruby", 25)];

/// Shorter agent strings are no browser's.
pub const MIN_USER_AGENT_LENGTH: usize = 10;
/// Faster than a person browses.
pub const MAX_REQUESTS_PER_MINUTE: f64 = 30.0;
/// Chrome of December 2023; older ones are impersonated, hardly used.
pub const MIN_CHROME_VERSION: u32 = 120;
/// Firefox of November 2023.
pub const MIN_FIREFOX_VERSION: u32 = 120;

/// The scanner rules.
///
/// ```
/// use systemprompt_security::services::ScannerDetector;
/// assert!(ScannerDetector::is_scanner_path("/.env"));
/// assert!(!ScannerDetector::is_scanner_path("/docs/environment"));
/// assert!(ScannerDetector::is_scanner("/", None, 1, 60));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ScannerDetector;

impl ScannerDetector {
    /// Whether probes ask for `path` (without a query).
    pub fn is_scanner_path(path: &str) -> bool {
        Self::has_scanner_extension(path) || PATHS.is_in(path)
    }

    /// Whether the extension alone makes `path` a probe.
    pub fn has_scanner_extension(path: &str) -> bool {
        let segment = path.rsplit('/').next().unwrap_or(path);
        segment.rsplit_once('.').is_some_and(|(_, extension)| {
            SCANNER_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
        })
    }

    /// Whether `agent` is a scanner's, an impersonator's or an outdated browser's.
    pub fn is_scanner_agent(agent: &str) -> bool {
        agent.len() < MIN_USER_AGENT_LENGTH
            || agent.eq_ignore_ascii_case("Mozilla/5.0")
            || starts_with(agent, "wordpress/")
            || AGENTS.is_in(agent)
            || Self::is_outdated_browser(agent)
            || GENERIC_CLIENTS.iter().any(|(part, shortest)| agent.len() < *shortest && contains(agent, part))
    }

    /// Whether `agent` says it is Chrome or Firefox of a version below 120.
    pub fn is_outdated_browser(agent: &str) -> bool {
        version(agent, "chrome/").is_some_and(|n| n < MIN_CHROME_VERSION)
            || version(agent, "firefox/").is_some_and(|n| n < MIN_FIREFOX_VERSION)
    }

    /// Whether `count` requests within `seconds` are more than a person makes. Less than a second counts as one.
    pub fn is_high_velocity(count: u64, seconds: i64) -> bool {
        let seconds = seconds.max(1);
        count as f64 * 60.0 / seconds as f64 > MAX_REQUESTS_PER_MINUTE
    }

    /// Path, then agent (a missing one is a scanner's), then velocity; the first hit decides.
    pub fn is_scanner(path: &str, agent: Option<&str>, count: u64, seconds: i64) -> bool {
        Self::is_scanner_path(path)
            || agent.is_none_or(Self::is_scanner_agent)
            || Self::is_high_velocity(count, seconds)
    }
}

static PATHS: LazyLock<Parts> = LazyLock::new(|| Parts::of(&SCANNER_PATHS));
static AGENTS: LazyLock<Parts> = LazyLock::new(|| Parts::of(&SCANNER_AGENTS));

/// A table of parts that is looked for in one pass.
struct Parts {
    table: &'static [&'static str],
    /// None if it could not be made; the parts are then looked for one after the other.
    automaton: Option<AhoCorasick>,
}

impl Parts {
    fn of(table: &'static [&'static str]) -> Self {
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(table)
            .ok();
        Self { table, automaton }
    }

    fn is_in(&self, text: &str) -> bool {
        match &self.automaton {
            Some(automaton) => automaton.is_match(text),
            None => self.table.iter().any(|part| contains(text, part)),
        }
    }
}

/// `needle` is lower-case ASCII and not empty.
fn contains(text: &str, needle: &str) -> bool {
    text.as_bytes().windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle.as_bytes()))
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The number after `name`; one that does not fit is a high one.
fn version(agent: &str, name: &str) -> Option<u32> {
    let bytes = agent.as_bytes();
    let at = bytes.windows(name.len()).position(|part| part.eq_ignore_ascii_case(name.as_bytes()))?;
    let digits = bytes.get(at + name.len()..)?.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(None, |number: Option<u32>, digit| {
        Some(number.unwrap_or_default().saturating_mul(10).saturating_add(u32::from(digit - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::ScannerDetector as S;
    use super::*;
    use proptest::prelude::*;

    const CHROME: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/";

    #[test]
    fn every_entry_of_both_tables_is_a_probe() {
        for extension in SCANNER_EXTENSIONS {
            assert!(S::is_scanner_path(&format!("/.{extension}")), "{extension}");
            assert!(S::is_scanner_path(&format!("/backup/site.{}", extension.to_uppercase())), "{extension}");
        }
        for part in SCANNER_PATHS {
            assert!(S::is_scanner_path(&format!("/x{part}x")), "{part}");
            assert!(S::is_scanner_path(&part.to_uppercase()), "{part}");
        }
    }

    #[test]
    fn ordinary_paths_are_none() {
        for path in [
            "/",
            "",
            "/index.html",
            "/.well-known/jwks.json",
            "/docs/env",
            "/a.php/b",
            "/x.gzip",
            "/php",
            "/environment",
            "/r\u{e9}sum\u{e9}.pdf",
        ] {
            assert!(!S::is_scanner_path(path), "{path}");
        }
    }

    #[test]
    fn agents_of_scanners_are_told_from_browsers() {
        for needle in SCANNER_AGENTS {
            assert!(S::is_scanner_agent(&format!("Some Client {} 1.0", needle.to_uppercase())), "{needle}");
        }
        for (agent, want) in [
            ("Mozilla/5.0", true),
            ("mozilla/5.0", true),
            ("WordPress/6.4; https://example.org", true),
            ("about WordPress/6.4 things", false),
            ("123456789", true),
            ("1234567890", false),
            ("", true),
            ("curl/7.88.1", true),
            ("curl/8.11.0 with a long tail", false),
            ("Wget/1.21.3", true),
            ("python-requests/2.31.0", true),
            ("python-requests/2.31.0 (shop-sync 4.2)", false),
            ("Go-http-client/2.0", true),
            ("Ruby agent", true),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:119.0) Gecko/20100101 Firefox/119.0", true),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", false),
            (&format!("{CHROME}119.0.0.0 Safari/537.36"), true),
            (&format!("{CHROME}120.0.0.0 Safari/537.36"), false),
            (&format!("{CHROME}99999999999 Safari/537.36"), false),
            (&format!("{CHROME} Safari/537.36"), false),
        ] {
            assert_eq!(S::is_scanner_agent(agent), want, "{agent}");
        }
    }

    #[test]
    fn more_than_thirty_requests_a_minute_are_fast() {
        for (count, seconds, want) in [
            (30, 60, false),
            (31, 60, true),
            (1, 2, false),
            (2, 2, true),
            (1, 0, true),
            (0, 0, false),
            (1, -5, true),
        ] {
            assert_eq!(S::is_high_velocity(count, seconds), want, "{count} in {seconds} s");
        }
    }

    #[test]
    fn the_first_hit_of_path_agent_velocity_decides() {
        let browser = format!("{CHROME}130.0.0.0 Safari/537.36");
        assert!(!S::is_scanner("/", Some(&browser), 1, 60));
        assert!(S::is_scanner("/.git", Some(&browser), 1, 60));
        assert!(S::is_scanner("/", Some("sqlmap/1.8"), 1, 60));
        assert!(S::is_scanner("/", None, 1, 60));
        assert!(S::is_scanner("/", Some(&browser), 40, 60));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_rules_panic(text in "\\PC{0,80}") {
            let _ = S::is_scanner(&text, Some(&text), 1, 1);
        }
    }
}
