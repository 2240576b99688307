//! People who are made by coming: at the end of a ceremony, or with a token of an issuer whose subjects become users (ID-60, ID-84).
//! What an administrator writes is made elsewhere, with all that a form may say.

use crate::repository::users::add;
use crate::state::OAuthState;
use crate::users::{User, UserKind, UserStatus, normal_roles, user_draft};
use systemprompt_audit::{Draft, EntryKind, Guard, Payload, Role};
use systemprompt_models::RequestContext;
use systemprompt_models::ids::UserId;

/// What is known of somebody who comes.
#[derive(Clone, Debug, Default)]
pub struct Newcomer {
    pub username: String,
    pub email: Option<String>,
    /// Whether they came by this address.
    pub email_verified: bool,
    pub display_name: Option<String>,
    /// Those of the configuration if absent.
    pub roles: Option<Vec<String>>,
}

/// Makes people, in the unit of what they come with.
#[derive(Clone, Copy, Debug)]
pub struct UserCreationService<'a>(pub &'a OAuthState);

impl UserCreationService<'_> {
    /// The person, who is nobody until their rows are written.
    pub fn person(&self, new: Newcomer) -> User {
        let now = self.0.now();
        let roles = new.roles.unwrap_or_else(|| self.0.settings().identity.default_roles.clone());
        User {
            id: UserId::generate(),
            kind: UserKind::Person,
            username: new.username,
            email: new.email,
            email_verified: new.email_verified,
            email_vouched: false,
            display_name: new.display_name,
            status: UserStatus::Active,
            roles: normal_roles(roles),
            department: None,
            locale: None,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// The record of a person, and what writes their rows: a name or mail that is taken does not hold. `handle` is what their
    /// authenticator knows them by.
    pub fn rows(&self, context: &RequestContext, user: &User, handle: Option<&str>) -> (Draft, Vec<Guard>) {
        let draft = user_draft(EntryKind::AdminUserCreated, context, &user.id)
            .with_payload(Payload::of(Role::After, user).about(user.id.as_str()))
            .with("roles", user.roles.clone());
        (draft, add(user, handle))
    }
}
