//! The user that a token is signed for.

use super::permission::Permission;
use crate::ids::UserId;

/// Whom a token stands for, as it names them: a person, a service, or the user of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticatedUser {
    pub id: UserId,
    pub username: String,
    /// Empty where there is none.
    pub email: String,
    /// What they may, or as much of it as a token is to carry.
    pub permissions: Vec<Permission>,
    pub roles: Vec<String>,
    pub department: Option<String>,
}

impl AuthenticatedUser {
    /// A user of no department.
    pub fn new_with_roles(
        id: UserId,
        username: impl Into<String>,
        email: impl Into<String>,
        permissions: Vec<Permission>,
        roles: Vec<String>,
    ) -> Self {
        Self { id, username: username.into(), email: email.into(), permissions, roles, department: None }
    }
}
