//! Logs: JSON or text on standard error, with the redaction layer last (PL-86, SEC-104).

use std::sync::Arc;
use systemprompt_config::profile::runtime::{LogFormat, RuntimeConfig};
use systemprompt_security::governance::SecretScanner;
use systemprompt_security::redaction::Redactor;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Installs the subscriber of the process. Each `verbose` is one level more than the profile says. A second call changes
/// nothing.
pub fn init(config: &RuntimeConfig, verbose: u8, scanner: Arc<SecretScanner>) {
    let redactor = Redactor::new(scanner);
    let levels = ["error", "warn", "info", "debug", "trace"];
    let at = levels.iter().position(|level| *level == config.log_level.as_str()).unwrap_or(2);
    let level = levels.get(at + usize::from(verbose)).copied().unwrap_or("trace");
    let filter = EnvFilter::new(level);
    let base = tracing_subscriber::registry().with(filter);
    let writer = redactor.writer(std::io::stderr);
    // The error is that a subscriber is there already.
    let _ = match config.log_format {
        LogFormat::Json => base.with(tracing_subscriber::fmt::layer().json().with_writer(writer)).try_init(),
        LogFormat::Text => {
            let layer = tracing_subscriber::fmt::layer().fmt_fields(redactor.fields()).with_ansi(false);
            base.with(layer.with_writer(writer)).try_init()
        }
    };
}
