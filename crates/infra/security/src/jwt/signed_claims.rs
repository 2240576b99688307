//! Claims under a good signature: the steps of SEC-52 that judge what they say.

use super::compact::MAX_DEPTH;
use super::sign::rank;
use super::surface::{Surface, Target};
use crate::error::JwtError;
use crate::keys::TokenClass;
use serde::Deserialize;
use systemprompt_models::auth::MAX_ACT_DEPTH;
use systemprompt_models::auth::{OIDC_SCOPES, scope_of};
use systemprompt_models::ids::{ClientId, Jti, SessionId, UserId};
use systemprompt_models::json::{JsonFault, check_object};
use systemprompt_models::{
    Actor, JwtAudience, JwtClaims, Permission, RateLimitTier, UserType, parse_permissions,
};

/// Tolerance on `nbf` and `iat`, in seconds: the nodes' clocks differ. Our own tokens end exactly at `exp`.
pub const JWT_LEEWAY: i64 = 30;

/// Claims under a good signature, not yet judged. A member that is missing is told from one of the wrong type.
#[derive(Deserialize)]
pub(super) struct SignedClaims {
    iss: Option<String>,
    #[serde(default)]
    aud: OneOrMany,
    exp: Option<i64>,
    nbf: Option<i64>,
    iat: Option<i64>,
    sub: Option<String>,
    jti: Option<String>,
    session_id: Option<String>,
    act: Option<Actor>,
    scope: Option<String>,
    user_type: Option<UserType>,
    rate_limit_tier: Option<RateLimitTier>,
    #[serde(default)]
    username: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    roles: Vec<String>,
    department: Option<String>,
    client_id: Option<ClientId>,
    plugin_id: Option<String>,
    auth_time: Option<i64>,
}

/// RFC 7519 section 4.1.3: one audience may stand without a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(JwtAudience),
    Many(Vec<JwtAudience>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn as_slice(&self) -> &[JwtAudience] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl SignedClaims {
    pub(super) fn read(json: &[u8]) -> Result<Self, JwtError> {
        match check_object(json, MAX_DEPTH) {
            Ok(()) => serde_json::from_slice(json).map_err(|_| JwtError::ClaimsInvalid),
            Err(JsonFault::Duplicate(_)) => Err(JwtError::ClaimsDuplicateMember),
            Err(_) => Err(JwtError::ClaimsInvalid),
        }
    }

    pub(super) fn check_issuer(&self, issuer: &str) -> Result<(), JwtError> {
        if self.iss.as_deref() == Some(issuer) { Ok(()) } else { Err(JwtError::IssuerMismatch) }
    }

    /// The surfaces that the audience names, if the one that is asked is among them.
    pub(super) fn check_audience(&self, class: TokenClass, target: Target<'_>) -> Result<u16, JwtError> {
        let audiences = self.aud.as_slice();
        let surfaces = Surface::named_by(class, audiences);
        if surfaces & target.surface.bit() != 0 || target.is_resource_among(audiences) {
            Ok(surfaces)
        } else {
            Err(JwtError::AudienceMismatch)
        }
    }

    pub(super) fn check_times(&self, now: i64) -> Result<(), JwtError> {
        let (Some(exp), Some(nbf), Some(iat)) = (self.exp, self.nbf, self.iat) else {
            return Err(JwtError::TimeMissing);
        };
        if exp <= iat || exp <= nbf {
            Err(JwtError::TimesOutOfOrder)
        } else if now >= exp {
            Err(JwtError::Expired)
        } else if nbf > now.saturating_add(JWT_LEEWAY) {
            Err(JwtError::NotYetValid)
        } else if iat > now.saturating_add(JWT_LEEWAY) {
            Err(JwtError::IssuedInFuture)
        } else {
            Ok(())
        }
    }

    pub(super) fn finish(self) -> Result<JwtClaims, JwtError> {
        let sub = filled(self.sub).ok_or(JwtError::SubjectMissing)?;
        let jti = filled(self.jti).ok_or(JwtError::JtiMissing)?;
        let session_id = filled(self.session_id).ok_or(JwtError::SessionMissing)?;
        check_actors(self.act.as_ref())?;
        let (permissions, scope) = read_scope(self.scope.as_deref().unwrap_or_default())?;
        let user_type = UserType::of(&permissions);
        if self.user_type != Some(user_type) {
            return Err(JwtError::UserTypeMismatch);
        }
        // A token cannot raise its own tier above its user type (SEC-30).
        let tier = self.rate_limit_tier.filter(|tier| rank(*tier) <= rank(user_type.tier()));
        Ok(JwtClaims {
            iss: self.iss.unwrap_or_default(),
            sub: UserId::from(sub),
            aud: match self.aud {
                OneOrMany::One(one) => vec![one],
                OneOrMany::Many(many) => many,
            },
            exp: self.exp.unwrap_or_default(),
            nbf: self.nbf.unwrap_or_default(),
            iat: self.iat.unwrap_or_default(),
            jti: Jti::from(jti),
            scope,
            username: self.username,
            email: self.email,
            user_type,
            roles: self.roles,
            department: self.department,
            client_id: self.client_id,
            session_id: SessionId::from(session_id),
            rate_limit_tier: tier.unwrap_or(user_type.tier()),
            plugin_id: self.plugin_id,
            auth_time: self.auth_time,
            act: self.act,
        })
    }
}

/// The permissions of a scope, and the scope with each word once. Without a permission it may only be about who somebody is.
fn read_scope(text: &str) -> Result<(Vec<Permission>, String), JwtError> {
    let (oidc, words): (Vec<&str>, Vec<&str>) =
        text.split_ascii_whitespace().partition(|word| OIDC_SCOPES.contains(word));
    let permissions = parse_permissions(&words.join(" ")).map_err(|_| JwtError::ScopeInvalid)?;
    let mut scope = scope_of(&permissions);
    for name in OIDC_SCOPES.iter().filter(|name| oidc.contains(name)) {
        if !scope.is_empty() {
            scope.push(' ');
        }
        scope.push_str(name);
    }
    if permissions.is_empty() && !oidc.contains(&"openid") {
        return Err(JwtError::ScopeInvalid);
    }
    Ok((permissions, scope))
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// RFC 8693 section 4.1: each actor has a subject; the chain has an end.
pub(super) fn check_actors(outermost: Option<&Actor>) -> Result<(), JwtError> {
    let mut depth = 0;
    let mut next = outermost;
    while let Some(actor) = next {
        depth += 1;
        if depth > MAX_ACT_DEPTH || actor.sub.is_empty() {
            return Err(JwtError::ActorChainInvalid);
        }
        next = actor.act.as_deref();
    }
    Ok(())
}
