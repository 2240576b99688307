//! What every endpoint of the authorization server works with, made once by the boot.

use crate::at_rest::AtRest;
use crate::error::OauthResult;
use crate::models::clients::OAuthClient;
use crate::repository::client::ClientRepository;
use crate::repository::oauth::OAuthRepository;
use crate::services::cimd::{self, CimdState, Look};
use crate::services::issuer_keys::IssuerKeys;
use crate::services::meter::Meter;
use crate::services::refusals::Refusals;
use crate::users::{User, Users};
use arc_swap::ArcSwap;
use std::sync::Arc;
use systemprompt_audit::{Draft, Ledger, Unit};
use systemprompt_config::profile::Profile;
use systemprompt_config::profile::identity::IdentityConfig;
use systemprompt_config::profile::security::{SigningAlgorithm as ConfiguredAlgorithm, TrustedIssuer};
use systemprompt_database::Db;
use systemprompt_models::{Clock, JwtAudience, Millis, Permission, RequestContext, Tasks};
use systemprompt_net::Egress;
use systemprompt_net::egress::{Class, EgressError, HostRules, Policy, client_under};
use systemprompt_security::jwt::Verifier;
use systemprompt_security::keys::{SharedKeys, SigningAlgorithm, TokenAuthority};
use systemprompt_security::session::{SessionGenerator, Sessions};

/// The configuration as the endpoints use it; replaced whole by a reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `security.jwt_issuer`, byte for byte what stands in `iss`.
    pub issuer: String,
    /// Without a slash at the end.
    pub external_url: String,
    pub display_name: String,
    /// Seconds.
    pub access_life: i64,
    /// Seconds.
    pub refresh_life: i64,
    /// Audiences of a token that names none.
    pub audiences: Vec<JwtAudience>,
    pub allowed_resource_audiences: Vec<String>,
    pub allow_registration: bool,
    pub algorithm: SigningAlgorithm,
    pub trusted_issuers: Vec<TrustedIssuer>,
    pub identity: IdentityConfig,
}

impl Settings {
    /// The settings of a profile; `external_url` is what `up` found out where the profile says nothing.
    pub fn of(profile: &Profile) -> Self {
        let security = &profile.security;
        let algorithm = match security.signing_algorithm {
            ConfiguredAlgorithm::RS256 => SigningAlgorithm::Rs256,
            ConfiguredAlgorithm::ES256 => SigningAlgorithm::Es256,
            ConfiguredAlgorithm::EdDSA => SigningAlgorithm::EdDsa,
        };
        Self {
            issuer: profile.jwt_issuer(),
            external_url: profile.api_external_url(),
            display_name: profile.display_name.clone().unwrap_or_else(|| "systemprompt".to_owned()),
            access_life: i64::from(security.jwt_access_token_expiration),
            refresh_life: i64::from(security.jwt_refresh_token_expiration),
            audiences: security.jwt_audiences.clone(),
            allowed_resource_audiences: security.allowed_resource_audiences.clone(),
            allow_registration: security.allow_registration,
            algorithm,
            trusted_issuers: security.trusted_issuers.clone(),
            identity: security.identity.clone(),
        }
    }

    /// What a user may now; nothing unless active.
    pub fn permissions_of_user(&self, user: &User) -> Vec<Permission> {
        crate::users::permissions_of_user(&self.identity.role_permissions, user)
    }

    /// The address of an endpoint of [`crate::constants::OAUTH_BASE`], as `/token`.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}{}{path}", self.external_url, crate::constants::OAUTH_BASE)
    }

    /// Whether the external URL is one of this computer.
    pub fn is_loopback(&self) -> bool {
        let url = url::Url::parse(&self.external_url).ok();
        url.is_some_and(|url| match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        })
    }

    /// Whether browsers reach this deployment over plain http, which only loopback may.
    pub fn is_insecure(&self) -> bool {
        self.external_url.starts_with("http://")
    }
}

/// What the boot hands over.
pub struct OAuthParts {
    pub db: Db,
    pub ledger: Ledger,
    pub clock: Arc<dyn Clock>,
    pub at_rest: AtRest,
    pub users: Users,
    pub sessions: Arc<Sessions>,
    pub session_tokens: SessionGenerator,
    pub keys: SharedKeys,
    pub verifier: Arc<Verifier>,
    pub settings: Settings,
    /// Which hosts may be fetched from.
    pub hosts: HostRules,
    /// What runs on when whoever asked for it goes away.
    pub tasks: Tasks,
}

/// The authorization server. Clones are the same one.
#[derive(Clone)]
pub struct OAuthState(Arc<Inner>);

/// The parts; [`OAuthState`] derefs to them.
pub struct Inner {
    pub db: Db,
    pub ledger: Ledger,
    pub clock: Arc<dyn Clock>,
    pub at_rest: AtRest,
    pub users: Users,
    pub sessions: Arc<Sessions>,
    pub session_tokens: SessionGenerator,
    pub tokens: TokenAuthority,
    pub verifier: Arc<Verifier>,
    pub keys: SharedKeys,
    /// Fetches what outsiders name: metadata documents, keys, logos.
    pub egress: Egress,
    pub(crate) cimd: CimdState,
    pub(crate) clients: ClientRepository,
    pub(crate) oauth: OAuthRepository,
    pub(crate) refusals: Refusals,
    /// What the endpoints count.
    pub meter: Meter,
    pub(crate) issuer_keys: IssuerKeys,
    tasks: Tasks,
    settings: ArcSwap<Settings>,
}

impl std::ops::Deref for OAuthState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl std::fmt::Debug for OAuthState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OAuthState").field("issuer", &self.settings().issuer).finish_non_exhaustive()
    }
}

impl OAuthState {
    /// # Errors
    /// When no client for outgoing requests can be made.
    pub fn new(parts: OAuthParts) -> Result<Self, EgressError> {
        // Documents of this computer count for a server of this computer alone (ID-24).
        let issuer_keys = IssuerKeys::new(parts.hosts.clone());
        let hosts = if parts.settings.is_loopback() { parts.hosts } else { parts.hosts.without_loopback() };
        let egress = client_under(Class::Untrusted, Policy::default(), hosts)?;
        parts.users.permit(parts.settings.identity.role_permissions.clone());
        Ok(Self(Arc::new(Inner {
            tokens: TokenAuthority::new(
                parts.settings.issuer.as_str(),
                Arc::clone(&parts.keys),
                Arc::clone(&parts.clock),
            ),
            cimd: CimdState::default(),
            clients: ClientRepository::new(parts.db.clone()),
            oauth: OAuthRepository::new(parts.db.clone()),
            db: parts.db,
            ledger: parts.ledger,
            clock: parts.clock,
            at_rest: parts.at_rest,
            users: parts.users,
            sessions: parts.sessions,
            session_tokens: parts.session_tokens,
            verifier: parts.verifier,
            keys: parts.keys,
            egress,
            refusals: Refusals::default(),
            meter: Meter::default(),
            issuer_keys,
            tasks: parts.tasks,
            settings: ArcSwap::from_pointee(parts.settings),
        })))
    }

    /// Fetches by another client from now on; not once there is a clone.
    #[cfg(test)]
    pub(crate) fn fetch_by(&mut self, egress: Egress) -> bool {
        Arc::get_mut(&mut self.0).map(|inner| inner.egress = egress).is_some()
    }

    /// The configuration in force; a request keeps the one that it began with.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Puts another configuration in force.
    pub fn configure(&self, settings: Settings) {
        self.users.permit(settings.identity.role_permissions.clone());
        self.settings.store(Arc::new(settings));
    }

    /// Runs `work` to its end, whether or not its caller waits for it: a fetch that is given up leaves no note that it was made, and
    /// would be made again and again. None where it did not come to an end.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.tasks.spawn(name, async move {
            // Nobody need be there to be told.
            drop(tell.send(work.await));
        });
        told.await.ok()
    }

    /// Epoch milliseconds.
    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// The client of this id, whatever its status: of a row, or of the metadata document at an https address.
    ///
    /// # Errors
    /// When it cannot be read, or its document may not be fetched so soon.
    pub async fn client(&self, id: &str) -> OauthResult<Option<OAuthClient>> {
        match cimd::look(self, id).await? {
            Look::Fresh(client) => Ok(Some(*client)),
            Look::Stale | Look::Unknown => cimd::fetched(self, id).await,
            Look::Closed(_) | Look::Unfit => Ok(None),
            Look::Other => Ok(self.clients.find_client_by_id(id).await?),
        }
    }

    /// How many active clients, those of kept metadata documents among them, have their ID tokens signed with an algorithm.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn clients_signed_with(&self, algorithm: SigningAlgorithm) -> sqlx::Result<i64> {
        let of_documents = cimd::fetcher::signed_with(self, algorithm).await?;
        Ok(self.clients.count_signed_with(algorithm).await? + of_documents)
    }

    /// The client of an id that a stranger names. Each network has its share of the fetches that this causes.
    ///
    /// # Errors
    /// As [`Self::client`]; too many documents that must be fetched.
    pub(crate) async fn client_named(
        &self,
        context: &RequestContext,
        id: &str,
    ) -> OauthResult<Option<OAuthClient>> {
        match cimd::look(self, id).await? {
            Look::Fresh(client) => Ok(Some(*client)),
            Look::Stale | Look::Unknown => {
                cimd::take_share(self, context).await?;
                cimd::fetched(self, id).await
            }
            Look::Closed(host) => {
                cimd::refuse_host(self, context, host).await?;
                Ok(None)
            }
            Look::Unfit => Ok(None),
            Look::Other => Ok(self.clients.find_client_by_id(id).await?),
        }
    }

    /// As [`Self::client_named`], where a client that nobody came with before is none.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn client_known(
        &self,
        context: &RequestContext,
        id: &str,
    ) -> OauthResult<Option<OAuthClient>> {
        match cimd::look(self, id).await? {
            Look::Fresh(client) => Ok(Some(*client)),
            Look::Stale => {
                cimd::take_share(self, context).await?;
                cimd::fetched(self, id).await
            }
            Look::Unknown | Look::Closed(_) | Look::Unfit => Ok(None),
            Look::Other => Ok(self.clients.find_client_by_id(id).await?),
        }
    }

    /// Records one thing and waits until it is durable.
    pub(crate) async fn record(&self, draft: Draft) -> Result<(), systemprompt_audit::LedgerError> {
        let mut unit = Unit::new();
        unit.record(draft);
        self.ledger.append(unit).await.map(drop)
    }
}

/// What is needed to issue tokens, and whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub keys: bool,
    pub database: bool,
    pub ledger: bool,
}

impl Health {
    pub fn is_well(self) -> bool {
        self.keys && self.database && self.ledger
    }
}

impl OAuthState {
    pub async fn health(&self) -> Health {
        let keys = self.keys.load();
        Health {
            keys: keys.signer(self.settings().algorithm).is_ok()
                && keys.signer(SigningAlgorithm::Rs256).is_ok(),
            database: self.db.ping().await.is_ok(),
            ledger: self.ledger.condition().is_ready(),
        }
    }
}
