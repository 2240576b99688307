//! Users: who they are, which roles they hold, and the principal that a credential of theirs stands for.

use crate::error::IdentityError;
use crate::repository::users::{UserRepository, Written};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use systemprompt_audit::{Draft, EntryKind, Ledger, Payload, Role, Unit};
use systemprompt_database::Db;
use systemprompt_models::ids::UserId;
use systemprompt_models::{Clock, Millis, Permission, RequestContext};

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
}

impl UserStatus {
    const ALL: [Self; 5] = [Self::Active, Self::Inactive, Self::Suspended, Self::Pending, Self::Deleted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Suspended => "suspended",
            Self::Pending => "pending",
            Self::Deleted => "deleted",
        }
    }

    /// The status of a row; a word that this version does not know may not act.
    pub(crate) fn of_row(word: &str) -> Self {
        Self::ALL.into_iter().find(|s| s.as_str() == word).unwrap_or(Self::Inactive)
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
    /// The permissions of a user: those of the roles that name one. Whoever may not act has none.
    pub fn permissions(&self) -> Vec<Permission> {
        if self.status != UserStatus::Active {
            return Vec::new();
        }
        [(Permission::Admin, "admin"), (Permission::User, "user"), (Permission::Service, "service")]
            .into_iter()
            .filter(|(_, role)| self.roles.iter().any(|r| r == role))
            .map(|(permission, _)| permission)
            .collect()
    }
}

/// A user to be made.
#[derive(Clone, Debug, Default, Deserialize)]
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
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

impl Users {
    pub fn new(db: Db, ledger: Ledger, clock: Arc<dyn Clock>) -> Self {
        Self { repository: UserRepository::new(db), ledger, clock }
    }

    /// Makes a user.
    ///
    /// # Errors
    /// Fields out of bounds (all at once), a name or mail that is taken, or a change that could not be recorded.
    pub async fn create(&self, by: &RequestContext, new: NewUser) -> Result<User, IdentityError> {
        check(Some(&new.username), new.email.as_deref(), new.display_name.as_deref(), Some(&new.roles))?;
        let now = self.clock.now();
        let user = User {
            id: UserId::generate(),
            kind: new.kind,
            username: new.username,
            email: new.email,
            email_verified: false,
            display_name: new.display_name,
            status: UserStatus::Active,
            roles: normal_roles(new.roles),
            department: new.department.filter(|d| !d.is_empty()),
            locale: None,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        if let Some(field) = self.repository.clash(&user).await? {
            return Err(IdentityError::Taken(field));
        }
        let draft = user_draft(EntryKind::AdminUserCreated, by, &user.id)
            .with_payload(Payload::of(Role::After, &user).about(user.id.as_str()))
            .with("roles", user.roles.clone());
        self.record(draft).await?;
        match self.repository.insert(&user).await? {
            Written::Done => Ok(user),
            Written::Clash(field) => Err(IdentityError::Taken(field)),
        }
    }

    /// Changes a user. `version` is the one that the caller has seen; without one, the present one.
    ///
    /// # Errors
    /// No such user, another version, fields out of bounds, the last administrator, or a change that could not be recorded.
    pub async fn change(
        &self,
        by: &RequestContext,
        id: &str,
        version: Option<i64>,
        change: UserChange,
    ) -> Result<User, IdentityError> {
        check(None, change.email.as_deref(), change.display_name.as_deref(), change.roles.as_deref())?;
        check_locale(change.locale.as_deref())?;
        let before = self.get(id).await?;
        if version.is_some_and(|seen| seen != before.version) {
            return Err(IdentityError::Changed);
        }
        let other_mail = change.email.is_some() && change.email != before.email;
        let after = User {
            // Somebody else's word for one address says nothing of another.
            email_verified: before.email_verified && !other_mail,
            locale: change.locale.or_else(|| before.locale.clone()).filter(|tag| !tag.is_empty()),
            email: change.email.or_else(|| before.email.clone()),
            display_name: change.display_name.or_else(|| before.display_name.clone()),
            roles: change.roles.map_or_else(|| before.roles.clone(), normal_roles),
            department: change.department.or_else(|| before.department.clone()).filter(|d| !d.is_empty()),
            status: change.status.unwrap_or(before.status),
            updated_at: self.clock.now(),
            version: before.version + 1,
            ..before.clone()
        };
        if let Some(field) = self.repository.clash(&after).await? {
            return Err(IdentityError::Taken(field));
        }
        let kind = match after.status {
            UserStatus::Deleted => EntryKind::AdminUserDeleted,
            _ => EntryKind::AdminUserChanged,
        };
        let draft = user_draft(kind, by, &before.id)
            .with_payload(Payload::of(Role::Before, &before).about(before.id.as_str()))
            .with_payload(Payload::of(Role::After, &after).about(before.id.as_str()))
            .with("roles_before", before.roles.clone())
            .with("roles_after", after.roles.clone())
            .with("status_before", before.status.as_str())
            .with("status_after", after.status.as_str());
        self.record(draft).await?;
        let keeps_admin = after.permissions().contains(&Permission::Admin);
        if self.repository.update(&after, before.version, keeps_admin).await? {
            return Ok(after);
        }
        let now = self.get(id).await?;
        if now.version == before.version {
            Err(IdentityError::LastAdministrator("removed, suspended or demoted"))
        } else {
            Err(IdentityError::Changed)
        }
    }

    async fn record(&self, draft: Draft) -> Result<(), IdentityError> {
        let mut unit = Unit::new();
        unit.record(draft);
        self.ledger.append(unit).await?;
        Ok(())
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

    /// At most `limit` users behind the id `after`, by id. With `query`, those whose name, mail or id begins with it.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn page(
        &self,
        after: &str,
        query: Option<&str>,
        limit: i64,
    ) -> Result<Vec<User>, IdentityError> {
        Ok(self.repository.page(after, query.map(str::to_lowercase).as_deref(), limit).await?)
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

fn user_draft(kind: EntryKind, by: &RequestContext, id: &UserId) -> Draft {
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
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !fits {
            faults.push(("username", "1 to 50 characters of A-Z a-z 0-9 _ -".to_owned()));
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

/// Ends the grants of a user with their refresh tokens.
///
/// # Errors
/// Rows that cannot be written.
pub async fn end_grants(
    state: &crate::state::OAuthState,
    user: &UserId,
    reason: &str,
) -> Result<u64, IdentityError> {
    Ok(state.users.repository.end_grants(user.as_str(), reason, state.now()).await?)
}

/// Ends every session and grant of a user, with the tokens of them.
pub(crate) async fn end_everything(
    state: &crate::state::OAuthState,
    user: &UserId,
    reason: &str,
) -> crate::error::OauthResult<usize> {
    state.users.repository.end_grants(user.as_str(), reason, state.now()).await?;
    Ok(state.sessions.revoke_user(user, reason).await?)
}
