//! Users: who they are, which roles they hold, and what those permit.

pub mod change;
pub mod create;
pub mod merge;

use crate::error::IdentityError;
use crate::models::oauth::api::Page;
use crate::repository::users::{UserFilter, UserRepository, close_doors, end_grants, end_refresh_tokens};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use systemprompt_audit::{Draft, EntryKind, Guard, Ledger, Unit};
use systemprompt_config::profile::identity::IdentityConfig;
use systemprompt_database::{Db, WriteTx, retry_contended};
use systemprompt_models::ids::{EntryId, UserId};
use systemprompt_models::{AuthenticatedUser, Clock, Millis, Permission, RequestContext, Secret};
use systemprompt_security::session::{Cutoff, Ended, Sessions, UserEnd};

/// How often grants and sessions end by turns: each turn needs a unit that was written during the one before.
const MOST_ROUNDS: usize = 16;
/// Most roles that a user may hold.
pub const MAX_ROLES: usize = 32;

/// What a user is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    #[default]
    Person,
    /// Whom the tokens of an OAuth client stand for; never signs in.
    Client,
    /// Acts by keys and tokens alone.
    Service,
}

impl UserKind {
    const ALL: [Self; 3] = [Self::Person, Self::Client, Self::Service];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Client => "client",
            Self::Service => "service",
        }
    }

    /// The kind of a row; a word that this version does not know never signs in.
    pub(crate) fn of_row(word: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or(Self::Service)
    }
}

/// Whether a user may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    Active,
    Inactive,
    Suspended,
    Pending,
    Deleted,
    /// Made for a while by what is to decide on it later; may not act.
    Temporary,
}

impl UserStatus {
    const ALL: [Self; 6] =
        [Self::Active, Self::Inactive, Self::Suspended, Self::Pending, Self::Deleted, Self::Temporary];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Suspended => "suspended",
            Self::Pending => "pending",
            Self::Deleted => "deleted",
            Self::Temporary => "temporary",
        }
    }

    /// The status of this name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// The status of a row; a word that this version does not know may not act.
    pub(crate) fn of_row(word: &str) -> Self {
        Self::parse(word).unwrap_or(Self::Inactive)
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    pub id: UserId,
    pub kind: UserKind,
    pub username: String,
    pub email: Option<String>,
    pub email_verified: bool,
    /// Whether an administrator wrote the mail, who vouches for it as far as links of other issuers go.
    #[serde(skip)]
    pub email_vouched: bool,
    pub display_name: Option<String>,
    pub status: UserStatus,
    pub roles: Vec<String>,
    pub department: Option<String>,
    /// Language tag (BCP 47).
    pub locale: Option<String>,
    pub created_at: Millis,
    pub updated_at: Millis,
    /// Counts changes; the ETag of the user.
    pub version: i64,
}

impl User {
    /// Whether the user administers the deployment: active, with the role `admin`.
    pub fn is_administrator(&self) -> bool {
        self.status == UserStatus::Active && self.roles.iter().any(|role| role == "admin")
    }

    /// The user as tokens name them, with these permissions.
    pub fn with_permissions(&self, permissions: Vec<Permission>) -> AuthenticatedUser {
        AuthenticatedUser {
            department: self.department.clone(),
            ..AuthenticatedUser::new_with_roles(
                self.id.clone(),
                self.username.as_str(),
                self.email.clone().unwrap_or_default(),
                permissions,
                self.roles.clone(),
            )
        }
    }

    /// Holds while the user is active and as they were read: what is given to whom they were then does not outlive a change.
    pub fn stands(&self) -> Guard {
        crate::repository::users::stands(self.id.as_str(), self.version)
    }
}

/// What each role permits (`security.identity.role_permissions`).
pub type RolePermissions = BTreeMap<String, Vec<Permission>>;

/// What roles permit together, in the order of [`Permission::ALL`].
pub fn permissions_of_roles<'a>(
    table: &RolePermissions,
    roles: impl IntoIterator<Item = &'a str>,
) -> Vec<Permission> {
    let granted: Vec<Permission> =
        roles.into_iter().filter_map(|role| table.get(role)).flatten().copied().collect();
    Permission::ALL.into_iter().filter(|permission| granted.contains(permission)).collect()
}

/// What a user may now; nothing unless active.
pub fn permissions_of_user(table: &RolePermissions, user: &User) -> Vec<Permission> {
    if user.status != UserStatus::Active {
        return Vec::new();
    }
    permissions_of_roles(table, user.roles.iter().map(String::as_str))
}

/// Whether a permission goes into what a user uses in person. A person's role carries `service` and the hook scopes only so that
/// a client of theirs can have them (ID-38).
pub(crate) fn is_personal(user: &User, permission: Permission) -> bool {
    match permission {
        Permission::Admin | Permission::User | Permission::A2a | Permission::Mcp => true,
        Permission::Service => user.kind == UserKind::Service,
        Permission::HookGovern | Permission::HookTrack | Permission::Anonymous => false,
    }
}

/// A user to be made.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub username: String,
    #[serde(default)]
    pub email: Option<String>,
    #[serde(default)]
    pub display_name: Option<String>,
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub department: Option<String>,
    #[serde(default)]
    pub kind: UserKind,
    /// A password that another system hashed: bcrypt, or Argon2id in PHC form.
    #[serde(default)]
    pub password_hash: Option<Secret<String>>,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What is to change of a user; absent members stay.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    pub email: Option<String>,
    pub display_name: Option<String>,
    pub roles: Option<Vec<String>>,
    pub department: Option<String>,
    pub locale: Option<String>,
    pub status: Option<UserStatus>,
}

/// Reads and changes users.
#[derive(Clone)]
pub struct Users {
    pub(crate) repository: UserRepository,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    sessions: Arc<Sessions>,
    roles: Arc<ArcSwap<RolePermissions>>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

impl Users {
    /// Roles permit what they do by default until [`Self::permit`] says otherwise.
    pub fn new(db: Db, ledger: Ledger, clock: Arc<dyn Clock>, sessions: Arc<Sessions>) -> Self {
        let roles = Arc::new(ArcSwap::from_pointee(IdentityConfig::default().role_permissions));
        Self { repository: UserRepository::new(db), ledger, clock, sessions, roles }
    }

    /// Puts another table of what roles permit in force.
    pub fn permit(&self, table: RolePermissions) {
        self.roles.store(Arc::new(table));
    }

    /// All that a user may now; nothing unless active.
    pub fn permissions(&self, user: &User) -> Vec<Permission> {
        permissions_of_user(&self.roles.load(), user)
    }

    /// What a user's own credentials have where nothing less is asked for: without what is for clients alone.
    pub fn own_permissions(&self, user: &User) -> Vec<Permission> {
        let all = self.permissions(user);
        all.into_iter().filter(|permission| is_personal(user, *permission)).collect()
    }

    async fn record(&self, draft: Draft) -> Result<EntryId, IdentityError> {
        let mut unit = Unit::new();
        let entry = unit.record(draft);
        self.ledger.append(unit).await?;
        Ok(entry)
    }

    /// Ends what `end` says of a user, and with their sessions the grants too; `tx` is committed with it. Returns how many sessions
    /// were live.
    ///
    /// # Errors
    /// Rows that cannot be written; then nothing of `tx` counts.
    pub(crate) async fn end_with(
        &self,
        mut tx: WriteTx,
        user: &UserId,
        end: Option<UserEnd<'_>>,
        reason: &str,
    ) -> Result<usize, IdentityError> {
        let Some(end) = end else {
            tx.commit().await?;
            return Ok(0);
        };
        let with_grants = matches!(end, UserEnd::All | UserEnd::Others(_));
        if with_grants {
            end_grants(&mut tx, user.as_str(), reason, self.clock.now()).await?;
        }
        let mut ended = self.sessions.end_in(&mut tx, user, end, reason).await?;
        if with_grants {
            self.end_given(&mut tx, user, (end, reason), &mut ended).await?;
        }
        tx.commit().await?;
        Ok(self.sessions.apply_end(ended))
    }

    /// Ends the sessions of a user that `end` names, with every grant, in one transaction. Returns how many were live.
    ///
    /// # Errors
    /// Rows that cannot be written; then nothing ended.
    pub(crate) async fn end_sessions(
        &self,
        user: &UserId,
        end: UserEnd<'_>,
        reason: &str,
    ) -> Result<usize, IdentityError> {
        retry_contended(|| async {
            self.end_with(self.repository.begin().await?, user, Some(end), reason).await
        })
        .await
    }

    /// Ends what came about while the grants and sessions of a user ended: a unit that was waited for may have given a grant in one
    /// of the sessions, and that may have opened a session. Behind it go the refresh tokens, which units write last.
    async fn end_given(
        &self,
        tx: &mut WriteTx,
        user: &UserId,
        (end, reason): (UserEnd<'_>, &str),
        ended: &mut Ended,
    ) -> Result<(), IdentityError> {
        let now = self.clock.now();
        for _ in 0..MOST_ROUNDS {
            if end_grants(tx, user.as_str(), reason, now).await? == 0 {
                return Ok(end_refresh_tokens(tx, user.as_str(), now).await?);
            }
            ended.append(self.sessions.end_in(tx, user, end, reason).await?);
        }
        Err(IdentityError::Database(sqlx::Error::Protocol("grants are given faster than they end".into())))
    }

    /// Ends every token, session and grant of a user up to `cutoff`, and what would lead back in: API keys, remembered consents,
    /// recovery codes, open links and codes. Passkeys and the password stay. `entry` is the record of it. Returns how many sessions
    /// were live.
    ///
    /// # Errors
    /// Rows that cannot be written; then nothing ended.
    pub async fn shut_out(&self, cutoff: &Cutoff, entry: &EntryId) -> Result<usize, IdentityError> {
        let ended = retry_contended(|| self.shut_out_once(cutoff, entry)).await?;
        Ok(self.sessions.apply_end(ended))
    }

    async fn shut_out_once(&self, cutoff: &Cutoff, entry: &EntryId) -> Result<Ended, IdentityError> {
        let (user, now) = (UserId::from(cutoff.id.as_str()), self.clock.now());
        let mut tx = self.repository.begin().await?;
        close_doors(&mut tx, user.as_str(), now).await?;
        end_grants(&mut tx, user.as_str(), &cutoff.reason, now).await?;
        let mut ended = self.sessions.cut_off_in(&mut tx, cutoff, entry).await?;
        self.end_given(&mut tx, &user, (UserEnd::All, &cutoff.reason), &mut ended).await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// One user, by id or by name.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn get(&self, id_or_name: &str) -> Result<User, IdentityError> {
        self.find(id_or_name)
            .await?
            .ok_or_else(|| IdentityError::NotFound { what: "user", id: id_or_name.to_owned() })
    }

    /// One user, by id or by name, if there is one.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn find(&self, id_or_name: &str) -> Result<Option<User>, IdentityError> {
        if let Some(user) = self.repository.by_id(id_or_name).await? {
            return Ok(Some(user));
        }
        Ok(self.repository.by_username(&id_or_name.to_lowercase()).await?)
    }

    /// The person with this mail, whatever its case.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn by_email(&self, mail: &str) -> Result<Option<User>, IdentityError> {
        Ok(self.repository.by_email(&mail.to_lowercase()).await?)
    }

    /// A page of users, by id, whom `filter` fits.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn page(&self, page: Page<'_>, filter: &UserFilter<'_>) -> Result<Vec<User>, IdentityError> {
        Ok(self.repository.page(page, filter).await?)
    }
}

fn check_locale(locale: Option<&str>) -> Result<(), IdentityError> {
    let fits = |tag: &str| tag.len() <= 35 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match locale {
        Some(tag) if !fits(tag) => {
            Err(IdentityError::Invalid(vec![("locale", "a language tag, as de or en-GB".to_owned())]))
        }
        _ => Ok(()),
    }
}

pub(crate) fn user_draft(kind: EntryKind, by: &RequestContext, id: &UserId) -> Draft {
    Draft::new(kind, by, "ok").with_subject("user", id.as_str())
}

pub(crate) fn normal_roles(mut roles: Vec<String>) -> Vec<String> {
    roles.sort_unstable();
    roles.dedup();
    roles
}

/// Checks fields against PL-27; every fault at once.
pub(crate) fn check(
    username: Option<&str>,
    email: Option<&str>,
    display_name: Option<&str>,
    roles: Option<&[String]>,
) -> Result<(), IdentityError> {
    let mut faults = Vec::new();
    if let Some(name) = username {
        let fits = (1..=50).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            // Users are named by either; what looks like an id is one.
            && !name.to_ascii_lowercase().starts_with("usr_");
        if !fits {
            faults.push((
                "username",
                "1 to 50 characters of A-Z a-z 0-9 _ -, which do not begin with usr_".to_owned(),
            ));
        }
    }
    if let Some(mail) = email {
        let fits = mail.len() <= 254
            && mail.split_once('@').is_some_and(|(local, host)| !local.is_empty() && host.contains('.'))
            && !mail.chars().any(|c| c.is_whitespace() || c.is_control());
        if !fits {
            faults.push(("email", "an address of at most 254 characters".to_owned()));
        }
    }
    if display_name.is_some_and(|name| name.chars().count() > 200 || name.chars().any(char::is_control)) {
        faults.push(("display_name", "at most 200 characters, none of them a control character".to_owned()));
    }
    if let Some(roles) = roles {
        if roles.len() > MAX_ROLES {
            faults.push(("roles", format!("at most {MAX_ROLES}")));
        }
        if let Some(role) = roles.iter().find(|role| !is_role(role)) {
            faults.push(("roles", format!("`{role}` does not match [a-z][a-z0-9_-]{{0,63}}")));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(IdentityError::Invalid(faults)) }
}

fn is_role(role: &str) -> bool {
    role.len() <= 64
        && role.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && role.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}
