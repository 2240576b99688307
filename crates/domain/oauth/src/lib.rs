//! Identity: the people who use this deployment and their API keys. The authorization server's own room (grants, passkeys,
//! consents) is empty as yet; what is here is what every other plane needs to know who somebody is.

pub mod api_keys;
pub mod error;
pub mod extension;
pub mod repository;
pub mod users;

pub use api_keys::{ApiKey, ApiKeys, NewApiKey};
pub use error::IdentityError;
pub use extension::OauthExtension;
pub use users::{NewUser, User, UserChange, UserStatus, Users};
