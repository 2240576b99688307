//! Changing and deleting users. What a change ends, ends in its transaction (ID-51).

use super::{User, UserChange, UserKind, UserStatus, Users, check, check_locale, normal_roles, user_draft};
use crate::error::IdentityError;
use crate::repository::users::{Updated, erase};
use systemprompt_audit::{EntryKind, Payload, Role};
use systemprompt_database::{WriteTx, retry_contended};
use systemprompt_models::ids::EntryId;
use systemprompt_models::{Permission, RequestContext};
use systemprompt_security::session::UserEnd;

impl Users {
    /// Changes a user. `version` is the one that the caller has seen; without one, the present one. Whoever loses the right to act
    /// loses every session and grant. Another role or department ends what tells of the old one: all tokens up to now, and the
    /// sessions for which no refresh brings new ones.
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
        let before = self.seen(id, version).await?;
        if before.kind == UserKind::Client {
            let rule = "a client's own; change or disable the client".to_owned();
            return Err(IdentityError::Invalid(vec![("id", rule)]));
        }
        let after = if change.status == Some(UserStatus::Deleted) {
            self.deleted(&before)
        } else {
            self.changed(by, &before, change)
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
        let draft = match extent(&before, &after) {
            Some(Extent::All) => draft.with("sessions", self.sessions.count_of(&before.id, None).await?),
            Some(Extent::Told) => draft.with("sessions", self.sessions.count_told(&before.id).await?),
            None => draft,
        };
        let entry = self.record(draft).await?;
        retry_contended(|| self.put(&before, &after, &entry)).await?;
        Ok(after)
    }

    /// Puts `after` in the place of `before`, with the end of what ends by that.
    async fn put(&self, before: &User, after: &User, entry: &EntryId) -> Result<(), IdentityError> {
        let mut tx = self.begin_update(before, after).await?;
        if after.status == UserStatus::Deleted {
            erase(&mut tx, after.id.as_str()).await?;
        }
        let end = extent(before, after).map(|extent| match extent {
            Extent::All => UserEnd::All,
            Extent::Told => UserEnd::Told(entry),
        });
        self.end_with(tx, &after.id, end, "user_changed").await.map(drop)
    }

    /// The user of this id or name, in the version that the caller has seen, if it says one.
    pub(super) async fn seen(&self, id: &str, version: Option<i64>) -> Result<User, IdentityError> {
        let user = self.get(id).await?;
        if user.status == UserStatus::Deleted {
            return Err(IdentityError::Deleted);
        }
        if version.is_some_and(|seen| seen != user.version) {
            return Err(IdentityError::Changed);
        }
        Ok(user)
    }

    /// Writes `after` over `before`, in a transaction that goes on.
    pub(super) async fn begin_update(&self, before: &User, after: &User) -> Result<WriteTx, IdentityError> {
        match self.repository.update(after, before.version, after.is_administrator()).await? {
            Updated::Done(tx) => return Ok(tx),
            Updated::Clash(field) => return Err(IdentityError::Taken(field)),
            Updated::Not => {}
        }
        let now = self.get(before.id.as_str()).await?;
        if now.version == before.version {
            Err(IdentityError::LastAdministrator("removed, suspended or demoted"))
        } else {
            Err(IdentityError::Changed)
        }
    }

    fn changed(&self, by: &RequestContext, before: &User, change: UserChange) -> User {
        let vouches = change.email.is_some() && by.principal.has(Permission::Admin);
        let other_mail = change.email.is_some() && change.email != before.email;
        User {
            // Somebody else's word for one address says nothing of another.
            email_verified: before.email_verified && !other_mail,
            email_vouched: vouches || (before.email_vouched && !other_mail),
            locale: change.locale.or_else(|| before.locale.clone()).filter(|tag| !tag.is_empty()),
            email: change.email.or_else(|| before.email.clone()),
            display_name: change.display_name.or_else(|| before.display_name.clone()),
            roles: change.roles.map_or_else(|| before.roles.clone(), normal_roles),
            department: change.department.or_else(|| before.department.clone()).filter(|d| !d.is_empty()),
            status: change.status.unwrap_or(before.status),
            updated_at: self.clock.now(),
            version: before.version + 1,
            ..before.clone()
        }
    }

    /// What is left of a user: the id, under which records tell of them. No name has a colon, so that none meets the one here.
    pub(super) fn deleted(&self, before: &User) -> User {
        User {
            username: format!("deleted:{}", before.id),
            email: None,
            email_verified: false,
            email_vouched: false,
            display_name: None,
            roles: Vec::new(),
            department: None,
            locale: None,
            status: UserStatus::Deleted,
            updated_at: self.clock.now(),
            version: before.version + 1,
            ..before.clone()
        }
    }
}

/// How much ends with a change.
enum Extent {
    All,
    /// What tells of the user as they were.
    Told,
}

fn extent(before: &User, after: &User) -> Option<Extent> {
    let told = before.roles != after.roles || before.department != after.department;
    match after.status {
        UserStatus::Active => told.then_some(Extent::Told),
        _ => Some(Extent::All),
    }
}
