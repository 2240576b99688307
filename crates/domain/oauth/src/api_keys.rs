//! API keys: 256 random bits that are shown once and kept as a keyed digest.

use crate::at_rest::{AtRest, Label};
use crate::error::IdentityError;
use crate::models::oauth::api::Page;
use crate::repository::api_keys::ApiKeyRepository;
use crate::users::Users;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use systemprompt_audit::{Draft, EntryKind, Ledger, Payload, Role, Unit};
use systemprompt_database::Db;
use systemprompt_models::auth::scope_of;
use systemprompt_models::ids::{ApiKeyId, SessionId, UserId};
use systemprompt_models::{
    Clock, CredentialKind, JwtAudience, Millis, Permission, Principal, RequestContext, Secret, UserType,
    parse_permissions,
};
use systemprompt_security::auth::api_key::{
    ApiKeyError, ApiKeyFuture, ApiKeyProvider, VerifiedKey, generate, has_valid_checksum, preview,
};

/// Most live keys that one user may have.
pub const MAX_LIVE_KEYS: i64 = 50;
const DAY_MS: Millis = 86_400_000;
const DEFAULT_DAYS: i64 = 90;
const MAX_DAYS: i64 = 365;
/// Audiences that a key may be bound to: the names of the surfaces that take keys.
const AUDIENCES: [&str; 3] = ["api", "a2a", "bridge"];
/// Most networks of a key.
const MAX_CIDRS: usize = 20;

/// A key as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub user_id: UserId,
    pub name: String,
    /// First 12 characters.
    pub prefix: String,
    /// Last 4 characters.
    pub suffix: String,
    pub scopes: Vec<Permission>,
    /// Surfaces that it counts on; every one that takes keys if empty.
    pub audiences: Vec<String>,
    /// Networks that it may come from; any if empty.
    pub allowed_cidrs: Vec<IpNet>,
    pub created_at: Millis,
    pub expires_at: Option<Millis>,
    pub last_used_at: Option<Millis>,
    pub revoked_at: Option<Millis>,
}

/// A key to be made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// User id or name of the owner.
    pub user: String,
    pub name: String,
    /// Space-separated; absent: all that the owner has.
    #[serde(default)]
    pub scope: Option<String>,
    /// Surfaces that it counts on: `api`, `a2a`, `bridge`; every one that takes keys if empty.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Networks that it may come from, as `10.0.0.0/8`; any if empty.
    #[serde(default)]
    pub allowed_cidrs: Vec<String>,
    /// Days until it expires, 1 to 365; absent: 90.
    #[serde(default)]
    pub expires_in_days: Option<i64>,
    /// That it does not expire; only an administrator makes such a key.
    #[serde(default)]
    pub never_expires: bool,
}

/// Makes, lists, revokes and verifies API keys.
#[derive(Clone)]
pub struct ApiKeys {
    repository: ApiKeyRepository,
    users: Users,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    at_rest: AtRest,
}

/// What became of a value that was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaked {
    /// It was live and is no more.
    Revoked(Box<ApiKey>),
    /// Nobody's, or ended before.
    NotLive,
    /// Its form or checksum is not a key's; nothing was looked up.
    NoKey,
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeys").finish_non_exhaustive()
    }
}

impl ApiKeys {
    pub fn new(db: Db, users: Users, ledger: Ledger, clock: Arc<dyn Clock>, at_rest: AtRest) -> Self {
        Self { repository: ApiKeyRepository::new(db), users, ledger, clock, at_rest }
    }

    /// The live key of this value. One whose digest is of the pepper before moves to the present one (ID-103).
    async fn live(&self, value: &str, now: Millis) -> Result<Option<ApiKey>, IdentityError> {
        let (present, previous) = self.at_rest.candidates(Label::ApiKey, value);
        let Some((key, digest)) = self.repository.live_by_digest((&present, &previous), now).await? else {
            return Ok(None);
        };
        if digest != present {
            let digest = self.at_rest.digest(Label::ApiKey, value);
            self.repository.redigest(key.id.as_str(), &previous, &digest).await?;
        }
        Ok(Some(key))
    }

    /// Makes a key. The value is returned this once and stored nowhere.
    ///
    /// # Errors
    /// No such user, fields out of bounds, too many live keys, or a change that could not be recorded.
    pub async fn create(
        &self,
        by: &RequestContext,
        new: NewApiKey,
    ) -> Result<(ApiKey, Secret<String>), IdentityError> {
        let owner = self.users.get(&new.user).await?;
        let mut owned = self.users.permissions(&owner);
        // Nobody makes themselves a key that may more than what they came with.
        if by.principal.user_id == owner.id {
            owned.retain(|permission| by.principal.has(*permission));
        }
        let scopes = match &new.scope {
            None => {
                let own = self.users.own_permissions(&owner);
                own.into_iter().filter(|permission| owned.contains(permission)).collect()
            }
            Some(scope) => parse_permissions(scope)
                .map_err(|e| IdentityError::Invalid(vec![("scope", e.to_string())]))?,
        };
        let days = new.expires_in_days.unwrap_or(DEFAULT_DAYS);
        let mut faults = Vec::new();
        if new.name.is_empty() || new.name.chars().count() > 100 {
            faults.push(("name", "1 to 100 characters".to_owned()));
        }
        if scopes.is_empty() || !scopes.iter().all(|scope| owned.contains(scope)) {
            faults.push(("scope", format!("a subset of the owner's: {}", scope_of(&owned))));
        }
        if !(1..=MAX_DAYS).contains(&days) {
            faults.push(("expires_in_days", format!("1 to {MAX_DAYS}")));
        }
        if new.never_expires && (!by.principal.has(Permission::Admin) || new.expires_in_days.is_some()) {
            faults.push(("never_expires", "by an administrator, and without expires_in_days".to_owned()));
        }
        if !new.audiences.iter().all(|audience| AUDIENCES.contains(&audience.as_str())) {
            faults.push(("audiences", format!("of {}", AUDIENCES.join(", "))));
        }
        let cidrs: Option<Vec<IpNet>> = new.allowed_cidrs.iter().map(|text| network(text)).collect();
        if cidrs.as_ref().is_none_or(|cidrs| cidrs.len() > MAX_CIDRS) {
            faults.push(("allowed_cidrs", format!("at most {MAX_CIDRS} networks, as 10.0.0.0/8")));
        }
        if !faults.is_empty() {
            return Err(IdentityError::Invalid(faults));
        }
        let value = generate()?;
        let (prefix, suffix) = preview(value.expose()).unwrap_or_default();
        let now = self.clock.now();
        let key = ApiKey {
            id: ApiKeyId::generate(),
            user_id: owner.id.clone(),
            name: new.name,
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            scopes,
            audiences: crate::users::normal_roles(new.audiences),
            allowed_cidrs: cidrs.unwrap_or_default(),
            created_at: now,
            expires_at: (!new.never_expires).then_some(now + days * DAY_MS),
            last_used_at: None,
            revoked_at: None,
        };
        let draft = Draft::new(EntryKind::OauthApiKeyCreated, by, "ok")
            .with_subject("api_key", key.id.as_str())
            .with_payload(Payload::of(Role::After, &key).about(owner.id.as_str()))
            .with("user_id", owner.id.as_str())
            .with("scopes", scope_of(&key.scopes));
        self.record(draft).await?;
        let digest = self.at_rest.digest(Label::ApiKey, value.expose());
        if self.repository.insert(&key, &digest, now, MAX_LIVE_KEYS).await? {
            Ok((key, value))
        } else {
            Err(IdentityError::TooManyKeys)
        }
    }

    /// Ends a key; it is refused from now on.
    ///
    /// # Errors
    /// No such key, one that was revoked already, or a change that could not be recorded.
    pub async fn revoke(&self, by: &RequestContext, id: &str) -> Result<(), IdentityError> {
        self.end(by, id, None).await
    }

    /// Ends the live key of a value that somebody found where it must not be (ID-141).
    ///
    /// # Errors
    /// When the keys cannot be read, or a change could not be recorded.
    pub async fn report(&self, by: &RequestContext, value: &Secret<String>) -> Result<Leaked, IdentityError> {
        if !has_valid_checksum(value.expose()) {
            return Ok(Leaked::NoKey);
        }
        let Some(key) = self.live(value.expose(), self.clock.now()).await? else {
            return Ok(Leaked::NotLive);
        };
        match self.end(by, key.id.as_str(), Some("leaked")).await {
            Ok(()) => Ok(Leaked::Revoked(Box::new(key))),
            // Another report was faster.
            Err(IdentityError::Revoked { .. }) => Ok(Leaked::NotLive),
            Err(error) => Err(error),
        }
    }

    async fn end(
        &self,
        by: &RequestContext,
        id: &str,
        reason: Option<&'static str>,
    ) -> Result<(), IdentityError> {
        let missing = || IdentityError::NotFound { what: "API key", id: id.to_owned() };
        let revoked = |at| IdentityError::Revoked { id: id.to_owned(), at };
        let key = self.repository.by_id(id).await?.ok_or_else(missing)?;
        if let Some(at) = key.revoked_at {
            return Err(revoked(at));
        }
        let draft = Draft::new(EntryKind::OauthApiKeyRevoked, by, "ok")
            .with_subject("api_key", id)
            .with("user_id", key.user_id.as_str());
        let draft = match reason {
            Some(reason) => draft.with_reason(reason),
            None => draft,
        };
        self.record(draft.with_payload(Payload::of(Role::Before, &key).about(key.user_id.as_str()))).await?;
        let now = self.clock.now();
        // Somebody else may have been faster.
        if self.repository.revoke(id, now).await? { Ok(()) } else { Err(revoked(now)) }
    }

    /// A page of keys, by id; of one user, if given.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn page(&self, page: Page<'_>, user_id: Option<&str>) -> Result<Vec<ApiKey>, IdentityError> {
        Ok(self.repository.page(page, user_id).await?)
    }

    /// Whether the key is one of this user.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn is_of(&self, id: &str, user: &UserId) -> Result<bool, IdentityError> {
        Ok(self.repository.by_id(id).await?.is_some_and(|key| key.user_id == *user))
    }

    async fn record(&self, draft: Draft) -> Result<(), IdentityError> {
        let mut unit = Unit::new();
        unit.record(draft);
        self.ledger.append(unit).await?;
        Ok(())
    }

    async fn principal(&self, key: &str) -> Result<Option<VerifiedKey>, IdentityError> {
        let now = self.clock.now();
        let Some(key) = self.live(key, now).await? else { return Ok(None) };
        let Some(owner) = self.users.find(key.user_id.as_str()).await? else { return Ok(None) };
        let owned = self.users.permissions(&owner);
        let permissions: Vec<Permission> = key.scopes.into_iter().filter(|p| owned.contains(p)).collect();
        if permissions.is_empty() {
            return Ok(None);
        }
        self.repository.touch(key.id.as_str(), now).await?;
        let user_type = UserType::of(&permissions);
        let principal = Principal {
            user_id: owner.id,
            // A key has no sign-in: its session is the key itself.
            session_id: SessionId::new(key.id.as_str()),
            client_id: None,
            user_type,
            tier: user_type.tier(),
            permissions,
            roles: owner.roles,
            department: owner.department,
            act_chain: Vec::new(),
            credential: CredentialKind::ApiKey { id: key.id },
            owner: None,
            plugin_id: None,
        };
        Ok(Some(VerifiedKey {
            audiences: key.audiences.iter().map(|name| JwtAudience::from(name.as_str())).collect(),
            networks: key.allowed_cidrs.into(),
            ..VerifiedKey::anywhere(principal)
        }))
    }
}

/// A network; an address alone is one of its own.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok();
    network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|network| network.trunc())
}

impl ApiKeyProvider for ApiKeys {
    fn verify<'a>(&'a self, key: &'a str) -> ApiKeyFuture<'a> {
        Box::pin(async move { self.principal(key).await.map_err(|e| ApiKeyError::Storage(Box::new(e))) })
    }
}
