//! Redirect URIs (ID-17).

use url::Url;

/// Whether `given` is the registered URI: byte for byte, but for the port of a loopback address (RFC 8252 section 7.3).
pub fn matches(registered: &str, given: &str) -> bool {
    registered == given
        || without_loopback_port(registered).is_some_and(|known| without_loopback_port(given) == Some(known))
}

fn without_loopback_port(uri: &str) -> Option<(String, String)> {
    let url = Url::parse(uri).ok()?;
    let host = url.host_str()?;
    let is_loopback = url.scheme() == "http" && matches!(host, "127.0.0.1" | "[::1]" | "localhost");
    let rest = uri.strip_prefix("http://")?.strip_prefix(host)?;
    let rest =
        rest.strip_prefix(':').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    is_loopback.then(|| (host.to_owned(), rest.to_owned()))
}
