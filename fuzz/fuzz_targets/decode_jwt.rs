//! Any text as a token at every surface, and any bytes as claims under a good signature: no panic; without a good signature
//! nothing is accepted.

#![no_main]

use arc_swap::ArcSwap;
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use systemprompt_models::{ManualClock, Secret};
use systemprompt_security::jwt::{Surface, UnverifiedClaims, Verifier};
use systemprompt_security::keys::{ClassKeys, KeySet};

const SECRET: &str = "a secret of the fuzz targets, and of nothing else";
const HEADER: &str = r#"{"typ":"session+jwt","alg":"HS256","kid":"admin-1"}"#;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let classes = ClassKeys::derive(&Secret::from(SECRET)).expect("the secret is long enough");
    let keys = Arc::new(ArcSwap::from_pointee(KeySet::default()));
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    Verifier::new("http://localhost:8080", Arc::new(classes), keys, clock)
});

/// The key of admin tokens, derived as the product derives it (RFC 5869).
static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    let source = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(SECRET.as_bytes());
    let mut key = [0; 32];
    let info: [&[u8]; 1] = [b"systemprompt token admin-1"];
    source
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .expect("32 bytes can be derived");
    hmac::Key::new(hmac::HMAC_SHA256, &key)
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(claims) = UnverifiedClaims::decode(text) {
            let _ = claims.issuer();
        }
        let forged = !text.ends_with(&signature(text.rsplit_once('.').map_or("", |(input, _)| input)));
        for surface in Surface::ALL {
            let verified = VERIFIER.verify(text, surface);
            assert!(verified.is_err() || !forged, "a forged token was accepted");
        }
    }
    // The same bytes as claims that are signed, which shows what judges them to the fuzzer.
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(data));
    let token = format!("{input}.{}", signature(&input));
    if let Ok(verified) = VERIFIER.verify(&token, Surface::Api) {
        assert!(verified.claims.iss == "http://localhost:8080" && !verified.claims.sub.as_str().is_empty());
    }
});

fn signature(input: &str) -> String {
    URL_SAFE_NO_PAD.encode(hmac::sign(&KEY, input.as_bytes()))
}
