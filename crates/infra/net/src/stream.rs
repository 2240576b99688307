//! A TLS connection for protocols other than HTTP. The addresses of the name are checked as those of HTTP requests are, and the
//! connection goes to a checked one.

use crate::egress::{Class, HostRules, Policy, Rules};
use crate::tls;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::ConfigVerifierExt as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An open connection.
pub type TlsConnection = TlsStream<TcpStream>;

/// Longest time to connect and to shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("`{0}` is no address of the form tls://host:port")]
    Address(String),
    #[error("the certificates to trust cannot be read: {0}")]
    Roots(String),
    #[error("the name {0} could not be resolved")]
    Unresolved(String),
    #[error("{0} may not be reached from here (`security.egress`), or leads to an address that may not")]
    NotAllowed(String),
    #[error("no connection in time")]
    Timeout,
    #[error("no connection could be made: {0}")]
    Connect(#[from] std::io::Error),
}

/// A server that is reached by TLS.
#[derive(Clone, Debug)]
pub struct TlsTarget {
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    rules: Arc<Rules>,
}

/// Host and port of `tls://host:port`.
pub fn split(url: &str) -> Option<(&str, u16)> {
    let (host, port) = url.strip_prefix("tls://")?.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    Some((host, port.parse().ok().filter(|port| *port > 0)?)).filter(|_| is_host)
}

impl TlsTarget {
    /// A server of the operator's. `roots` are certificates in PEM that are trusted instead of those of the system.
    ///
    /// # Errors
    /// An address of another form, or certificates that are none.
    pub fn new(
        url: &str,
        roots: Option<&[u8]>,
        policy: Policy,
        hosts: HostRules,
    ) -> Result<Self, StreamError> {
        tls::install();
        let bad = || StreamError::Address(url.to_owned());
        let (host, port) = split(url).ok_or_else(bad)?;
        if hosts.denies(host) {
            return Err(StreamError::NotAllowed(host.to_owned()));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
        let config = match roots {
            None => ClientConfig::with_platform_verifier()
                .map_err(|error| StreamError::Roots(error.to_string()))?,
            Some(pem) => {
                let builder = ClientConfig::builder().with_root_certificates(store(pem)?);
                builder.with_no_client_auth()
            }
        };
        let rules = Arc::new(Rules { class: Class::Operator, policy, hosts });
        Ok(Self { host: host.to_owned(), port, name, config: Arc::new(config), rules })
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// A name, an address or a certificate that is refused, or nobody who answers.
    pub async fn connect(&self) -> Result<TlsConnection, StreamError> {
        let done = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_now()).await;
        done.map_err(|_| StreamError::Timeout)?
    }

    async fn connect_now(&self) -> Result<TlsConnection, StreamError> {
        let answers = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let answers: Vec<SocketAddr> =
            answers.map_err(|_| StreamError::Unresolved(self.host.clone()))?.collect();
        if answers.iter().any(|answer| !self.rules.admits(&self.host, answer.ip())) {
            return Err(StreamError::NotAllowed(self.host.clone()));
        }
        let tcp = TcpStream::connect(answers.as_slice()).await?;
        tcp.set_nodelay(true)?;
        Ok(TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), tcp).await?)
    }
}

fn store(pem: &[u8]) -> Result<RootCertStore, StreamError> {
    let bad = |why: String| StreamError::Roots(why);
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(format!("{error:?}")))?;
        store.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if store.is_empty() { Err(bad("the file holds no certificate in PEM".to_owned())) } else { Ok(store) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_host_and_port() {
        assert_eq!(split("tls://siem.example:6514"), Some(("siem.example", 6514)));
        assert_eq!(split("tls://[::1]:6514"), Some(("::1", 6514)));
        for bad in [
            "siem:6514",
            "tls://siem",
            "tls://:1",
            "tls://a/b:1",
            "tls://u@a:1",
            "tls://a:0",
            "tls://a:x",
            "https://a:1",
        ] {
            assert_eq!(split(bad), None, "{bad}");
        }
        assert!(
            TlsTarget::new("tls://a:1", Some(b"nothing"), Policy::default(), HostRules::default()).is_err()
        );
    }
}
