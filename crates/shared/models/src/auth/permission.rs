//! Permissions, user types and rate-limit tiers. Permissions are explicit sets: nothing ranks above anything else.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    Admin,
    User,
    Service,
    A2a,
    Mcp,
    HookGovern,
    HookTrack,
    Anonymous,
}

/// The kind of user that a permission set amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserType {
    Admin,
    User,
    Service,
    A2a,
    Mcp,
    Anon,
    Unknown,
}

/// The multiplier class of rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitTier {
    Admin,
    User,
    Service,
    A2a,
    Mcp,
    Anon,
}

/// Why a permission list was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PermissionError {
    #[error("unknown permission `{0}`; allowed: admin user service a2a mcp hook:govern hook:track anonymous")]
    Unknown(String),
    #[error("{0} permissions given, at most {MAX_PERMISSIONS} are allowed")]
    TooMany(usize),
}

/// Most permissions that one token may carry.
pub const MAX_PERMISSIONS: usize = 16;

impl Permission {
    pub const ALL: [Self; 8] = [
        Self::Admin,
        Self::User,
        Self::Service,
        Self::A2a,
        Self::Mcp,
        Self::HookGovern,
        Self::HookTrack,
        Self::Anonymous,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Service => "service",
            Self::A2a => "a2a",
            Self::Mcp => "mcp",
            Self::HookGovern => "hook:govern",
            Self::HookTrack => "hook:track",
            Self::Anonymous => "anonymous",
        }
    }

    pub fn as_user_type(self) -> UserType {
        match self {
            Self::Admin => UserType::Admin,
            Self::User => UserType::User,
            Self::Service | Self::HookGovern | Self::HookTrack => UserType::Service,
            Self::A2a => UserType::A2a,
            Self::Mcp => UserType::Mcp,
            Self::Anonymous => UserType::Anon,
        }
    }

    /// The permission that stands for a user type; `Unknown` has none.
    pub fn from_user_type(user_type: UserType) -> Option<Self> {
        match user_type {
            UserType::Admin => Some(Self::Admin),
            UserType::User => Some(Self::User),
            UserType::Service => Some(Self::Service),
            UserType::A2a => Some(Self::A2a),
            UserType::Mcp => Some(Self::Mcp),
            UserType::Anon => Some(Self::Anonymous),
            UserType::Unknown => None,
        }
    }

    pub fn is_hook_scope(self) -> bool {
        matches!(self, Self::HookGovern | Self::HookTrack)
    }
}

impl UserType {
    /// The type of a permission set: the first present of admin, user, service (with hook scopes), a2a, mcp, anonymous.
    pub fn of(permissions: &[Permission]) -> Self {
        [Self::Admin, Self::User, Self::Service, Self::A2a, Self::Mcp, Self::Anon]
            .into_iter()
            .find(|t| permissions.iter().any(|p| p.as_user_type() == *t))
            .unwrap_or(Self::Unknown)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Service => "service",
            Self::A2a => "a2a",
            Self::Mcp => "mcp",
            Self::Anon => "anon",
            Self::Unknown => "unknown",
        }
    }

    /// The highest tier that this type may claim.
    pub fn tier(self) -> RateLimitTier {
        match self {
            Self::Admin => RateLimitTier::Admin,
            Self::User => RateLimitTier::User,
            Self::Service => RateLimitTier::Service,
            Self::A2a => RateLimitTier::A2a,
            Self::Mcp => RateLimitTier::Mcp,
            Self::Anon | Self::Unknown => RateLimitTier::Anon,
        }
    }
}

impl RateLimitTier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Service => "service",
            Self::A2a => "a2a",
            Self::Mcp => "mcp",
            Self::Anon => "anon",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = PermissionError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == word)
            .ok_or_else(|| PermissionError::Unknown(word.chars().take(64).collect()))
    }
}

impl Serialize for Permission {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Parses a space-separated scope (RFC 6749 section 3.3) into a set in order of first mention.
///
/// # Errors
/// An unknown word, or more than [`MAX_PERMISSIONS`] words.
///
/// ```
/// use systemprompt_models::{Permission, parse_permissions};
/// assert_eq!(parse_permissions("admin user").unwrap(), vec![Permission::Admin, Permission::User]);
/// assert!(parse_permissions("root").is_err());
/// ```
pub fn parse_permissions(scope: &str) -> Result<Vec<Permission>, PermissionError> {
    let words: Vec<&str> = scope.split_ascii_whitespace().collect();
    if words.len() > MAX_PERMISSIONS {
        return Err(PermissionError::TooMany(words.len()));
    }
    let mut set = Vec::with_capacity(words.len());
    for word in words {
        let permission = word.parse()?;
        if !set.contains(&permission) {
            set.push(permission);
        }
    }
    Ok(set)
}

/// The scopes of OpenID Connect (Core 1.0 section 5.4, and `offline_access`): they say what a client learns of a person and for
/// how long, and permit nothing here.
pub const OIDC_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// The scope string of a permission set.
pub fn scope_of(permissions: &[Permission]) -> String {
    permissions.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_set_is_its_first_by_precedence() {
        use Permission as P;
        for (set, want) in [
            (vec![P::User, P::Admin], UserType::Admin),
            (vec![P::Mcp, P::Service], UserType::Service),
            (vec![P::HookTrack], UserType::Service),
            (vec![P::Mcp, P::A2a], UserType::A2a),
            (vec![P::Anonymous], UserType::Anon),
            (vec![], UserType::Unknown),
        ] {
            assert_eq!(UserType::of(&set), want, "{set:?}");
        }
    }

    #[test]
    fn unknown_words_and_long_lists_are_refused() {
        assert_eq!(parse_permissions("user owner"), Err(PermissionError::Unknown("owner".into())));
        assert_eq!(parse_permissions(&"user ".repeat(17)), Err(PermissionError::TooMany(17)));
    }
}
