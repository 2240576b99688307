//! Where the scanner rules bite (SEC-23). A path is judged only if no route answers it, so that an API client is never mistaken
//! for a probe; agent and speed only on what browsers ask for, from somebody who showed no valid credential.

use http::{HeaderMap, Method, header};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use percent_encoding::percent_decode_str;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use systemprompt_config::profile::security::{AutoBan, ScannerConfig};
use systemprompt_models::{Code, Millis, Refusal};
use systemprompt_security::services::scanner::ScannerDetector;

/// Values of `x-blocked-reason`, and of `policy` in the body.
pub const PATH: &str = "scanner-path";
pub const AGENT: &str = "scanner-agent";
pub const VELOCITY: &str = "scanner-velocity";

/// Clients whose hits are remembered.
const MAX_CLIENTS: u64 = 65_536;
/// Longest `security.scanner.auto_ban.window_s`.
const REMEMBERED: Duration = Duration::from_hours(24);
/// Window of the speed rule.
const VELOCITY_WINDOW: Millis = 60_000;
/// First segments under which programs call: never judged by agent or speed.
const MACHINE: [&str; 8] = ["api", "v1", "v0.1", ".well-known", "health", "metrics", "protocol", "managed"];
/// `Sec-Fetch-Dest` of what a page loads besides itself.
const ASSETS: [&str; 5] = ["script", "style", "image", "font", "audio"];

/// Refuses a probe. Asked for paths without a route.
pub fn check_path(config: &ScannerConfig, path: &str, client: IpAddr) -> Result<(), Refusal> {
    if !config.enabled || is_exempt(config, client) {
        return Ok(());
    }
    let path = percent_decode_str(path).decode_utf8_lossy();
    let bare = path.trim_end_matches('/');
    // The console has pages with names like these; its files have none of these endings.
    let is_console = bare == "/console" || bare.starts_with("/console/");
    let is_probe = ScannerDetector::has_scanner_extension(bare)
        || (!is_console && ScannerDetector::is_scanner_path(&path));
    if !is_probe || is_allowed(config, &path) {
        return Ok(());
    }
    Err(blocked(Code::ScannerBlocked, PATH, "the path is one that only probes ask for"))
}

/// Whether a request without a route is what a browser asks for: the site lives where no program calls.
pub fn is_browser_class(method: &Method, path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    (*method == Method::GET || (*method == Method::HEAD && path != "/")) && !MACHINE.contains(&first)
}

/// Refuses agents of scanners and of browsers that nobody uses any more. Asked for the browser class.
pub fn check_agent(config: &ScannerConfig, headers: &HeaderMap, client: IpAddr) -> Result<(), Refusal> {
    if !config.enabled || client.is_loopback() || is_exempt(config, client) {
        return Ok(());
    }
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let Some(agent) = agent else {
        return Err(blocked(Code::ScannerBlocked, AGENT, "a browser says which one it is"));
    };
    let lower = agent.to_ascii_lowercase();
    if !ScannerDetector::is_scanner_agent(agent)
        || config.allow_agents.iter().any(|part| lower.contains(&part.to_ascii_lowercase()))
    {
        return Ok(());
    }
    let reason = if ScannerDetector::is_outdated_browser(agent) {
        "this browser is outdated: pages need Chrome or Firefox 120 or a later one"
    } else {
        "the agent is one that scanners show"
    };
    Err(blocked(Code::ScannerBlocked, AGENT, reason))
}

/// `allow_paths` never re-allows `.env`, `.git` or a dot segment (which no request with a path like that survives anyway).
fn is_allowed(config: &ScannerConfig, path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let is_dotted = lower.split('/').any(|segment| matches!(segment, "." | ".."));
    !lower.contains(".env")
        && !lower.contains(".git")
        && !is_dotted
        && config.allow_paths.iter().any(|prefix| path.starts_with(prefix))
}

fn is_exempt(config: &ScannerConfig, client: IpAddr) -> bool {
    config.allow_cidrs.iter().any(|network| network.contains(client))
}

fn blocked(code: Code, policy: &'static str, reason: &'static str) -> Refusal {
    Refusal { policy: Some(policy.into()), ..Refusal::new(code, reason) }
}

/// Requests of one client within a window.
#[derive(Debug, Default)]
struct Window {
    began: Millis,
    count: u32,
}

impl Window {
    /// Counts one; returns the count of the window, and how long the window still lasts.
    fn count(&mut self, now: Millis, length: Millis) -> (u32, Millis) {
        if now < self.began || now - self.began >= length {
            *self = Self { began: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        (self.count, self.began + length - now)
    }
}

/// What clients did lately: hits of the path rule, and documents. Of too many clients the least recently seen are forgotten.
#[derive(Debug)]
pub struct Watch {
    hits: Cache<IpAddr, Arc<Mutex<Window>>>,
    documents: Cache<IpAddr, Arc<Mutex<Window>>>,
}

impl Default for Watch {
    fn default() -> Self {
        let cache = |idle| {
            Cache::builder()
                .max_capacity(MAX_CLIENTS)
                .time_to_idle(idle)
                .eviction_policy(EvictionPolicy::lru())
                .build()
        };
        Self { hits: cache(REMEMBERED), documents: cache(Duration::from_mins(2)) }
    }
}

impl Watch {
    /// Counts a hit of the path rule; true for the one that earns a ban.
    pub fn is_enough(&self, config: &AutoBan, client: IpAddr, now: Millis) -> bool {
        let length = Millis::from(config.window_s) * 1000;
        config.enabled && count(&self.hits, client, now, length).0 == config.hits
    }

    /// Refuses documents that come faster than a person reads. Asked for the browser class.
    pub fn check_velocity(
        &self,
        config: &ScannerConfig,
        headers: &HeaderMap,
        client: IpAddr,
        now: Millis,
    ) -> Result<(), Refusal> {
        let kind = headers.get("sec-fetch-dest").and_then(|value| value.to_str().ok());
        let is_asset = kind.is_some_and(|kind| ASSETS.contains(&kind));
        if !config.enabled || is_asset || client.is_loopback() || is_exempt(config, client) {
            return Ok(());
        }
        let (count, left) = count(&self.documents, client, now, VELOCITY_WINDOW);
        if !ScannerDetector::is_high_velocity(u64::from(count), VELOCITY_WINDOW / 1000) {
            return Ok(());
        }
        let refusal = blocked(Code::RateLimited, VELOCITY, "pages are asked for faster than a person reads");
        Err(refusal.with_retry_after(u32::try_from(left.max(1)).unwrap_or(u32::MAX).div_ceil(1000)))
    }
}

fn count(
    cache: &Cache<IpAddr, Arc<Mutex<Window>>>,
    client: IpAddr,
    now: Millis,
    length: Millis,
) -> (u32, Millis) {
    let window = cache.get_with(client, Arc::default);
    window.lock().unwrap_or_else(PoisonError::into_inner).count(now, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use systemprompt_config::profile::values::Cidr;

    const NOW: Millis = 1_800_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn allowed_paths_never_reach_dot_files_and_encodings_hide_nothing() {
        let config = ScannerConfig {
            allow_paths: vec!["/".to_owned()],
            allow_cidrs: vec![Cidr("192.0.2.0/24".parse().unwrap())],
            ..ScannerConfig::default()
        };
        for (config, client, path, passes) in [
            (&ScannerConfig::default(), "203.0.113.7", "/wp-admin/x", false),
            (&ScannerConfig::default(), "203.0.113.7", "/%77p-admin/x", false),
            (&ScannerConfig::default(), "203.0.113.7", "/%2eenv", false),
            (&ScannerConfig::default(), "203.0.113.7", "/.env/", false),
            (&ScannerConfig::default(), "203.0.113.7", "/console/admin", true),
            (&ScannerConfig::default(), "203.0.113.7", "/console/x.php", false),
            (&ScannerConfig::default(), "203.0.113.7", "/console-x/admin", false),
            (&ScannerConfig::default(), "127.0.0.1", "/.git", false),
            (&config, "203.0.113.7", "/wp-admin/x", true),
            (&config, "203.0.113.7", "/.env", false),
            (&config, "203.0.113.7", "/a/%2egit/config/", false),
            (&config, "192.0.2.9", "/.env", true),
            (&ScannerConfig { enabled: false, ..config.clone() }, "203.0.113.7", "/.env", true),
        ] {
            assert_eq!(check_path(config, path, ip(client)).is_ok(), passes, "{path} from {client}");
        }
    }

    #[test]
    fn twenty_hits_within_the_window_earn_one_ban() {
        let (watch, config) = (Watch::default(), AutoBan::default());
        let client = ip("203.0.113.7");
        let earned = (0..25).filter(|_| watch.is_enough(&config, client, NOW)).count();
        assert_eq!(earned, 1);
        assert!((0..19).all(|_| !watch.is_enough(&config, ip("203.0.113.8"), NOW)));
        assert!(!watch.is_enough(&config, ip("203.0.113.8"), NOW + 600_000), "the window is over");
        let off = AutoBan { enabled: false, ..config };
        assert!((0..25).all(|_| !watch.is_enough(&off, ip("203.0.113.9"), NOW)));
    }

    #[test]
    fn the_thirty_first_page_of_a_minute_is_too_many_and_assets_are_none() {
        let (watch, config) = (Watch::default(), ScannerConfig::default());
        let (page, client) = (HeaderMap::new(), ip("203.0.113.7"));
        let mut script = HeaderMap::new();
        script.insert("sec-fetch-dest", "script".parse().unwrap());
        assert!((0..200).all(|_| watch.check_velocity(&config, &script, client, NOW).is_ok()));
        assert!((0..200).all(|_| watch.check_velocity(&config, &page, ip("127.0.0.1"), NOW).is_ok()));
        let passed =
            (0..40).take_while(|_| watch.check_velocity(&config, &page, client, NOW).is_ok()).count();
        assert_eq!(passed, 30);
        let refusal = watch.check_velocity(&config, &page, client, NOW + 20_000).unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after), (Code::RateLimited, Some(40)));
        assert!(watch.check_velocity(&config, &page, client, NOW + 60_000).is_ok());
    }

    #[test]
    fn programs_are_never_of_the_browser_class() {
        for (method, path, is_browser) in [
            (Method::GET, "/", true),
            (Method::HEAD, "/", false),
            (Method::GET, "/docs/start", true),
            (Method::GET, "/console/people", true),
            (Method::POST, "/docs/start", false),
            (Method::GET, "/api/v2/unknown", false),
            (Method::GET, "/v1/unknown", false),
            (Method::GET, "/.well-known/unknown", false),
            (Method::GET, "/health/unknown", false),
            (Method::GET, "/apis", true),
        ] {
            assert_eq!(is_browser_class(&method, path), is_browser, "{method} {path}");
        }
    }
}
