//! Which names a request may call this server by, and from which pages it may come (SEC-14, MCP-18): on a loopback bind both
//! keep a page of another site from talking to it through the browser (DNS rebinding).

use super::cors::{self, Sharing};
use http::{Method, Request, Uri, header};
use std::net::IpAddr;
use systemprompt_config::profile::Profile;
use systemprompt_models::envelope::Envelope;
use systemprompt_models::{Code, Refusal};

/// On a loopback bind the Host must be a name of this deployment (DNS rebinding, SEC-14).
pub fn check_host<B>(request: &Request<B>, profile: &Profile, peer: IpAddr) -> Result<(), Refusal> {
    if !profile.server.host.is_loopback() || peer.is_unspecified() {
        return Ok(());
    }
    let host = request.headers().get(header::HOST).and_then(|v| v.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
    let Some(host) = host else { return Ok(()) };
    let name = host_name(host);
    let own = [Some(profile.api_external_url()), profile.server.api_internal_url.clone()];
    let is_own = own.iter().flatten().any(|url| {
        url.parse::<Uri>().ok().and_then(|u| u.host().map(|h| h.eq_ignore_ascii_case(name))).unwrap_or(false)
    });
    if is_own || is_loopback_name(name) {
        return Ok(());
    }
    Err(Refusal::new(Code::HostNotAllowed, "the Host header names another server"))
}

/// A page of another origin may not talk to an MCP server (MCP-18), and on a loopback bind it may change nothing (SEC-14).
/// Clients that are no browsers send no Origin.
pub fn check_origin<B>(request: &Request<B>, profile: &Profile, envelope: Envelope) -> Result<(), Refusal> {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let server = &profile.server;
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && !request.headers().contains_key(header::UPGRADE);
    let on_loopback = server.host.is_loopback();
    // A form of a page that tells no referrer has the Origin `null`, and says by another header, which no page can set, where it
    // comes from; the Host was found to be ours.
    let is_own_page = request.headers().get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    if is_for_all_origins(request.uri().path()) || (is_own_page && envelope != Envelope::Mcp) {
        return Ok(());
    }
    if envelope != Envelope::Mcp && (is_safe || !on_loopback) {
        return Ok(());
    }
    let origin = origin.to_str().unwrap_or_default();
    let is_listed = server.cors_allowed_origins.iter().any(|listed| listed == origin)
        || origin == profile.api_external_url();
    let uri = origin.parse::<Uri>().ok();
    let own_port = uri.as_ref().filter(|uri| {
        uri.host().is_some_and(|host| is_loopback_name(host.trim_matches(['[', ']'])))
            && uri.port_u16() == Some(server.port)
    });
    // On a loopback bind the Host was found to be ours, so a page from there is our own.
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let is_own_host = on_loopback
        && uri.as_ref().and_then(Uri::authority).is_some_and(|authority| Some(authority.as_str()) == host);
    if is_listed || own_port.is_some() || is_own_host {
        return Ok(());
    }
    Err(Refusal::new(Code::OriginNotAllowed, "the Origin is none of this deployment's"))
}

/// Endpoints that read no cookie, and those to which pages of clients send a browser by a form of theirs.
fn is_for_all_origins(path: &str) -> bool {
    cors::sharing(path) == Sharing::Public
        || matches!(path, "/api/v1/core/oauth/authorize" | "/api/v1/core/oauth/logout")
}

/// The name in a `Host`, without port and brackets.
fn host_name(host: &str) -> &str {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.split(']').next().unwrap_or(inner);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_lose_port_and_brackets() {
        for (host, name, loopback) in [
            ("localhost:8080", "localhost", true),
            ("127.0.0.1:1", "127.0.0.1", true),
            ("[::1]:8080", "::1", true),
            ("evil.example", "evil.example", false),
            ("127.0.0.1.evil.example", "127.0.0.1.evil.example", false),
            ("10.0.0.1:80", "10.0.0.1", false),
        ] {
            assert_eq!(host_name(host), name);
            assert_eq!(is_loopback_name(host_name(host)), loopback, "{host}");
        }
    }
}
