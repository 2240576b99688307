//! The outgoing HTTP client (SEC-102, SEC-103). Addresses are checked after the name is resolved and the connection goes to
//! the checked address, so a name that answers differently the second time gains nothing. Never a redirect, a cookie, a
//! proxy from the environment, or an automatic decompression.

use crate::address::{is_link_local, is_loopback, is_special_use};
use crate::tls;
use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, RequestBuilder, Response, Url};
use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

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
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("the address is not a URL: {0}")]
    Url(&'static str),
    #[error("{0} is not allowed here; {1}")]
    SchemeNotAllowed(String, &'static str),
    #[error("{host} leads to an address that may not be reached from here")]
    AddressNotAllowed { host: String },
    #[error("the name {host} could not be resolved")]
    Unresolved { host: String },
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
    Connect(#[source] reqwest::Error),
    #[error("the connection broke")]
    Transport(#[source] reqwest::Error),
    #[error("the HTTP client could not be built")]
    Build(#[source] reqwest::Error),
}

/// A client of one class. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Egress {
    client: reqwest::Client,
    rules: Arc<Rules>,
    slots: Arc<Semaphore>,
}

#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) class: Class,
    pub(crate) policy: Policy,
}

/// Longest time to make a connection, for the operator's and our own servers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// Bounds of the untrusted class: connection, whole fetch, fetches under way.
const UNTRUSTED_CONNECT: Duration = Duration::from_secs(2);
const UNTRUSTED_TOTAL: Duration = Duration::from_secs(5);
const UNTRUSTED_SLOTS: usize = 256;

/// The client of `class`, with nothing added by configuration.
pub fn client(class: Class) -> Result<Egress, EgressError> {
    client_with(class, Policy::default())
}

/// The client of `class` under `policy`.
pub fn client_with(class: Class, policy: Policy) -> Result<Egress, EgressError> {
    tls::install();
    let rules = Arc::new(Rules { class, policy });
    #[expect(clippy::disallowed_methods, reason = "this is where clients are built")]
    let builder = reqwest::Client::builder();
    let builder = builder
        .dns_resolver(Arc::new(CheckedResolver(rules.clone())))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE);
    let builder = match class {
        Class::Untrusted => {
            builder.connect_timeout(UNTRUSTED_CONNECT).timeout(UNTRUSTED_TOTAL).https_only(true)
        }
        Class::Operator | Class::Loopback => builder.connect_timeout(CONNECT_TIMEOUT),
    };
    let client = builder.build().map_err(EgressError::Build)?;
    Ok(Egress { client, rules, slots: Arc::new(Semaphore::new(UNTRUSTED_SLOTS)) })
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
        let request = self.request(Method::GET, url)?;
        let _slot = self.slots.try_acquire().map_err(|_| EgressError::Busy)?;
        let mut response = self.send(request).await?;
        if response.status().as_u16() != 200 {
            return Err(EgressError::Status(response.status().as_u16()));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(EgressError::TooLarge { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
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
            Self::Connect(error)
        } else {
            Self::Transport(error)
        }
    }
}

impl EgressError {
    /// Whether nothing of the request can have reached the other side.
    pub fn is_before_send(&self) -> bool {
        !matches!(
            self,
            Self::TooLarge { .. } | Self::Redirect(_) | Self::Status(_) | Self::Timeout | Self::Transport(_)
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
        match address {
            Some(address) if !self.admits(address) => {
                Err(EgressError::AddressNotAllowed { host: host.to_owned() })
            }
            _ => Ok(url),
        }
    }

    fn check_scheme(&self, url: &Url, address: Option<IpAddr>) -> Result<(), EgressError> {
        let local = address.map_or_else(|| url.host_str() == Some("localhost"), is_loopback);
        let refuse = |hint| Err(EgressError::SchemeNotAllowed(format!("{}:", url.scheme()), hint));
        match (self.class, url.scheme()) {
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

    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let listed = |a: IpAddr| {
            let mut nets = self.policy.allow_private.iter();
            // A wide entry does not open the metadata services: those must be named as link-local.
            nets.any(|net| net.contains(&a) && (!is_link_local(a) || is_link_local(net.network())))
        };
        match self.class {
            Class::Untrusted => !is_special_use(address),
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

/// Resolves once, refuses the name if any answer is not admitted, and hands on exactly the answers that were checked.
struct CheckedResolver(Arc<Rules>);

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
        let rules = self.0.clone();
        Box::pin(async move {
            let host = name.as_str();
            let answers: Vec<SocketAddr> = tokio::net::lookup_host((host, 0))
                .await
                .map_err(|_| Refused::Unresolved(host.to_owned()))?
                .collect();
            if answers.is_empty() {
                return Err(Refused::Unresolved(host.to_owned()).into());
            }
            if let Some(bad) = answers.iter().find(|a| !rules.admits(a.ip())) {
                tracing::warn!(host, address = %bad.ip(), class = ?rules.class, "address of an outgoing request refused");
                return Err(Refused::Address(host.to_owned()).into());
            }
            Ok(Box::new(answers.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
