//! Whom tokens stand for.

use aws_lc_rs::digest::{SHA256, digest};
use systemprompt_models::ids::{UserId, uuid_from_bits};
use systemprompt_models::{AuthenticatedUser, Permission};

/// The id of a client's user. It has the form of no person's id, so that the two cannot meet.
pub fn client_user_id(client_id: &str) -> UserId {
    let hash = digest(&SHA256, format!("client.{client_id}").as_bytes());
    let bits = hash.as_ref().iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    UserId::new(uuid_from_bits(bits).to_string())
}

/// The user that stands for a client in its own tokens, in which it was granted `permissions` (ID-56).
pub fn build_client_user(client_id: &str, permissions: &[Permission]) -> AuthenticatedUser {
    AuthenticatedUser::new_with_roles(
        client_user_id(client_id),
        format!("client:{client_id}"),
        format!("{client_id}@client.local"),
        permissions.to_vec(),
        permissions.iter().map(|permission| permission.as_str().to_owned()).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a24_the_user_of_a_client_is_named_by_the_digest_of_its_id() {
        let user = build_client_user("acme-ci", &[Permission::User, Permission::HookTrack]);
        assert_eq!(user.id.as_str(), "7fcf8e60-2588-20bf-6863-a5ab358a5bc8");
        assert_eq!((user.username.as_str(), user.email.as_str()), ("client:acme-ci", "acme-ci@client.local"));
        assert_eq!(user.roles, ["user", "hook:track"]);
    }

    #[test]
    fn id_124_no_client_has_the_id_of_a_person() {
        let person = UserId::generate();
        assert_ne!(client_user_id(person.as_str()), person);
        assert!(!client_user_id("x").as_str().starts_with(UserId::PREFIX));
    }
}
