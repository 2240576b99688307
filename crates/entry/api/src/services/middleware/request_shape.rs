//! Requests whose form alone is wrong (SEC-15): nothing behind the edge has to wonder how to read them.

use crate::services::server::framing::Framing;
use http::{HeaderMap, HeaderName, Request, header};
use percent_encoding::percent_decode_str;
use systemprompt_models::{Code, Refusal};

/// Longest request target, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// Header of a proxy assertion, which only the internal listener lets through: it proves itself.
const ASSERTION: &str = "x-mcp-proxy-auth";
/// Names that only this deployment's own hops may set; they are taken off every request from outside (SEC-12).
const INTERNAL_HEADERS: [&str; 8] = [
    ASSERTION,
    "x-proxy-verified",
    "x-user-id",
    "x-user-type",
    "x-user-permissions",
    "x-client-id",
    "x-call-source",
    "x-client-cert",
];
/// And all names that begin so.
const INTERNAL_PREFIX: &str = "x-ssl-client-";
/// What a proxy says of the client; taken off unless the peer is a trusted one.
const FORWARDING_PREFIX: &str = "x-forwarded-";
/// Names by which a request shows that it came through a proxy.
const PROXY_MARKS: [&str; 3] = ["forwarded", "x-real-ip", "via"];

/// Whether some hop before us said that it passed the request on; kept for the handlers once the names are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied(pub bool);

/// Refuses what cannot be read in one way only.
pub fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let bad = |reason: &'static str| Err(Refusal::new(Code::BadRequest, reason));
    let target = request.uri();
    if target.path_and_query().map_or(0, |t| t.as_str().len()) > MAX_TARGET {
        return Err(Refusal::new(Code::UriTooLong, "the request target is longer than 8 KiB"));
    }
    for name in [header::AUTHORIZATION, header::HOST, header::CONTENT_LENGTH] {
        if request.headers().get_all(&name).iter().count() > 1 {
            return bad("Authorization, Host and Content-Length may be given once");
        }
    }
    if is_framed_oddly(request) {
        return bad(
            "the end of the body can be told in two ways: one Content-Length, or Transfer-Encoding: chunked",
        );
    }
    if target.query().is_some_and(has_token_in_query) {
        return bad("tokens are not taken from the query; send `Authorization: Bearer`");
    }
    if !is_plain_path(target.path()) {
        return bad("the path holds an encoded slash, a backslash, a NUL or a dot segment");
    }
    Ok(())
}

/// Whether another reader of the same bytes could see another request: both framings, or an encoding beside `chunked`. Nothing
/// more is read from such a connection.
pub fn is_framed_oddly<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (first, second) = (encodings.next(), encodings.next());
    let is_chunked = first.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let is_encoded = first.is_some() && (!is_chunked || second.is_some());
    is_encoded
        || (is_chunked && headers.contains_key(header::CONTENT_LENGTH))
        || request.extensions().get::<Framing>().is_some_and(Framing::is_ambiguous)
}

/// Takes internal names off, also in the spelling with `_`, and what an untrusted peer says of the client. On the internal
/// listener an assertion stays, under its exact name.
pub fn strip_internal(headers: &mut HeaderMap, is_trusted_peer: bool, is_internal: bool) -> Proxied {
    let mut proxied = false;
    let mut taken: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        let spelt = name.as_str();
        let hyphened = if spelt.contains('_') { spelt.replace('_', "-") } else { String::new() };
        let plain = if hyphened.is_empty() { spelt } else { &hyphened };
        let is_forwarding = plain == "forwarded" || plain.starts_with(FORWARDING_PREFIX);
        proxied |= is_forwarding || PROXY_MARKS.contains(&plain);
        let is_ours = INTERNAL_HEADERS.contains(&plain) || plain.starts_with(INTERNAL_PREFIX);
        let is_let_through = is_internal && spelt == ASSERTION;
        if (is_ours && !is_let_through) || (is_forwarding && !is_trusted_peer) {
            taken.push(name.clone());
        }
    }
    for name in taken {
        headers.remove(name);
    }
    Proxied(proxied)
}

fn has_token_in_query(query: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some("access_token"))
}

/// Whether a path means the same however often it is decoded.
fn is_plain_path(path: &str) -> bool {
    if !path.contains('%') {
        return is_plain_text(path);
    }
    let lower = path.to_ascii_lowercase();
    if lower.contains("%2f") || lower.contains("%5c") || lower.contains("%00") {
        return false;
    }
    let once = percent_decode_str(path).collect::<Vec<u8>>();
    let once = String::from_utf8_lossy(&once).into_owned();
    let twice = percent_decode_str(&once).collect::<Vec<u8>>();
    let twice = String::from_utf8_lossy(&twice).into_owned();
    // A slash that appears only when decoding twice would move the request to another route.
    let slashes = |text: &str| text.bytes().filter(|b| *b == b'/').count();
    is_plain_text(&once) && is_plain_text(&twice) && slashes(&twice) == slashes(path)
}

fn is_plain_text(path: &str) -> bool {
    !path.contains(['\0', '\\']) && !path.split('/').any(|segment| segment == "." || segment == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_requests_are_refused() {
        for (path, fine) in [
            ("/api/v1/openapi.json", true),
            ("/a%20b", true),
            ("/100%25", true),
            ("/a/../b", false),
            ("/a/%2e%2e/b", false),
            ("/a/%252e%252e/b", false),
            ("/a%2fb", false),
            ("/a%252fb", false),
            ("/a%5cb", false),
            ("/a%00", false),
            ("/x?access_token=abc", false),
            ("/x?my_access_token=abc", true),
        ] {
            let request = Request::builder().uri(path).body(()).unwrap();
            assert_eq!(check(&request).is_ok(), fine, "{path}");
        }
        let twice = Request::builder().uri("/").header("authorization", "a").header("authorization", "b");
        assert!(check(&twice.body(()).unwrap()).is_err());
        for (encodings, length, odd) in [
            (&["chunked"][..], None, false),
            (&["Chunked"], None, false),
            (&["chunked"], Some("5"), true),
            (&["gzip, chunked"], None, true),
            (&["gzip", "chunked"], None, true),
            (&["chunked", "chunked"], None, true),
            (&[], Some("5"), false),
        ] {
            let request = Request::builder().uri("/");
            let request = encodings.iter().fold(request, |r, e| r.header("transfer-encoding", *e));
            let request = length.into_iter().fold(request, |r, l| r.header("content-length", l));
            let request = request.body(()).unwrap();
            assert_eq!(is_framed_oddly(&request), odd, "{encodings:?} {length:?}");
            assert_eq!(check(&request).is_err(), odd);
        }
        let long = Request::builder().uri(format!("/{}", "a".repeat(9000))).body(()).unwrap();
        assert_eq!(check(&long).unwrap_err().code, Code::UriTooLong);
    }

    #[test]
    fn internal_names_never_come_from_outside() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user-id", "root".parse().unwrap());
        headers.insert("x_user_id", "root".parse().unwrap());
        headers.insert("x-ssl-client-verify", "SUCCESS".parse().unwrap());
        headers.insert("x_proxy_verified", "1".parse().unwrap());
        headers.insert("x-trace-id", "kept".parse().unwrap());
        assert_eq!(strip_internal(&mut headers, false, false), Proxied(false));
        assert_eq!(headers.len(), 1);
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x_forwarded_host"] {
            headers.insert(name, "1.2.3.4".parse().unwrap());
        }
        assert_eq!(strip_internal(&mut headers, true, false), Proxied(true));
        assert_eq!(headers.len(), 5);
        assert_eq!(strip_internal(&mut headers, false, false), Proxied(true));
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn the_internal_listener_lets_an_assertion_through_and_no_other_name() {
        let mut headers = HeaderMap::new();
        for name in
            ["x-mcp-proxy-auth", "x_mcp_proxy_auth", "x-mcp-proxy_auth", "x-user-id", "x-proxy-verified"]
        {
            headers.insert(name, "Bearer claimed".parse().unwrap());
        }
        strip_internal(&mut headers, false, true);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-mcp-proxy-auth"]);
        strip_internal(&mut headers, false, false);
        assert!(headers.is_empty());
    }
}
