//! The process-wide TLS provider: aws-lc-rs and nothing else.

use std::sync::Once;

/// Installs the provider. Every client calls it; further calls do nothing.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The only error is that the process installed one already, which is what is wanted.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}
