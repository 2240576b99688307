//! Whom tokens stand for.

use aws_lc_rs::digest::{SHA256, digest};
use systemprompt_models::Permission;
use systemprompt_models::ids::{UserId, uuid_from_bits};

/// The user that stands for a client in its own tokens (ID-56).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientUser {
    pub id: UserId,
    pub username: String,
    pub email: String,
    pub permissions: Vec<Permission>,
    pub roles: Vec<String>,
}

/// The id of a client's user. It has the form of no person's id, so that the two cannot meet.
pub fn client_user_id(client_id: &str) -> UserId {
    let hash = digest(&SHA256, format!("client.{client_id}").as_bytes());
    let bits = hash.as_ref().iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    UserId::new(uuid_from_bits(bits).to_string())
}

/// The user of a client that was granted `permissions`.
pub fn build_client_user(client_id: &str, permissions: &[Permission]) -> ClientUser {
    ClientUser {
        id: client_user_id(client_id),
        username: format!("client:{client_id}"),
        email: format!("{client_id}@client.local"),
        permissions: permissions.to_vec(),
        roles: permissions.iter().map(|permission| permission.as_str().to_owned()).collect(),
    }
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
