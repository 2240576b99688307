//! Any headers through every extractor: no panic, and what is found is a token of the accepted form that stands in the headers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use systemprompt_fuzz::headers;
use systemprompt_security::extraction::token::{API_KEY_HEADER, TOKEN_BYTES, api_key_header};
use systemprompt_security::extraction::{ExtractionMethod, HeaderExtractor, TokenExtractor};

fuzz_target!(|data: &[u8]| {
    let headers = headers(data);
    let mcp = vec![ExtractionMethod::McpProxyHeader, ExtractionMethod::AuthorizationHeader];
    for extractor in [
        TokenExtractor::standard(),
        TokenExtractor::browser_only(),
        TokenExtractor::api_only(),
        TokenExtractor::new(mcp),
        TokenExtractor::standard().with_cookie_name("sid").with_mcp_header_name("x-proxy"),
    ] {
        let misses = extractor.explain(&headers);
        match extractor.find(&headers) {
            Some((token, method)) => {
                assert!(
                    TOKEN_BYTES.contains(&token.len())
                        && token.is_ascii()
                        && !token.contains([' ', ';', '"'])
                );
                assert!(
                    headers
                        .values()
                        .any(|v| v.as_bytes().windows(token.len()).any(|w| w == token.as_bytes()))
                );
                assert!(misses.iter().all(|(missed, _)| *missed != method));
            }
            None => assert!(!misses.is_empty()),
        }
    }
    if let Ok(Some(key)) = api_key_header(&headers) {
        assert!(headers.get(API_KEY_HEADER).is_some_and(|value| value.as_bytes() == key.as_bytes()));
    }
    let _ = HeaderExtractor::extract(&headers);
});
