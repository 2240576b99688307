use super::*;
use ExtractionMethod::{AuthorizationHeader as H, Cookie as C, McpProxyHeader as M};
use TokenExtractionError as E;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

const A: &str = "header-token-0123456789";
const P: &str = "proxy-token-0123456789";
const K: &str = "cookie-token-0123456789";

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    map
}

/// What standard, browser_only and api_only find in each header set, and what each place misses.
#[test]
fn case_15_three_chains_over_twelve_header_sets() {
    type Found = Option<(&'static str, ExtractionMethod)>;
    type Row = (&'static [(&'static str, &'static str)], [Found; 3], &'static [(ExtractionMethod, E)]);
    const NONE: E = E::MissingAuthorizationHeader;
    let rows: [Row; 12] = [
        (&[], [None, None, None], &[(H, NONE), (M, E::MissingMcpProxyHeader), (C, E::MissingCookie)]),
        (
            &[("authorization", "Bearer header-token-0123456789")],
            [Some((A, H)); 3],
            &[(M, E::MissingMcpProxyHeader), (C, E::MissingCookie)],
        ),
        (
            &[("x-mcp-proxy-auth", "Bearer proxy-token-0123456789")],
            [Some((P, M)), None, None],
            &[(H, NONE), (C, E::MissingCookie)],
        ),
        (
            &[("cookie", "theme=dark; access_token=cookie-token-0123456789")],
            [Some((K, C)), Some((K, C)), None],
            &[(H, NONE), (M, E::MissingMcpProxyHeader)],
        ),
        (
            &[
                ("cookie", "access_token=cookie-token-0123456789"),
                ("x-mcp-proxy-auth", "bearer   proxy-token-0123456789"),
                ("authorization", "BEARER header-token-0123456789"),
            ],
            [Some((A, H)); 3],
            &[],
        ),
        (
            &[
                ("x-mcp-proxy-auth", "Bearer proxy-token-0123456789"),
                ("cookie", "access_token=cookie-token-0123456789"),
            ],
            [Some((P, M)), Some((K, C)), None],
            &[(H, NONE)],
        ),
        (
            &[
                ("authorization", "Basic dXNlcjpwYXNzd29yZA=="),
                ("cookie", "access_token=\"cookie-token-0123456789\""),
            ],
            [Some((K, C)), Some((K, C)), None],
            &[(H, E::InvalidAuthorizationFormat), (M, E::MissingMcpProxyHeader)],
        ),
        (
            &[
                ("authorization", "Bearer two header-tokens-0123456789"),
                ("x-mcp-proxy-auth", "proxy-token-0123456789"),
            ],
            [None, None, None],
            &[(H, E::InvalidAuthorizationFormat), (M, E::InvalidMcpProxyFormat), (C, E::MissingCookie)],
        ),
        (
            &[
                ("cookie", "access_token=cookie-token-0123456789"),
                ("cookie", "access_token=cookie-token-9876543210"),
            ],
            [None, None, None],
            &[(H, NONE), (M, E::MissingMcpProxyHeader), (C, E::InvalidCookieFormat)],
        ),
        (
            &[("cookie", "Access_Token=cookie-token-0123456789; xaccess_token=cookie-token-0123456789")],
            [None, None, None],
            &[(H, NONE), (M, E::MissingMcpProxyHeader), (C, E::TokenNotFoundInCookie)],
        ),
        (
            &[("authorization", "Bearer short"), ("cookie", "access_token=")],
            [None, None, None],
            &[(H, E::InvalidAuthorizationFormat), (M, E::MissingMcpProxyHeader), (C, E::InvalidCookieFormat)],
        ),
        (
            &[
                ("authorization", "Bearer header-token-0123456789"),
                ("authorization", "Bearer header-token-0123456789"),
                ("x-mcp-proxy-auth", "Bearer pr\u{f6}xy-token-0123456789"),
            ],
            [None, None, None],
            &[(H, E::InvalidAuthorizationFormat), (M, E::InvalidMcpProxyFormat), (C, E::MissingCookie)],
        ),
    ];
    let mut seen = std::collections::HashSet::new();
    for (lines, found, misses) in rows {
        let map = headers(lines);
        let chains = [TokenExtractor::standard(), TokenExtractor::browser_only(), TokenExtractor::api_only()];
        for (chain, want) in chains.iter().zip(found) {
            assert_eq!(chain.find(&map), want, "{lines:?} by {chain:?}");
            match chain.extract(&map) {
                Ok(token) => assert_eq!(Some((token.token.expose().as_str(), token.method)), want),
                Err(error) => {
                    seen.insert(error);
                    assert!(want.is_none());
                }
            }
        }
        assert_eq!(TokenExtractor::standard().explain(&map), misses, "{lines:?}");
        seen.extend(misses.iter().map(|(_, error)| *error));
    }
    assert_eq!(seen.len(), 8, "each of the eight errors occurs: {seen:?}");
}

#[test]
fn case_15_both_names_can_be_chosen() {
    let map = headers(&[
        ("x-proxy-token", "Bearer proxy-token-0123456789"),
        ("cookie", "sid=cookie-token-0123456789"),
    ]);
    let chain = TokenExtractor::standard();
    assert_eq!(chain.find(&map), None);
    assert_eq!(chain.clone().with_mcp_header_name("X-Proxy-Token").find(&map), Some((P, M)));
    assert_eq!(chain.with_cookie_name("sid").find(&map), Some((K, C)));
}

#[test]
fn an_own_order_counts_and_an_empty_list_finds_nothing() {
    let map = headers(&[
        ("authorization", "Bearer header-token-0123456789"),
        ("x-mcp-proxy-auth", "Bearer proxy-token-0123456789"),
    ]);
    assert_eq!(TokenExtractor::new(vec![M, H]).find(&map), Some((P, M)));
    assert_eq!(TokenExtractor::new(Vec::new()).extract(&map).err(), Some(E::NoTokenFound));
}

#[test]
fn a_token_has_16_to_8192_token68_characters() {
    for (token, ok) in [
        ("a".repeat(15), false),
        ("a".repeat(16), true),
        ("a".repeat(8192), true),
        ("a".repeat(8193), false),
        (format!("{}==", "-._~+/".repeat(4)), true),
        ("=".repeat(20), false),
        ("aaaaaaaa=aaaaaaaaa".to_owned(), false),
        ("aaaaaaaa,aaaaaaaaa".to_owned(), false),
    ] {
        assert_eq!(is_token(&token), ok, "{token}");
    }
}

#[test]
fn too_many_cookies_or_bytes_are_refused() {
    let many = format!("{}access_token={K}", "a=b; ".repeat(64));
    let long = format!("a={}; access_token={K}", "x".repeat(16 * 1024));
    let fits = format!("{}access_token={K}", "a=b; ".repeat(63));
    for (line, ok) in [(many, false), (long, false), (fits, true)] {
        let map = headers(&[("cookie", &line)]);
        assert_eq!(CookieExtractor::default().find(&map).is_ok(), ok);
    }
}

#[test]
fn the_api_key_header_has_no_scheme() {
    assert_eq!(api_key_header(&headers(&[])), Ok(None));
    assert_eq!(api_key_header(&headers(&[("x-api-key", A)])), Ok(Some(A)));
    for bad in ["Bearer header-token-0123456789", "short", ""] {
        assert!(api_key_header(&headers(&[("x-api-key", bad)])).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_extracted_or_refused_without_a_panic(
        authorization in proptest::collection::vec(any::<u8>(), 0..200),
        cookie in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut map = HeaderMap::new();
        for (name, bytes) in [("authorization", &authorization), ("x-mcp-proxy-auth", &authorization), ("cookie", &cookie)] {
            if let Ok(value) = HeaderValue::from_bytes(bytes) {
                map.append(name, value);
            }
        }
        let chain = TokenExtractor::standard();
        if let Some((token, _)) = chain.find(&map) {
            prop_assert!(is_token(token));
        } else {
            prop_assert_eq!(chain.explain(&map).len(), 3);
        }
    }

    #[test]
    fn a_cookie_among_others_is_found(before in "[a-z]{1,8}=[ -:<-~]{0,30}", token in "[A-Za-z0-9._-]{16,64}") {
        prop_assume!(!before.starts_with("access_token="));
        let map = headers(&[("cookie", &format!("{before}; access_token={token}; last=1"))]);
        prop_assert_eq!(CookieExtractor::default().find(&map), Ok(token.as_str()));
    }
}
