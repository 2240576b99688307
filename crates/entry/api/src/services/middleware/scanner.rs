//! The path rule of the probe scanner (SEC-22, SEC-23): only a path that no route answers can be a probe, so that an API client
//! is never mistaken for one.

use systemprompt_config::profile::security::ScannerConfig;
use systemprompt_models::{Code, Refusal};
use systemprompt_security::services::scanner::ScannerDetector;

/// Value of `x-blocked-reason`.
pub const BLOCKED_REASON: &str = "scanner-path";

/// Refuses a probe. Asked for paths without a route.
pub fn check(config: &ScannerConfig, path: &str) -> Result<(), Refusal> {
    if !config.enabled || !ScannerDetector::is_scanner_path(path) || is_allowed(config, path) {
        return Ok(());
    }
    Err(Refusal::new(Code::ScannerBlocked, "the path is one that only probes ask for"))
}

/// `allow_paths` never re-allows `.env` or `.git`.
fn is_allowed(config: &ScannerConfig, path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    !lower.contains(".env")
        && !lower.contains(".git")
        && config.allow_paths.iter().any(|prefix| path.starts_with(prefix))
}
