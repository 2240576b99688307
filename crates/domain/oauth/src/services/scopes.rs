//! Scopes as sets: the permissions and the words of OpenID Connect that a request, a client and a user have in common.

use crate::models::clients::OAuthClient;
use serde_json::{Map, Value};
use systemprompt_models::Permission;
use systemprompt_models::auth::{OIDC_SCOPES, scope_of};

/// A scope, word by word. Words that are neither are dropped (ID-38).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    pub permissions: Vec<Permission>,
    pub oidc: Vec<&'static str>,
}

impl Scopes {
    /// The words of `text` that mean something here, each once, in their order.
    pub fn of(text: &str) -> Self {
        let mut scopes = Self::default();
        for word in text.split_ascii_whitespace() {
            if let Ok(permission) = word.parse::<Permission>() {
                if !scopes.permissions.contains(&permission) {
                    scopes.permissions.push(permission);
                }
            } else if let Some(name) = OIDC_SCOPES.into_iter().find(|name| *name == word)
                && !scopes.oidc.contains(&name)
            {
                scopes.oidc.push(name);
            }
        }
        scopes
    }

    /// What a client may have at all.
    pub fn of_client(client: &OAuthClient) -> Self {
        Self::of(&client.relations.scopes.join(" "))
    }

    /// The part of both.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.permissions.retain(|permission| other.permissions.contains(permission));
        self.oidc.retain(|name| other.oidc.contains(name));
        self
    }

    /// The part that these permissions allow; words of OpenID Connect stay.
    #[must_use]
    pub fn permitted(mut self, permissions: &[Permission]) -> Self {
        self.permissions.retain(|permission| permissions.contains(permission));
        self
    }

    /// Without those that no grant of a person carries (ID-38).
    #[must_use]
    pub fn for_persons(mut self) -> Self {
        self.permissions
            .retain(|p| !p.is_hook_scope() && !matches!(p, Permission::Service | Permission::Anonymous));
        self
    }

    /// The words that `rest` has not.
    pub fn without(&self, rest: &Self) -> Self {
        let mut lost = self.clone();
        lost.permissions.retain(|permission| !rest.permissions.contains(permission));
        lost.oidc.retain(|name| !rest.oidc.contains(name));
        lost
    }

    /// Whether a token could be made of it: a permission, or at least who the person is.
    pub fn is_enough(&self) -> bool {
        !self.permissions.is_empty() || self.is_openid()
    }

    pub fn is_openid(&self) -> bool {
        self.oidc.contains(&"openid")
    }

    pub fn is_offline(&self) -> bool {
        self.oidc.contains(&"offline_access")
    }

    pub fn text(&self) -> String {
        let mut words = vec![scope_of(&self.permissions)];
        words.extend(self.oidc.iter().map(|name| (*name).to_owned()));
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }
}

/// What was cut of a scope, by what cut it; the records of tokens hold it (ID-137).
#[derive(Clone, Debug, Default)]
pub struct Cuts(Map<String, Value>);

impl Cuts {
    /// Notes what `whom` left of `before`.
    pub fn note(&mut self, whom: &'static str, before: &Scopes, after: &Scopes) {
        let lost = before.without(after).text();
        if !lost.is_empty() {
            self.0.insert(whom.to_owned(), lost.into());
        }
    }
}

impl From<Cuts> for Value {
    fn from(cuts: Cuts) -> Self {
        if cuts.0.is_empty() { Self::Null } else { Self::Object(cuts.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_a_meaning_are_dropped_and_sets_are_cut() {
        let scopes = Scopes::of("openid user nonsense user admin email hook:track");
        assert_eq!(scopes.text(), "user admin hook:track openid email");
        assert_eq!(scopes.clone().for_persons().text(), "user admin openid email");
        assert_eq!(scopes.clone().permitted(&[Permission::User]).text(), "user openid email");
        assert_eq!(scopes.clone().and(&Scopes::of("email admin")).text(), "admin email");
        let mut cuts = Cuts::default();
        cuts.note("client", &scopes, &scopes);
        cuts.note("user", &scopes, &Scopes::of("user openid"));
        assert_eq!(Value::from(cuts), serde_json::json!({"user": "admin hook:track email"}));
        assert!(!Scopes::of("profile").is_enough() && Scopes::of("openid").is_enough());
    }
}
