//! Identity: the OAuth 2.1 and OpenID Connect authorization server, the people who use this deployment with their passkeys and
//! sessions, the clients that act for them, and their API keys.

pub mod api_keys;
pub mod at_rest;
pub mod constants;
pub mod error;
pub mod extension;
pub mod models;
pub mod repository;
pub mod services;
pub mod state;

pub mod users;

pub use api_keys::{ApiKey, ApiKeys, NewApiKey};
pub use error::{ErrorCode, IdentityError, OauthError, OauthResult};
pub use extension::OauthExtension;
pub use repository::users::UserFilter;
pub use state::{OAuthParts, OAuthState, Settings};
pub use users::{NewUser, User, UserChange, UserKind, UserStatus, Users};
