//! Any bytes as Cookie headers, under several names: no panic; a name given twice never yields a token.

#![no_main]

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use systemprompt_security::extraction::CookieExtractor;

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(16) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    for name in ["access_token", "sid", "", "=", "a;b"] {
        let extractor = CookieExtractor::new(name);
        let Ok(token) = extractor.find(&headers) else { continue };
        assert!(token.is_ascii() && token.len() >= 16);
        let tossed = HeaderValue::from_str(&format!("{name}={token}"));
        if let (Ok(tossed), false) = (tossed, name.contains(';')) {
            let mut twice = headers.clone();
            twice.append(COOKIE, tossed);
            assert!(extractor.find(&twice).is_err(), "a cookie given twice counted");
        }
    }
});
