//! Claims about a person: which there are, by which scope each is given, and which an authorization asked for one by one (OpenID
//! Connect Core section 5.5). What is asked for beside the scope is shown to the person like a scope, and given only if they leave it in.

use crate::models::clients::OAuthClient;
use crate::users::User;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use systemprompt_models::json::check_object;

/// Claims with the scope that gives each.
const CLAIMS: [(&str, &str); 6] = [
    ("name", "profile"),
    ("preferred_username", "profile"),
    ("locale", "profile"),
    ("updated_at", "profile"),
    ("email", "email"),
    ("email_verified", "email"),
];
/// What a word of a grant begins with that allows claims of a scope only as far as they were asked for.
pub const ASKED: &str = "claims:";
/// Deepest nesting of the parameter.
const MAX_DEPTH: usize = 8;

/// What a claim says of a user; nothing where nothing is known.
pub fn claim(user: &User, name: &str) -> Option<Value> {
    match name {
        "name" => Some(user.display_name.as_deref().unwrap_or(&user.username).into()),
        "preferred_username" => Some(user.username.as_str().into()),
        "locale" => user.locale.as_deref().map(Value::from),
        "updated_at" => Some(user.updated_at.div_euclid(1000).into()),
        "email" => user.email.as_deref().map(Value::from),
        "email_verified" => user.email.as_ref().map(|_| user.email_verified.into()),
        _ => None,
    }
}

/// The claims that a scope gives.
pub fn of_scope(scope: &str) -> impl Iterator<Item = &'static str> {
    CLAIMS.into_iter().filter(move |(_, of)| *of == scope).map(|(name, _)| name)
}

/// The words of a grant that its client may still have.
pub fn still_registered(words: &str, client: &OAuthClient) -> String {
    let is_kept = |word: &&str| client.has_scope(word.strip_prefix(ASKED).unwrap_or(word));
    words.split(' ').filter(is_kept).collect::<Vec<_>>().join(" ")
}

/// The claims that an authorization asked for by name, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsRequest {
    id_token: Vec<String>,
    userinfo: Vec<String>,
}

impl ClaimsRequest {
    /// Reads the parameter; `None` for what is no object of objects. Names that mean nothing here are left out, as Core says.
    pub fn read(text: &str) -> Option<(Self, Value)> {
        check_object(text.as_bytes(), MAX_DEPTH).ok()?;
        let value: Value = serde_json::from_str(text).ok()?;
        let names = |part: &str| match value.get(part) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Object(members)) => {
                let is_known = |name: &&String| CLAIMS.iter().any(|(known, _)| known == name);
                Some(members.keys().filter(is_known).cloned().collect())
            }
            Some(_) => None,
        };
        let read = Self { id_token: names("id_token")?, userinfo: names("userinfo")? };
        Some((read, value))
    }

    /// What a column holds.
    pub fn stored(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// What a column is given; nothing where nothing was asked for.
    pub fn to_store(&self) -> Option<String> {
        let is_empty = self.id_token.is_empty() && self.userinfo.is_empty();
        if is_empty { None } else { serde_json::to_string(self).ok() }
    }

    /// The words that a person decides on beside `scopes`: of each scope whose claims are asked for and that is not among them. A client
    /// gets no claims of a scope that it is not registered for, and none without `openid`.
    pub fn words(&self, scopes: &[String], client: &OAuthClient) -> Vec<String> {
        let has = |word: &str| scopes.iter().any(|scope| scope == word);
        if !has("openid") {
            return Vec::new();
        }
        ["profile", "email"]
            .into_iter()
            .filter(|scope| !has(scope) && client.has_scope(scope))
            .filter(|scope| of_scope(scope).any(|name| self.asks(name)))
            .map(|scope| format!("{ASKED}{scope}"))
            .collect()
    }

    fn asks(&self, name: &str) -> bool {
        self.id_token.iter().chain(&self.userinfo).any(|asked| asked == name)
    }

    /// What ID tokens of a grant with these words tell of a user.
    pub fn for_id_token(&self, user: &User, granted: &str) -> impl Iterator<Item = (String, Value)> {
        given(&self.id_token, user, granted)
    }

    /// What userinfo tells beyond the scopes of the token.
    pub fn for_userinfo(&self, user: &User, granted: &str) -> impl Iterator<Item = (String, Value)> {
        given(&self.userinfo, user, granted)
    }
}

fn given(asked: &[String], user: &User, granted: &str) -> impl Iterator<Item = (String, Value)> {
    let is_granted = |name: &&String| {
        CLAIMS.iter().any(|(known, scope)| {
            known == name && granted.split(' ').any(|word| word.strip_prefix(ASKED).unwrap_or(word) == *scope)
        })
    };
    let told = asked.iter().filter(is_granted).filter_map(|name| Some((name.clone(), claim(user, name)?)));
    told.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_parameter_is_an_object_of_objects_and_unknown_names_are_left_out() {
        let (read, _) = ClaimsRequest::read(
            r#"{"id_token":{"email":null,"acr":{"essential":true},"shoe_size":null},"userinfo":{"locale":{"essential":true}}}"#,
        )
        .unwrap();
        assert_eq!(read, ClaimsRequest { id_token: vec!["email".into()], userinfo: vec!["locale".into()] });
        assert_eq!(ClaimsRequest::stored(read.to_store().as_deref()), read);
        assert_eq!(ClaimsRequest::read(r#"{"id_token":{"acr":null}}"#).unwrap().0.to_store(), None);
        for wrong in [
            "[]",
            "7",
            r#"{"id_token":[]}"#,
            r#"{"userinfo":"email"}"#,
            r#"{"id_token":{},"id_token":{}}"#,
            "{",
        ] {
            assert!(ClaimsRequest::read(wrong).is_none(), "{wrong}");
        }
    }
}
