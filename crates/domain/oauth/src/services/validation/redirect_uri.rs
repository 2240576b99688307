//! Redirect URIs: which may be registered, and when a given one is a registered one (ID-17, RFC 9700 section 4.1.3). Both look at
//! the string as it was written: a parser that repairs what it reads would let two parties see two addresses.

use crate::models::clients::ApplicationType;
use url::Url;

/// Longest URI, in bytes.
pub const MAX_URI: usize = 2048;
/// Most redirect URIs of a client.
pub const MAX_URIS: usize = 20;
/// Hosts of this computer as a URI writes them; their port is the client's to choose (RFC 8252 section 7.3).
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];
/// Schemes that run or show what they carry.
const DANGEROUS: [&str; 6] = ["javascript", "data", "file", "about", "blob", "vbscript"];

/// Why a URI cannot be registered; the sentence says what is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectFault {
    #[error("an absolute URI of at most 2048 ASCII characters")]
    Form,
    #[error("no space, control character, backslash or asterisk")]
    Character,
    #[error("no fragment")]
    Fragment,
    #[error("no user name or password")]
    UserInfo,
    #[error("https, http to this computer, or a private-use scheme with a dot")]
    Scheme,
    #[error("a web client needs https")]
    NotForWeb,
}

/// Whether `uri` may be registered by a client of this type.
///
/// # Errors
/// What is wrong with it.
pub fn check(uri: &str, application: ApplicationType) -> Result<(), RedirectFault> {
    let is_bad = |b: u8| b.is_ascii_control() || b" \\*<>\"`{}|^".contains(&b);
    if uri.bytes().any(is_bad) {
        return Err(RedirectFault::Character);
    }
    if uri.is_empty() || uri.len() > MAX_URI || !uri.is_ascii() {
        return Err(RedirectFault::Form);
    }
    if uri.contains('#') {
        return Err(RedirectFault::Fragment);
    }
    let (scheme, rest) = uri.split_once(':').ok_or(RedirectFault::Form)?;
    let url = Url::parse(uri).map_err(|_| RedirectFault::Form)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RedirectFault::UserInfo);
    }
    match scheme {
        "https" | "http" => {
            let authority = authority(rest).ok_or(RedirectFault::Form)?;
            if authority.contains('@') {
                return Err(RedirectFault::UserInfo);
            }
            if scheme == "http" {
                let (host, _) = split_port(authority).ok_or(RedirectFault::Form)?;
                if !LOOPBACK.contains(&host) {
                    return Err(RedirectFault::Scheme);
                }
                return private(application);
            }
            if url.host().is_none() { Err(RedirectFault::Form) } else { Ok(()) }
        }
        other if DANGEROUS.iter().any(|bad| bad.eq_ignore_ascii_case(other)) => Err(RedirectFault::Scheme),
        other if other.contains('.') && !rest.is_empty() => {
            if authority(rest).is_some_and(|authority| authority.contains('@')) {
                return Err(RedirectFault::UserInfo);
            }
            private(application)
        }
        _ => Err(RedirectFault::Scheme),
    }
}

fn private(application: ApplicationType) -> Result<(), RedirectFault> {
    if application == ApplicationType::Native { Ok(()) } else { Err(RedirectFault::NotForWeb) }
}

/// The type of a client that does not say: native if it is answered on this computer or through a private scheme.
pub fn application_type_of<'a>(mut uris: impl Iterator<Item = &'a str>) -> ApplicationType {
    if uris.any(|uri| !uri.starts_with("https:")) { ApplicationType::Native } else { ApplicationType::Web }
}

/// Whether `given` is the `registered` URI: byte for byte, but for the port of a program on this computer.
pub fn matches(registered: &str, given: &str) -> bool {
    if registered == given {
        return true;
    }
    match (portless(registered), portless(given)) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => false,
    }
}

/// (host, path and query) of a plain-http URI to this computer.
fn portless(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http:")?;
    let authority = authority(rest)?;
    let (host, port) = split_port(authority)?;
    let is_port = port.is_none_or(|port| {
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let tail = rest.get(2 + authority.len()..)?;
    (is_port && LOOPBACK.contains(&host)).then_some((host, tail))
}

/// What stands between `//` and the path.
fn authority(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("//")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.get(..end).filter(|authority| !authority.is_empty())
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let from = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(at) = authority.get(from..)?.find(':') else { return Some((authority, None)) };
    Some((authority.get(..from + at)?, authority.get(from + at + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ApplicationType::{Native, Web};

    #[test]
    fn id_112_a_given_uri_is_the_registered_one_byte_for_byte() {
        let registered = "https://app.example/cb";
        assert!(matches(registered, registered));
        for other in [
            "https://APP.example/cb",
            "HTTPS://app.example/cb",
            "https://app.example/CB",
            "https://app.example/cb/",
            "https://app.example/cb?x=1",
            "https://app.example/cb?",
            "https://app.example/%63b",
            "https://app.example/./cb",
            "https://app.example:443/cb",
            "https://app.example:8443/cb",
            "https://evil.app.example/cb",
            "https://app.example.evil.test/cb",
            "https://user@app.example/cb",
            "https://app.example@evil.test/cb",
            "https://app.example/cb#x",
            "http://app.example/cb",
            "https://app.example/cb ",
            "",
        ] {
            assert!(!matches(registered, other), "{other}");
        }
        assert!(!matches("https://app.example/cb?a=1", "https://app.example/cb?a=2"));
    }

    #[test]
    fn id_112_the_port_is_free_on_this_computer_and_nothing_else_is() {
        for (registered, given) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb"),
            ("http://127.0.0.1:3000/cb?x=1", "http://127.0.0.1:1/cb?x=1"),
            ("http://[::1]/cb", "http://[::1]:50000/cb"),
            ("http://localhost:8080/cb", "http://localhost/cb"),
            ("http://localhost:8080", "http://localhost:9"),
        ] {
            assert!(matches(registered, given), "{registered} {given}");
        }
        for (registered, given) in [
            ("http://127.0.0.1/cb", "http://localhost/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.2/cb"),
            ("http://127.0.0.1/cb", "http://[::1]/cb"),
            ("http://127.0.0.1/cb", "https://127.0.0.1:9/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:9/cb/"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:9/cb?x"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:99999/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:80@evil.test/cb"),
            ("http://127.0.0.1/cb", "http://x@127.0.0.1:80/cb"),
            ("http://localhost/cb", "http://localhost.evil.test:80/cb"),
            ("http://[::1]/cb", "http://[::2]:9/cb"),
            ("https://localhost/cb", "https://localhost:9/cb"),
        ] {
            assert!(!matches(registered, given), "{registered} {given}");
        }
    }

    #[test]
    fn what_may_be_registered() {
        for (uri, application) in [
            ("https://app.example/cb", Web),
            ("https://app.example", Native),
            ("https://app.example:8443/cb?x=1", Web),
            ("https://192.0.2.7/cb", Web),
            ("http://localhost/cb", Native),
            ("http://127.0.0.1:3000/cb", Native),
            ("http://[::1]:3000/cb", Native),
            ("com.example.app:/cb", Native),
            ("com.example.app://cb", Native),
        ] {
            assert_eq!(check(uri, application), Ok(()), "{uri}");
        }
        for (uri, application, fault) in [
            ("", Native, RedirectFault::Form),
            ("/cb", Native, RedirectFault::Form),
            ("app.example/cb", Native, RedirectFault::Form),
            ("https:///cb", Native, RedirectFault::Form),
            ("https:app.example/cb", Native, RedirectFault::Form),
            ("https://", Native, RedirectFault::Form),
            ("https://b\u{fc}cher.example/cb", Web, RedirectFault::Form),
            ("https://app.example/cb#x", Web, RedirectFault::Fragment),
            ("https://app.example/cb#", Web, RedirectFault::Fragment),
            ("https://u@app.example/cb", Web, RedirectFault::UserInfo),
            ("https://u:p@app.example/cb", Web, RedirectFault::UserInfo),
            ("https://@app.example/cb", Web, RedirectFault::UserInfo),
            ("https://*.app.example/cb", Web, RedirectFault::Character),
            ("https://app.example/*", Web, RedirectFault::Character),
            ("https://app.example\\@evil.test/", Web, RedirectFault::Character),
            ("https://app.example/a b", Web, RedirectFault::Character),
            ("https://app.example/\n", Web, RedirectFault::Character),
            ("http://app.example/cb", Native, RedirectFault::Scheme),
            ("http://localhost.evil.test/cb", Native, RedirectFault::Scheme),
            ("http://127.1/cb", Native, RedirectFault::Scheme),
            ("http://2130706433/cb", Native, RedirectFault::Scheme),
            ("http://10.0.0.1/cb", Native, RedirectFault::Scheme),
            ("javascript:alert(1)", Native, RedirectFault::Scheme),
            ("JavaScript:alert(1)", Native, RedirectFault::Scheme),
            ("data:text/html,x", Native, RedirectFault::Scheme),
            ("file:///etc/passwd", Native, RedirectFault::Scheme),
            ("about:blank", Native, RedirectFault::Scheme),
            ("vbscript:x", Native, RedirectFault::Scheme),
            ("blob:https://app.example/x", Native, RedirectFault::Scheme),
            ("myapp:/cb", Native, RedirectFault::Scheme),
            ("http://localhost/cb", Web, RedirectFault::NotForWeb),
            ("com.example.app:/cb", Web, RedirectFault::NotForWeb),
        ] {
            assert_eq!(check(uri, application), Err(fault), "{uri}");
        }
        assert_eq!(check(&format!("https://a.example/{}", "x".repeat(2048)), Web), Err(RedirectFault::Form));
    }

    #[test]
    fn a_client_that_does_not_say_is_native_if_it_listens_on_this_computer() {
        assert_eq!(application_type_of(["https://a.example/"].into_iter()), Web);
        assert_eq!(application_type_of(["https://a.example/", "http://localhost/"].into_iter()), Native);
        assert_eq!(application_type_of(["com.example.app:/cb"].into_iter()), Native);
    }
}
