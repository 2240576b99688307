//! Making users; with a key, once however often it is asked for.

use super::{NewUser, User, UserKind, UserStatus, Users, check, normal_roles, user_draft};
use crate::error::IdentityError;
use crate::repository::users::{NewRequest, Written};
use crate::services::password;
use aws_lc_rs::digest::{SHA256, digest};
use systemprompt_audit::{EntryKind, Payload, Role};
use systemprompt_models::ids::UserId;
use systemprompt_models::{Millis, Permission, RequestContext};

/// How long a key is remembered.
const REQUEST_LIFE: Millis = 86_400_000;

impl Users {
    /// Makes a user.
    ///
    /// # Errors
    /// Fields out of bounds (all at once), a name or mail that is taken, or a change that could not be recorded.
    pub async fn create(&self, by: &RequestContext, new: NewUser) -> Result<User, IdentityError> {
        self.create_keyed(by, new, None).await
    }

    /// Makes a user unless one was made under `key` by the same caller within a day; then that one.
    ///
    /// # Errors
    /// As [`Self::create`]; a key that came with another request, or whose user is gone.
    pub async fn create_once(
        &self,
        by: &RequestContext,
        new: NewUser,
        key: &str,
    ) -> Result<User, IdentityError> {
        let owner = by.principal.user_id.to_string();
        let request = NewRequest {
            digest: digest_of(&new),
            expires_at: self.clock.now() + REQUEST_LIFE,
            key: key.to_owned(),
            owner,
        };
        if let Some(before) = self.before(&request).await? {
            return Ok(before);
        }
        match self.create_keyed(by, new, Some(&request)).await {
            // Another call with the key was faster.
            Err(error @ (IdentityError::KeyUsed | IdentityError::Taken(_))) => {
                self.before(&request).await?.ok_or(error)
            }
            made => made,
        }
    }

    /// The user that a request of this key made.
    async fn before(&self, request: &NewRequest) -> Result<Option<User>, IdentityError> {
        let found = self.repository.request(&request.owner, &request.key, self.clock.now()).await?;
        let Some((digest, user_id)) = found else { return Ok(None) };
        if digest != request.digest {
            return Err(IdentityError::OtherRequest);
        }
        let user = self.repository.by_id(&user_id).await?;
        user.filter(|user| user.status != UserStatus::Deleted).map(Some).ok_or(IdentityError::KeyUsed)
    }

    async fn create_keyed(
        &self,
        by: &RequestContext,
        new: NewUser,
        request: Option<&NewRequest>,
    ) -> Result<User, IdentityError> {
        check(Some(&new.username), new.email.as_deref(), new.display_name.as_deref(), Some(&new.roles))?;
        let hash = new.password_hash.as_ref().filter(|_| new.kind == UserKind::Person);
        let hash = hash.and_then(password::importable);
        if new.password_hash.is_some() && hash.is_none() {
            let form = "bcrypt of cost 4 to 14 or Argon2id in PHC form, of a person".to_owned();
            return Err(IdentityError::Invalid(vec![("password_hash", form)]));
        }
        let now = self.clock.now();
        let user = User {
            id: UserId::generate(),
            kind: new.kind,
            username: new.username,
            email: new.email,
            email_verified: false,
            email_vouched: by.principal.has(Permission::Admin),
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
            .with("roles", user.roles.clone())
            .with("password", hash.as_ref().map(|_| "imported"));
        self.record(draft).await?;
        match self.repository.insert(&user, hash.as_deref(), request).await? {
            Written::Done => Ok(user),
            Written::Clash(field) => Err(IdentityError::Taken(field)),
            Written::Repeated => Err(IdentityError::KeyUsed),
        }
    }
}

/// What tells two requests apart. A hash of a password counts as there or not: a salt makes it another one each time.
fn digest_of(new: &NewUser) -> String {
    let parts = serde_json::json!([
        new.username,
        new.email,
        new.display_name,
        new.roles,
        new.department,
        new.kind,
        new.password_hash.is_some()
    ]);
    hex::encode(digest(&SHA256, parts.to_string().as_bytes()))
}
