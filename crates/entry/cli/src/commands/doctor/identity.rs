//! `doctor identity`: the rules of RFC 9700 and of the metadata that can be tried on a live server without changing anything (ID-136).
//! All but the last need no credential. What needs tokens is tried by the tests of the project.

use super::{Check, report};
use crate::client::{Answer, Ask, Client, encoded, server_url};
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::Output;
use crate::running;
use serde_json::Value;
use url::{Host, Url};

const BASE: &str = "/api/v1/core/oauth";
const OPENID: &str = "/.well-known/openid-configuration";
const SERVER: &str = "/.well-known/oauth-authorization-server";
const JWKS: &str = "/.well-known/jwks.json";
/// An origin that is nobody's.
const STRANGER: &str = "https://stranger.invalid";
/// Members of a JWK that only its owner may have.
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// Pages of clients that are looked at, and clients that are named.
const MAX_PAGES: usize = 100;
const MAX_NAMED: usize = 5;

/// What a rule came to: what was seen, or what is wrong with what mends it.
type Outcome = Result<String, (String, &'static str)>;

pub async fn run(globals: &Globals, json: bool) -> Result<Exit, CliError> {
    let client = Client::at(&address(globals).await?, None)?;
    let metadata = client.json("the metadata cannot be read", Ask::get(OPENID)).await?;
    // Pages stand under the external host alone; on one machine that is another name of the same server.
    let external = text(&metadata, "authorization_endpoint").strip_suffix("/api/v1/core/oauth/authorize");
    let pages = match external.filter(|url| is_loopback(url) && is_loopback(client.url())) {
        Some(url) => Client::at(url, None)?,
        None => Client::at(client.url(), None)?,
    };
    let probe = Probe { client, pages, metadata };
    let mut checks = Vec::new();
    for (name, outcome) in [
        ("ID-8 issuer", probe.issuer()),
        ("ID-28 metadata", probe.documents().await?),
        ("ID-30 published keys", probe.keys().await?),
        ("ID-29 protected resources", probe.resources().await?),
        ("ID-32 health", probe.health().await?),
        ("ID-113 no open redirector", probe.redirects().await?),
        ("ID-114 PKCE, and no downgrade", probe.pkce()),
        ("ID-119 no password grant, no implicit", probe.grants()),
        ("ID-121 pages are framed by nobody", probe.framing().await?),
        ("ID-122 CORS", probe.cors().await?),
        ("ID-125 mix-up defence", probe.issuer_in_answers()),
        ("ID-127 no token in an address", probe.query_tokens().await?),
        ("ID-128 proxy headers", probe.forged().await?),
        ("ID-133 pages load nothing foreign", probe.foreign().await?),
    ] {
        checks.push(match outcome {
            Ok(seen) => Check::pass(name, seen),
            Err((wrong, fix)) => Check::fail(name, wrong, fix),
        });
    }
    checks.push(signable(globals, &probe.metadata).await?);
    report(Output::new(globals).as_json(json), &checks)
}

/// Whether every client gets its ID tokens signed as it registered. Only an administrator sees the clients.
async fn signable(globals: &Globals, metadata: &Value) -> Result<Check, CliError> {
    const NAME: &str = "ID-30 keys for the ID tokens of clients";
    let client = Client::connect(globals)?;
    let known = words(metadata, "id_token_signing_alg_values_supported");
    let (mut seen, mut without, mut cursor) = (0, Vec::new(), String::new());
    for _ in 0..MAX_PAGES {
        let path = format!("/api/v1/admin/clients?limit=200&cursor={}", encoded(&cursor));
        let answer = client.send(Ask::get(&path)).await?;
        if answer.status != 200 {
            return Ok(Check::skip(NAME, "sign in as an administrator to have the clients looked at"));
        }
        let page = answer.json();
        let items = page.get("items").and_then(Value::as_array).into_iter().flatten();
        for item in items.filter(|item| text(item, "status") == "active") {
            seen += 1;
            let algorithm = text(item, "id_token_signed_response_alg");
            if !known.contains(&algorithm) {
                without.push(format!("{} ({algorithm})", text(item, "client_id")));
            }
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    if without.is_empty() {
        return Ok(Check::pass(NAME, format!("{seen} active clients, a key for each")));
    }
    let count = without.len();
    without.truncate(MAX_NAMED);
    let wrong =
        format!("{count} of {seen} active clients have no key for their algorithm: {}", without.join(", "));
    Ok(Check::fail(
        NAME,
        wrong,
        "`systemprompt admin keys generate --algorithm`, and `admin keys rotate --algorithm` behind it",
    ))
}

/// The server that `--url` names, else the one of the profile.
async fn address(globals: &Globals) -> Result<String, CliError> {
    if let Some(url) = &globals.url {
        return Ok(url.clone());
    }
    match running::running(globals, &globals.location()?).await {
        Some(url) => Ok(url),
        None => Ok(server_url(&globals.load_profile()?.1)),
    }
}

fn is_loopback(url: &str) -> bool {
    match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn words<'a>(value: &'a Value, name: &str) -> Vec<&'a str> {
    value.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What is wrong with the answer to a request that names an address which nobody registered: it must be our page that says so.
fn strays(answer: &Answer) -> Option<String> {
    if answer.header("location").is_some() {
        return Some("leads to an address that nobody registered".to_owned());
    }
    let is_page = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    (answer.status != 400 || !is_page)
        .then(|| format!("answers {} in place of 400 with the page that says so", answer.status))
}

/// `seen` if it is right.
fn outcome(is_right: bool, seen: impl Into<String>, fix: &'static str) -> Outcome {
    if is_right { Ok(seen.into()) } else { Err((seen.into(), fix)) }
}

struct Probe {
    client: Client,
    pages: Client,
    metadata: Value,
}

impl Probe {
    fn issuer(&self) -> Outcome {
        let issuer = text(&self.metadata, "issuer");
        let is_right = (issuer.starts_with("https://")
            || (issuer.starts_with("http://") && is_loopback(issuer)))
            && !issuer.contains(['?', '#']);
        let fix = "set server.api_external_url and security.jwt_issuer to an https address without query and fragment";
        outcome(is_right, format!("issuer {issuer}"), fix)
    }

    async fn documents(&self) -> Result<Outcome, CliError> {
        let other = self.client.send(Ask::get(SERVER)).await?;
        let is_kept = other.header("cache-control").is_some_and(|value| value.contains("max-age=300"));
        let is_same = other.json() == self.metadata;
        let seen = format!("{OPENID} and {SERVER} {}", if is_same { "are the same" } else { "differ" });
        let fix = "a proxy answers one of the two; let both through unchanged, with their cache headers";
        Ok(outcome(is_same && is_kept && other.header("etag").is_some(), seen, fix))
    }

    async fn keys(&self) -> Result<Outcome, CliError> {
        let set = self.client.json("the keys cannot be read", Ask::get(JWKS)).await?;
        let keys: Vec<&Value> = set.get("keys").and_then(Value::as_array).into_iter().flatten().collect();
        let mut wrong = Vec::new();
        for key in &keys {
            let kid = text(key, "kid");
            if kid.is_empty() || keys.iter().filter(|other| text(other, "kid") == kid).count() > 1 {
                wrong.push(format!("a kid is missing or there twice: `{kid}`"));
            }
            if text(key, "use") != "sig" || PRIVATE.iter().any(|name| key.get(name).is_some()) {
                wrong.push(format!("{kid} has a private member, or is not for signatures"));
            }
        }
        if !keys.iter().any(|key| text(key, "alg") == "RS256") {
            wrong.push("no RS256 key, which ID tokens need by default".to_owned());
        }
        let fix = "`systemprompt admin keys generate`, `rotate` and `revoke` put the ring right; whoever saw a private member has the key";
        let seen = if wrong.is_empty() { format!("{} public keys", keys.len()) } else { wrong.join("; ") };
        Ok(outcome(wrong.is_empty(), seen, fix))
    }

    async fn resources(&self) -> Result<Outcome, CliError> {
        let issuer = text(&self.metadata, "issuer");
        let resources = words(&self.metadata, "protected_resources");
        let mut wrong = Vec::new();
        for path in ["", "/api/v1", "/v1", "/v1/bridge", "/api/v1/hooks"] {
            let document = self
                .client
                .send(Ask::get(&format!("/.well-known/oauth-protected-resource{path}")))
                .await?
                .json();
            let is_right = words(&document, "authorization_servers") == [issuer]
                && resources.contains(&text(&document, "resource"))
                && !words(&document, "scopes_supported").contains(&"offline_access");
            if !is_right {
                wrong.push(format!("the document of `{path}/` is not right"));
            }
        }
        let refused = self.client.send(Ask::get("/v1/models")).await?;
        if !refused.header("www-authenticate").is_some_and(|value| value.contains("resource_metadata=")) {
            wrong.push("a 401 of /v1 does not name its document".to_owned());
        }
        let seen =
            if wrong.is_empty() { "each document names the issuer".to_owned() } else { wrong.join("; ") };
        Ok(outcome(
            wrong.is_empty(),
            seen,
            "a proxy must pass /.well-known and WWW-Authenticate on unchanged",
        ))
    }

    async fn health(&self) -> Result<Outcome, CliError> {
        let answer = self.client.send(Ask::get(&format!("{BASE}/health"))).await?;
        let seen = String::from_utf8_lossy(&answer.body).chars().take(200).collect::<String>();
        Ok(outcome(answer.is_success(), seen, "`systemprompt doctor` names the part that fails"))
    }

    async fn redirects(&self) -> Result<Outcome, CliError> {
        let asked = [
            format!("{BASE}/authorize?response_type=code&client_id=nobody&redirect_uri={STRANGER}/cb"),
            format!("{BASE}/authorize?response_type=code&client_id=sp_cli&redirect_uri={STRANGER}/cb"),
            format!("{BASE}/logout?client_id=sp_cli&post_logout_redirect_uri={STRANGER}/cb"),
        ];
        for path in asked {
            let answer = self.pages.send(Ask::get(&path)).await?;
            if let Some(wrong) = strays(&answer) {
                let path = path.split('?').next().unwrap_or_default();
                let fix = "let nothing between client and server redirect, or answer in its place";
                return Ok(Err((format!("{path} {wrong}"), fix)));
            }
        }
        Ok(Ok("a client or address that is not registered gets a page".to_owned()))
    }

    fn pkce(&self) -> Outcome {
        let methods = words(&self.metadata, "code_challenge_methods_supported");
        outcome(
            methods == ["S256"],
            format!("methods: {}", methods.join(" ")),
            "let no proxy change the metadata",
        )
    }

    fn grants(&self) -> Outcome {
        let grants = words(&self.metadata, "grant_types_supported");
        let types = words(&self.metadata, "response_types_supported");
        let is_right =
            !grants.iter().any(|grant| matches!(*grant, "password" | "implicit")) && types == ["code"];
        let seen = format!("{} grants, response types: {}", grants.len(), types.join(" "));
        outcome(is_right, seen, "let no proxy change the metadata")
    }

    fn issuer_in_answers(&self) -> Outcome {
        let says =
            self.metadata.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true));
        outcome(says, "iss is in every authorization answer", "let no proxy change the metadata")
    }

    async fn page(&self) -> Result<Answer, CliError> {
        self.pages.send(Ask::get(&format!("{BASE}/authorize?client_id=nobody"))).await
    }

    async fn framing(&self) -> Result<Outcome, CliError> {
        let page = self.page().await?;
        let is_right = page.header("x-frame-options") == Some("DENY")
            && page
                .header("content-security-policy")
                .is_some_and(|policy| policy.contains("frame-ancestors 'none'"));
        let fix = "let the proxy leave X-Frame-Options and Content-Security-Policy as they are";
        Ok(outcome(is_right, "X-Frame-Options and frame-ancestors", fix))
    }

    async fn foreign(&self) -> Result<Outcome, CliError> {
        let page = self.page().await?;
        let policy = page.header("content-security-policy").unwrap_or_default();
        let is_right = policy.contains("default-src 'none'")
            && page.header("referrer-policy") == Some("no-referrer")
            && page.header("cache-control") == Some("no-store");
        let fix =
            "let the proxy leave Content-Security-Policy, Referrer-Policy and Cache-Control as they are";
        Ok(outcome(is_right, "nothing from elsewhere, no referrer, nothing stored", fix))
    }

    async fn cors(&self) -> Result<Outcome, CliError> {
        let preflight = async |path: &str| {
            let ask = Ask::options(&format!("{BASE}{path}"))
                .header("origin", STRANGER)
                .header("access-control-request-method", "POST");
            self.client.send(ask).await
        };
        let open = preflight("/token").await?;
        let closed = preflight("/authorize").await?;
        let is_right = open.header("access-control-allow-origin") == Some("*")
            && open.header("access-control-allow-credentials").is_none()
            && closed.header("access-control-allow-origin").is_none();
        let fix = "take CORS headers out of the proxy; the server sets them per endpoint";
        Ok(outcome(is_right, "/token answers any origin without credentials, /authorize none", fix))
    }

    async fn query_tokens(&self) -> Result<Outcome, CliError> {
        let at_userinfo = self.client.send(Ask::get(&format!("{BASE}/userinfo?access_token=x"))).await?;
        let at_surface = self.client.send(Ask::get("/v1/models?access_token=x")).await?;
        let is_right = at_userinfo.status == 400 && at_surface.status == 400;
        let seen = format!("refused with {} and {}", at_userinfo.status, at_surface.status);
        Ok(outcome(is_right, seen, "let no proxy make a header of a query parameter"))
    }

    async fn forged(&self) -> Result<Outcome, CliError> {
        let ask = Ask::get(OPENID)
            .header("x-forwarded-host", "stranger.invalid")
            .header("x-forwarded-proto", "http")
            .header("forwarded", "host=stranger.invalid;proto=http");
        let is_right = self.client.send(ask).await?.json() == self.metadata;
        let fix = "set server.api_external_url, and name only your own proxies in server.trusted_proxies";
        Ok(outcome(is_right, "addresses do not follow X-Forwarded-* and Forwarded of strangers", fix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_begins_like_this_computers_is_not_this_computers() {
        for (url, want) in [
            ("http://localhost:8080", true),
            ("http://127.0.0.1", true),
            ("http://127.9.8.7:1/x", true),
            ("http://[::1]:9", true),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
            ("http://evil.example/?localhost", false),
            ("http://localhost@evil.example", false),
            ("http://[::2]", false),
            ("localhost", false),
        ] {
            assert_eq!(is_loopback(url), want, "{url}");
        }
    }

    #[test]
    fn only_our_own_page_says_that_nobody_is_sent_anywhere() {
        let answer = |status: u16, kind: &str, location: Option<&str>| {
            let mut answer = Answer { status, headers: http::HeaderMap::new(), body: Vec::new() };
            answer.headers.insert("content-type", kind.parse().unwrap());
            if let Some(location) = location {
                answer.headers.insert("location", location.parse().unwrap());
            }
            answer
        };
        assert_eq!(strays(&answer(400, "text/html; charset=utf-8", None)), None);
        for (status, kind, location) in [
            (404, "text/html", None),
            (500, "text/html", None),
            (200, "text/html", None),
            (400, "application/json", None),
            (400, "text/html", Some("https://stranger.invalid/cb")),
            (303, "text/html", Some("https://stranger.invalid/cb")),
        ] {
            assert!(strays(&answer(status, kind, location)).is_some(), "{status} {kind} {location:?}");
        }
    }
}
