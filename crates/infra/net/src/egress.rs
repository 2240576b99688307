//! The outgoing HTTP client (SEC-102, SEC-103). Addresses are checked after the name is resolved and the connection goes to
//! the checked address, so a name that answers differently the second time gains nothing. Never a redirect, a cookie, a
//! proxy from the environment, or an automatic decompression.

mod hosts;
mod traffic;

pub use hosts::{HostPattern, HostPatternError, HostRules, PrivateEntry};
pub use traffic::{MAX_IN_FLIGHT, MAX_PER_HOST, MAX_PER_MINUTE};

use crate::address::{is_link_local, is_loopback, is_special_use};
use crate::tls;
use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, RequestBuilder, Response, Url};
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use traffic::Traffic;

/// Whose URL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An outsider's: https to public addresses only, small answers, short times.
    Untrusted,
    /// From the configuration: a model provider, a tracing collector. Streams may be long.
    Operator,
    /// Our own server on this host.
    Loopback,
}

/// What the configuration adds to a class.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Operator class: plain http also to hosts other than this one.
    pub allow_insecure: bool,
    /// Operator class: special-use networks that may be reached. Link-local addresses need an entry of their own.
    pub allow_private: Vec<IpNet>,
}

/// Why nothing was fetched. The texts name no query string; clients of ours learn only that it "could not be fetched".
#[derive(Clone, Debug, thiserror::Error)]
pub enum EgressError {
    #[error("the address is not a URL: {0}")]
    Url(&'static str),
    #[error("{0} is not allowed here; {1}")]
    SchemeNotAllowed(String, &'static str),
    #[error("{host} leads to an address that may not be reached from here")]
    AddressNotAllowed { host: String },
    #[error("{host} is not among the hosts that `security.egress` lets be reached")]
    HostNotAllowed { host: String },
    #[error("the name {host} could not be resolved")]
    Unresolved { host: String },
    #[error("the answer is encoded, which was not asked for")]
    Encoded,
    #[error("the answer has another media type than was asked for")]
    MediaType,
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the answer is a redirect ({0}); redirects are not followed")]
    Redirect(u16),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("no answer in time")]
    Timeout,
    #[error("too many fetches are under way")]
    Busy,
    #[error("no connection could be made")]
    Connect(#[source] Arc<reqwest::Error>),
    #[error("the connection broke")]
    Transport(#[source] Arc<reqwest::Error>),
    #[error("the HTTP client could not be built")]
    Build(#[source] Arc<reqwest::Error>),
}

/// A client of one class. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Egress {
    client: reqwest::Client,
    rules: Arc<Rules>,
    traffic: Traffic,
}

#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) class: Class,
    pub(crate) policy: Policy,
    pub(crate) hosts: HostRules,
}

/// What a use asks of an answer. The rules of addresses hold for all.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Most bytes of the body.
    pub max_bytes: usize,
    /// Statuses that count.
    pub statuses: &'static [u16],
    pub media: Media,
}

/// Which media types count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Any,
    /// `application/json` and `application/*+json`.
    Json,
    /// PNG, JPEG, WebP.
    Picture,
}

impl Media {
    fn accept(self) -> &'static str {
        match self {
            Self::Any => "*/*",
            Self::Json => "application/json",
            Self::Picture => "image/png, image/jpeg, image/webp",
        }
    }

    /// Whether `content_type` is one of them; parameters do not matter.
    fn takes(self, content_type: Option<&str>) -> bool {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        match self {
            Self::Any => true,
            Self::Json => {
                let subtype = essence.strip_prefix("application/").unwrap_or_default();
                subtype == "json" || subtype.strip_suffix("+json").is_some_and(|name| !name.is_empty())
            }
            Self::Picture => matches!(essence.as_str(), "image/png" | "image/jpeg" | "image/webp"),
        }
    }
}

/// An answer that was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub body: Bytes,
    /// Without parameters, in lower case.
    pub media_type: Option<String>,
    /// For how long the answer says that it holds, as far as it does (RFC 9111 section 4.2); zero where it must not be kept.
    pub fresh_for: Option<Duration>,
}

impl Wanted {
    /// A client's metadata document.
    pub const CLIENT_METADATA: Self = Self::of(5 * 1024).only(Media::Json);
    /// A JWK Set.
    pub const JWKS: Self = Self::of(256 * 1024).only(Media::Json);
    /// A picture.
    pub const LOGO: Self = Self::of(256 * 1024).only(Media::Picture);
    /// Anything else.
    pub const OTHER: Self = Self::of(64 * 1024);

    /// A body of at most `max_bytes` under exactly 200.
    pub const fn of(max_bytes: usize) -> Self {
        Self { max_bytes, statuses: &[200], media: Media::Any }
    }

    /// Of certain media types alone.
    pub const fn only(mut self, media: Media) -> Self {
        self.media = media;
        self
    }
}

/// Longest time to make a connection, for the operator's and our own servers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// Bounds of the untrusted class: connection, whole fetch.
const UNTRUSTED_CONNECT: Duration = Duration::from_secs(2);
const UNTRUSTED_TOTAL: Duration = Duration::from_secs(5);

/// The client of `class`, with nothing added by configuration.
pub fn client(class: Class) -> Result<Egress, EgressError> {
    client_with(class, Policy::default())
}

/// The client of `class` under `policy`.
pub fn client_with(class: Class, policy: Policy) -> Result<Egress, EgressError> {
    client_under(class, policy, HostRules::default())
}

/// The client of `class` under `policy` and the operator's lists of hosts.
pub fn client_under(class: Class, policy: Policy, hosts: HostRules) -> Result<Egress, EgressError> {
    client_resolving(class, policy, hosts, Arc::new(SystemResolver))
}

pub(crate) fn client_resolving(
    class: Class,
    policy: Policy,
    hosts: HostRules,
    names: Arc<dyn Names>,
) -> Result<Egress, EgressError> {
    tls::install();
    let rules = Arc::new(Rules { class, policy, hosts });
    #[expect(clippy::disallowed_methods, reason = "this is where clients are built")]
    let builder = reqwest::Client::builder();
    let builder = builder
        .dns_resolver(Arc::new(CheckedResolver(rules.clone(), names)))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE);
    let builder = match class {
        // No connection of theirs is used again: it may be closing just then, and its address was checked before.
        Class::Untrusted => builder
            .pool_max_idle_per_host(0)
            .connect_timeout(UNTRUSTED_CONNECT)
            .timeout(UNTRUSTED_TOTAL)
            .https_only(!rules.hosts.opens_loopback()),
        Class::Operator | Class::Loopback => builder.connect_timeout(CONNECT_TIMEOUT),
    };
    let client = builder.build().map_err(|error| EgressError::Build(Arc::new(error)))?;
    Ok(Egress { client, rules, traffic: Traffic::default() })
}

impl Egress {
    /// Whether this client may fetch `url`, as far as its text shows; what its name resolves to is checked on connection.
    pub fn check(&self, url: &str) -> Result<Url, EgressError> {
        self.rules.check(url)
    }

    /// A request to `url`. Send it with [`send`](Self::send).
    pub fn request(&self, method: Method, url: &str) -> Result<RequestBuilder, EgressError> {
        Ok(self.client.request(method, self.rules.check(url)?))
    }

    /// Sends a request of [`request`](Self::request); the body of the answer is the caller's to read and to bound.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, EgressError> {
        let response = request.send().await?;
        match response.status() {
            status if status.is_redirection() && status.as_u16() != 304 => {
                Err(EgressError::Redirect(status.as_u16()))
            }
            _ => Ok(response),
        }
    }

    /// The body at `url`, of at most `limit` bytes, if the answer is exactly 200.
    pub async fn fetch(&self, url: &str, limit: usize) -> Result<Bytes, EgressError> {
        self.fetch_as(url, Wanted::of(limit)).await
    }

    /// The body at `url` as a use wants it. Whoever asks for the same meanwhile gets the same answer; nothing is kept after it.
    pub async fn fetch_as(&self, url: &str, wanted: Wanted) -> Result<Bytes, EgressError> {
        self.document(url, wanted).await.map(|fetched| fetched.body)
    }

    /// As [`fetch_as`](Self::fetch_as), with what the answer says of its body.
    pub async fn document(&self, url: &str, wanted: Wanted) -> Result<Fetched, EgressError> {
        let checked = self.rules.check(url)?;
        let key = format!("{} {:?} {:?} {checked}", wanted.max_bytes, wanted.statuses, wanted.media);
        self.traffic.once(key, || self.fetch_once(checked, wanted)).await
    }

    async fn fetch_once(&self, url: Url, wanted: Wanted) -> Result<Fetched, EgressError> {
        let host = url.host_str().filter(|_| self.rules.class == Class::Untrusted);
        let _place = self.traffic.enter(host, Instant::now())?;
        let request = self.client.request(Method::GET, url).header("accept-encoding", "identity");
        let request = request.header("accept", wanted.media.accept());
        let mut response = self.send(request).await?;
        let status = response.status().as_u16();
        if !wanted.statuses.contains(&status) {
            return Err(EgressError::Status(status));
        }
        let encoding = response.headers().get("content-encoding");
        if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(EgressError::Encoded);
        }
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let content_type = text("content-type");
        if !wanted.media.takes(content_type) {
            return Err(EgressError::MediaType);
        }
        let media_type = content_type
            .and_then(|value| value.split(';').next())
            .map(|essence| essence.trim().to_ascii_lowercase());
        let fresh_for = freshness(text("cache-control"), text("age"), text("expires"), text("date"));
        let limit = wanted.max_bytes;
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(EgressError::TooLarge { limit });
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(EgressError::TooLarge { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { body: body.freeze(), media_type, fresh_for })
    }
}

/// How long an answer is fresh for a shared cache (RFC 9111 section 4.2.1), less the time that it was on its way.
fn freshness(
    control: Option<&str>,
    age: Option<&str>,
    expires: Option<&str>,
    date: Option<&str>,
) -> Option<Duration> {
    let mut life = None;
    for directive in control.unwrap_or_default().split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let seconds = value.trim().trim_matches('"').parse::<u64>().ok();
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" | "private" => return Some(Duration::ZERO),
            // The one for shared caches outweighs the other.
            "s-maxage" => life = seconds.map(|seconds| (true, seconds)).or(life),
            "max-age" if !matches!(life, Some((true, _))) => life = seconds.map(|seconds| (false, seconds)),
            _ => {}
        }
    }
    let by_date = || {
        let expires = expires?;
        // What is no date lies in the past (section 5.3).
        let Ok(end) = httpdate::parse_http_date(expires) else { return Some(0) };
        let start = httpdate::parse_http_date(date?).ok()?;
        Some(end.duration_since(start).map_or(0, |life| life.as_secs()))
    };
    let life = life.map(|(_, seconds)| seconds).or_else(by_date)?;
    let age = age.and_then(|age| age.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(Duration::from_secs(life.saturating_sub(age)))
}

impl From<reqwest::Error> for EgressError {
    fn from(error: reqwest::Error) -> Self {
        if let Some(refused) = refused(&error) {
            return match refused {
                Refused::Address(host) => Self::AddressNotAllowed { host: host.clone() },
                Refused::Unresolved(host) => Self::Unresolved { host: host.clone() },
            };
        }
        // The URL may hold a query; the error keeps none of it.
        let error = error.without_url();
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect(Arc::new(error))
        } else {
            Self::Transport(Arc::new(error))
        }
    }
}

impl EgressError {
    /// Whether nothing of the request can have reached the other side.
    pub fn is_before_send(&self) -> bool {
        !matches!(
            self,
            Self::TooLarge { .. }
                | Self::Redirect(_)
                | Self::Status(_)
                | Self::Encoded
                | Self::MediaType
                | Self::Timeout
                | Self::Transport(_)
        )
    }
}

impl Rules {
    fn check(&self, text: &str) -> Result<Url, EgressError> {
        let url = Url::parse(text).map_err(|_| EgressError::Url("it cannot be parsed"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::Url("it holds a user name or a password"));
        }
        let host = url.host_str().ok_or(EgressError::Url("it names no host"))?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        if address.is_some_and(|a| a.is_ipv4()) && !spelled(text, host) {
            return Err(EgressError::Url("its IP address is not in dotted decimal form"));
        }
        self.check_scheme(&url, address)?;
        let is_closed =
            self.hosts.denies(host) || (self.class == Class::Untrusted && !self.hosts.allows(host));
        if is_closed {
            return Err(EgressError::HostNotAllowed { host: host.to_owned() });
        }
        match address {
            Some(address) if !self.admits(host, address) => {
                Err(EgressError::AddressNotAllowed { host: host.to_owned() })
            }
            _ => Ok(url),
        }
    }

    fn check_scheme(&self, url: &Url, address: Option<IpAddr>) -> Result<(), EgressError> {
        let local = address.map_or_else(|| url.host_str() == Some("localhost"), is_loopback);
        let refuse = |hint| Err(EgressError::SchemeNotAllowed(format!("{}:", url.scheme()), hint));
        match (self.class, url.scheme()) {
            (Class::Untrusted, "http") if local && self.hosts.opens_loopback() => Ok(()),
            (Class::Untrusted, "https") => match url.port_or_known_default() {
                Some(443 | 1024..) => Ok(()),
                _ => Err(EgressError::Url("its port is neither 443 nor above 1023")),
            },
            (Class::Untrusted, _) => refuse("only https is"),
            (Class::Operator, "https") => Ok(()),
            (Class::Operator, "http") if local || self.policy.allow_insecure => Ok(()),
            (Class::Operator, _) => refuse("https is, and http to this host or with `allow_insecure`"),
            (Class::Loopback, "http" | "https") if local => Ok(()),
            (Class::Loopback, _) => refuse("only http to this host is"),
        }
    }

    pub(crate) fn admits(&self, host: &str, address: IpAddr) -> bool {
        let listed = |a: IpAddr| {
            let mut nets = self.policy.allow_private.iter();
            // A wide entry does not open the metadata services: those must be named as link-local.
            self.hosts.opens(host, a)
                || nets.any(|net| net.contains(&a) && (!is_link_local(a) || is_link_local(net.network())))
        };
        match self.class {
            Class::Untrusted => {
                !is_special_use(address) || (is_loopback(address) && self.hosts.opens_loopback())
            }
            Class::Operator => {
                !is_special_use(address) || is_loopback(address) || listed(address.to_canonical())
            }
            Class::Loopback => is_loopback(address),
        }
    }
}

/// Whether the host stands in `url` as `host` writes it: `0177.1`, `0x7f000001` and `2130706433` do not.
fn spelled(url: &str, host: &str) -> bool {
    let rest = url.split_once("//").map_or(url, |(_, rest)| rest);
    rest.strip_prefix(host).is_some_and(|after| after.is_empty() || after.starts_with([':', '/', '?', '#']))
}

/// Where names are looked up: the system, or a test's own table.
pub(crate) trait Names: Send + Sync + 'static {
    fn lookup(&self, host: String) -> Lookup;
}

pub(crate) type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

struct SystemResolver;

impl Names for SystemResolver {
    fn lookup(&self, host: String) -> Lookup {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
    }
}

/// Resolves once, refuses the name if any answer is not admitted, and hands on exactly the answers that were checked.
struct CheckedResolver(Arc<Rules>, Arc<dyn Names>);

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0} leads to an address that may not be reached from here")]
    Address(String),
    #[error("the name {0} could not be resolved")]
    Unresolved(String),
}

fn refused(error: &reqwest::Error) -> Option<&Refused> {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Some(refused);
        }
        next = error.source();
    }
    None
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (rules, names) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            let host = name.as_str();
            let answers = names.lookup(host.to_owned()).await;
            let answers = answers.map_err(|_| Refused::Unresolved(host.to_owned()))?;
            if answers.is_empty() {
                return Err(Refused::Unresolved(host.to_owned()).into());
            }
            if let Some(bad) = answers.iter().find(|a| !rules.admits(host, a.ip())) {
                tracing::warn!(host, address = %bad.ip(), class = ?rules.class, "address of an outgoing request refused");
                return Err(Refused::Address(host.to_owned()).into());
            }
            Ok(Box::new(answers.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
