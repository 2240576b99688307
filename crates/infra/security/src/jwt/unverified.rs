//! Claims that nobody has verified (SEC-5). They choose a trusted issuer and are shown by `token inspect`; no log line, ledger
//! entry or look-up key is made from them.

use super::compact::Compact;
use crate::error::JwtError;
use serde_json::{Map, Value};

/// Claims as they stand in a token, forged or not.
#[derive(Clone, Debug, PartialEq)]
pub struct UnverifiedClaims(Map<String, Value>);

impl UnverifiedClaims {
    /// Reads the claims of `token` without looking at its signature.
    ///
    /// # Errors
    /// When it is no token at all.
    pub fn decode(token: &str) -> Result<Self, JwtError> {
        let claims = Compact::split(token)?.claims()?;
        serde_json::from_slice(&claims).map(Self).map_err(|_| JwtError::ClaimsInvalid)
    }

    /// Who the token says issued it.
    pub fn issuer(&self) -> Option<&str> {
        self.0.get("iss").and_then(Value::as_str)
    }

    /// Everything, for display to the holder of the token.
    pub fn members(&self) -> &Map<String, Value> {
        &self.0
    }
}
