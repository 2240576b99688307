//! What the claims of a token must say that this server did not sign: its signature is checked before (ID-60).

use crate::constants::FOREIGN_LEEWAY_SECONDS;
use serde_json::{Map, Value};
use systemprompt_config::profile::security::TrustedIssuer;
use systemprompt_models::Actor;

/// Longest `jti` and `sub` of another issuer that are taken.
const MAX_FOREIGN_ID: usize = 255;

/// What a token of a trusted issuer says that counts.
#[derive(Clone, Debug)]
pub struct ForeignClaims {
    pub sub: String,
    pub jti: Option<String>,
    /// Its actors, each with the issuer that names it.
    pub act: Option<Actor>,
    pub may_act: Option<Value>,
    /// Only where the issuer says that it is verified.
    pub email: Option<String>,
    /// Epoch seconds, as what follows.
    pub expires_at: i64,
    pub auth_time: Option<i64>,
}

impl ForeignClaims {
    /// The claims, if they hold at `now` for what is configured of their issuer.
    pub fn checked(claims: &Map<String, Value>, trusted: &TrustedIssuer, now: i64) -> Option<Self> {
        let expires_at = end(claims, trusted, now)?;
        let id = |name: &str| text(claims, name).filter(|id| is_id(id)).map(str::to_owned);
        let jti = id("jti");
        if claims.contains_key("jti") && jti.is_none() {
            return None;
        }
        let act = match claims.get("act") {
            None => None,
            Some(act) => Some(named(serde_json::from_value(act.clone()).ok()?, &trusted.issuer)),
        };
        let is_verified = claims.get("email_verified").and_then(Value::as_bool) == Some(true);
        Some(Self {
            sub: id("sub")?,
            jti,
            act,
            may_act: claims.get("may_act").cloned(),
            email: text(claims, "email").filter(|_| is_verified).map(str::to_owned),
            expires_at,
            auth_time: number(claims, "auth_time"),
        })
    }
}

/// The end of a token for this server, if it counts at `now`.
fn end(claims: &Map<String, Value>, trusted: &TrustedIssuer, now: i64) -> Option<i64> {
    let audience = match claims.get("aud")? {
        Value::String(one) => *one == trusted.audience,
        Value::Array(many) => many.iter().any(|one| one.as_str() == Some(&trusted.audience)),
        _ => false,
    };
    let (exp, iat) = (number(claims, "exp")?, number(claims, "iat")?);
    let nbf = if claims.contains_key("nbf") { number(claims, "nbf")? } else { iat };
    let latest = now.saturating_add(FOREIGN_LEEWAY_SECONDS);
    let holds = text(claims, "iss")? == trusted.issuer
        && audience
        && exp > iat
        && now < exp.saturating_add(FOREIGN_LEEWAY_SECONDS)
        && iat <= latest
        && nbf <= latest
        && now.saturating_sub(iat) <= i64::from(trusted.max_age).saturating_add(FOREIGN_LEEWAY_SECONDS);
    holds.then_some(exp)
}

/// An actor of another issuer is named with it, so that nobody there can be taken for somebody here.
fn named(actor: Actor, issuer: &str) -> Actor {
    Actor {
        iss: actor.iss.or_else(|| Some(issuer.to_owned())),
        act: actor.act.map(|inner| Box::new(named(*inner, issuer))),
        ..actor
    }
}

fn is_id(text: &str) -> bool {
    (1..=MAX_FOREIGN_ID).contains(&text.len()) && !text.contains('\0')
}

/// A claim that is text.
pub(crate) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A claim that is a whole number, or a time with a fraction, which is cut.
pub(crate) fn number(claims: &Map<String, Value>, name: &str) -> Option<i64> {
    let value = claims.get(name)?;
    value.as_i64().or_else(|| value.as_f64().filter(|n| n.is_finite() && n.abs() < 1e12).map(|n| n as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a26_claims_of_another_issuer_hold_for_one_audience_and_for_their_time() {
        let trusted: TrustedIssuer = serde_json::from_value(json!({
            "issuer": "https://idp.example", "jwks_uri": "https://idp.example/jwks", "audience": "here", "max_age": 600
        }))
        .unwrap();
        let good = json!({"iss": "https://idp.example", "aud": "here", "sub": "s", "iat": 1000, "exp": 1300});
        let rows = [
            (json!({}), true),
            (json!({"aud": ["there", "here"]}), true),
            (json!({"nbf": 1010}), true),
            (json!({"exp": 1071}), true),
            (json!({"iss": "https://idp.example/"}), false),
            (json!({"iss": "https://IDP.example"}), false),
            (json!({"aud": "there"}), false),
            (json!({"aud": []}), false),
            (json!({"exp": 1070}), false),
            (json!({"exp": null}), false),
            (json!({"iat": null}), false),
            (json!({"iat": 1131}), false),
            (json!({"nbf": 1131}), false),
            (json!({"iat": 469, "exp": 1300}), false),
            (json!({"exp": "1300"}), false),
            (json!({"sub": null}), false),
            (json!({"sub": ""}), false),
            (json!({"jti": "once"}), true),
            (json!({"jti": 7}), false),
            (json!({"act": {"sub": "a"}}), true),
            (json!({"act": "a"}), false),
        ];
        for (change, want) in rows {
            let mut claims = good.as_object().unwrap().clone();
            for (name, value) in change.as_object().unwrap() {
                claims.insert(name.clone(), value.clone());
                if value.is_null() {
                    claims.remove(name);
                }
            }
            assert_eq!(ForeignClaims::checked(&claims, &trusted, 1100).is_some(), want, "{change}");
        }
    }

    #[test]
    fn actors_of_another_issuer_keep_its_name() {
        let inner =
            Actor::new("a", Some(Box::new(Actor { iss: Some("other".into()), ..Actor::new("b", None) })));
        let named = named(inner, "https://idp.example");
        assert_eq!(named.iss.as_deref(), Some("https://idp.example"));
        assert_eq!(named.act.unwrap().iss.as_deref(), Some("other"));
    }
}
