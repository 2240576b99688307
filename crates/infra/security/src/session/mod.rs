//! Sessions: the rows that every token hangs on, and the tokens that stand for them.

pub mod claims;
pub mod extension;
pub mod generator;
pub mod live;
pub mod revoked;
pub mod row;
#[cfg(test)]
pub(crate) mod testing;

pub use crate::repository::ends::next_epoch;
pub use crate::repository::sessions::{
    SESSION_ENDED, SessionOpened, TOKEN_ENDED, session_lives, token_stands,
};
pub use crate::repository::tree::Root;
pub use claims::ValidatedSessionClaims;
pub use extension::TokensExtension;
pub use generator::{SessionGenerator, SessionParams, SessionUse};
pub use live::ends::{Ended, UserEnd};
pub use live::{SessionError, Sessions};
pub use revoked::{Cutoff, CutoffKind, EVERYBODY};
pub use row::SessionRow;
