//! Secrets of the deployment: the platform's own, the providers' keys and custom ones (SCR-1 to SCR-5). Values are
//! [`Secret`]s: nothing here prints, logs or serialises one.

pub mod error;
pub mod file;
pub mod names;
mod parse;
pub mod reference;

pub use error::{ReferenceProblem, SecretsError};
use names::{PLATFORM_SECRETS, PROVIDER_VARIABLES, is_platform};
use std::collections::{BTreeMap, HashMap};
use systemprompt_models::Secret;

/// Fewest characters of `jwt_secret`, and of `oauth_at_rest_pepper`.
pub const JWT_SECRET_MIN_LENGTH: usize = 32;

/// Bounds of one secrets file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
pub const MAX_CUSTOM: usize = 256;
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// All secrets of one deployment. Has no `Debug`, since it holds values.
///
/// ```
/// use systemprompt_config::secrets::Secrets;
/// let secrets = Secrets::parse(r#"{"github": "ghp_x", "crm_token": "t"}"#).unwrap();
/// assert_eq!(secrets.get("CRM_Token").unwrap().expose(), "t");
/// assert!(secrets.get("jwt_secret").is_none());
/// ```
///
/// ```compile_fail
/// let secrets = systemprompt_config::secrets::Secrets::parse("{}").unwrap();
/// println!("{secrets:?}");
/// ```
#[derive(Clone, Default)]
pub struct Secrets {
    /// Typed fields by their canonical name.
    typed: BTreeMap<&'static str, Secret<String>>,
    /// Custom secrets by name as written.
    custom: HashMap<String, Secret<String>>,
    /// Secrets that are declared but have no usable value, and why.
    unavailable: BTreeMap<String, SecretsError>,
    /// References that values were looked up by: `env:NAME`, `file:PATH`, `exec`.
    sources: BTreeMap<String, String>,
}

impl Secrets {
    /// Reads a JSON object of strings. Nulls and empty strings are absent; references are kept as they are written
    /// until [`reference::Resolver::resolve`].
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(SecretsError::TooLarge);
        }
        Self::from_pairs(parse::pairs(text)?)
    }

    /// Builds the set from names and values, under the rules of SCR-2 and SCR-3.
    pub(crate) fn from_pairs(
        pairs: impl IntoIterator<Item = (String, Option<Secret<String>>)>,
    ) -> Result<Self, SecretsError> {
        let mut secrets = Self::default();
        let mut seen: HashMap<String, String> = HashMap::new();
        for (key, value) in pairs {
            if !names::is_well_formed(&key) {
                return Err(SecretsError::BadName { key: key.chars().take(64).collect() });
            }
            if let Some(first) = seen.insert(key.to_ascii_lowercase(), key.clone()) {
                return Err(SecretsError::DuplicateKey { first, second: key });
            }
            let canonical = names::canonical(&key);
            if canonical.is_none() && names::is_reserved(&key) {
                return Err(SecretsError::ReservedName { key });
            }
            let Some(value) = value.filter(|v| !v.expose().is_empty()) else { continue };
            check_value(&key, value.expose())?;
            match canonical {
                Some(name) => {
                    secrets.typed.insert(name, value);
                }
                None if secrets.custom.len() == MAX_CUSTOM => return Err(SecretsError::TooMany),
                None => {
                    secrets.custom.insert(key, value);
                }
            }
        }
        Ok(secrets)
    }

    /// Checks the platform secrets that are present (SCR-4); the first fault is the error.
    pub fn validate(&self) -> Result<(), SecretsError> {
        self.platform_faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every fault of the platform secrets that are present. A value that is too short comes first.
    pub fn platform_faults(&self) -> Vec<SecretsError> {
        let mut faults = Vec::new();
        for field in ["jwt_secret", "oauth_at_rest_pepper", "oauth_at_rest_pepper_previous"] {
            let found = self.typed.get(field).map(|v| v.expose().chars().count());
            if let Some(found) = found.filter(|n| *n < JWT_SECRET_MIN_LENGTH) {
                faults.push(SecretsError::TooShort { field, minimum: JWT_SECRET_MIN_LENGTH, found });
            }
        }
        if let Some(seed) = self.typed.get("manifest_signing_secret_seed")
            && !is_seed(seed.expose())
        {
            faults.push(SecretsError::Malformed {
                field: "manifest_signing_secret_seed",
                rule: "base64 of exactly 32 bytes",
                found: seed.expose().chars().count(),
            });
        }
        for field in ["authz_webhook_secret", "inference_hook_secret"] {
            let value = self.typed.get(field).map(Secret::expose).filter(|value| !is_placeholder(value));
            if let Some(value) = value.filter(|value| !are_webhook_secrets(value)) {
                let rule = "`whsec_` and the base64 of 24 to 64 bytes, or two of these separated by a space";
                faults.push(SecretsError::Malformed { field, rule, found: value.chars().count() });
            }
        }
        if let Some(url) = self.typed.get("database_url")
            && !["sqlite:", "postgres://", "postgresql://"].iter().any(|s| url.expose().starts_with(s))
        {
            faults.push(SecretsError::Malformed {
                field: "database_url",
                rule: "a sqlite: or postgres:// address",
                found: url.expose().chars().count(),
            });
        }
        for name in PLATFORM_SECRETS {
            if self.typed.get(name).is_some_and(|v| is_placeholder(v.expose())) {
                faults.push(SecretsError::Placeholder { key: name.to_owned() });
            }
        }
        faults
    }

    /// Platform secrets that a server cannot do without and that are absent. `database_url` has a default on SQLite.
    pub fn missing_platform(&self) -> Vec<SecretsError> {
        ["jwt_secret", "oauth_at_rest_pepper", "manifest_signing_secret_seed"]
            .into_iter()
            .filter(|field| !self.typed.contains_key(field))
            .map(|field| SecretsError::Missing { field })
            .collect()
    }

    /// Faults of provider and custom secrets.
    pub(crate) fn other_faults(&self) -> Vec<SecretsError> {
        let mut faults: Vec<_> = self.unavailable.values().cloned().collect();
        faults.extend(
            self.leasable()
                .filter(|(_, value)| is_placeholder(value.expose()))
                .map(|(key, _)| SecretsError::Placeholder { key: key.to_owned() }),
        );
        faults
    }

    /// A provider or custom secret, its name in any case. Platform secrets are never given out here.
    pub fn get(&self, name: &str) -> Option<&Secret<String>> {
        if is_platform(name) {
            return None;
        }
        self.leasable().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Why a declared secret has no value, if that is so.
    pub fn unavailable(&self, name: &str) -> Option<&SecretsError> {
        self.unavailable.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, why)| why)
    }

    /// The reference that a secret was looked up by (`env:NAME`, `file:PATH`, `exec`); none if the value itself was given.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, source)| source.as_str())
    }

    /// Each custom value under its original and its upper-case name, once where they are equal, sorted by name.
    pub fn custom_env_vars(&self) -> Vec<(String, &Secret<String>)> {
        let mut variables = BTreeMap::new();
        for (name, value) in &self.custom {
            variables.insert(name.clone(), value);
            variables.insert(name.to_ascii_uppercase(), value);
        }
        variables.into_iter().collect()
    }

    /// Names of the custom secrets, sorted.
    pub fn custom_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.custom.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Names of the provider keys that are set.
    pub fn provider_names(&self) -> Vec<&'static str> {
        PROVIDER_VARIABLES.iter().map(|(name, _)| *name).filter(|n| self.typed.contains_key(n)).collect()
    }

    /// Names of the platform secrets that are set.
    pub fn platform_names(&self) -> Vec<&'static str> {
        PLATFORM_SECRETS.into_iter().filter(|n| self.typed.contains_key(n)).collect()
    }

    /// For the derivation of session keys alone.
    pub fn jwt_secret(&self) -> Option<&Secret<String>> {
        self.typed.get("jwt_secret")
    }

    /// For the keyed digests of stored codes and API keys alone.
    pub fn oauth_at_rest_pepper(&self) -> Option<&Secret<String>> {
        self.typed.get("oauth_at_rest_pepper")
    }

    /// What [`Self::oauth_at_rest_pepper`] replaced, under which digests of before are still found.
    pub fn oauth_at_rest_pepper_previous(&self) -> Option<&Secret<String>> {
        self.typed.get("oauth_at_rest_pepper_previous")
    }

    /// For manifest signing alone; base64 of 32 bytes.
    pub fn manifest_signing_secret_seed(&self) -> Option<&Secret<String>> {
        self.typed.get("manifest_signing_secret_seed")
    }

    /// For the signatures of the inference hook alone.
    pub fn inference_hook_secret(&self) -> Option<&Secret<String>> {
        self.typed.get("inference_hook_secret")
    }

    /// For the signatures of decision webhooks alone, sent and received.
    pub fn authz_webhook_secret(&self) -> Option<&Secret<String>> {
        self.typed.get("authz_webhook_secret")
    }

    /// For `database` alone. See [`crate::Loaded::database_url`] for the address in force.
    pub fn database_url(&self) -> Option<&Secret<String>> {
        self.typed.get("database_url")
    }

    /// Every value with its name, platform secrets included. For the leak scanner alone.
    pub fn values_in_use(&self) -> impl Iterator<Item = (&str, &Secret<String>)> {
        let typed = self.typed.iter().map(|(name, value)| (*name, value));
        typed.chain(self.custom.iter().map(|(name, value)| (name.as_str(), value)))
    }

    /// Whether a leasable secret holds the same value as a platform secret, and may thus not be leased (SCR-32).
    pub fn equals_platform(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            PLATFORM_SECRETS.iter().any(|p| self.typed.get(p).is_some_and(|v| v.expose() == value.expose()))
        })
    }

    /// Whether both hold the same names with the same values.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let sorted = |secrets: &Self| {
            secrets
                .values_in_use()
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let (ours, theirs) = (sorted(self), sorted(other));
        ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|((a, x), (b, y))| a == b && x.expose() == y.expose())
    }

    fn leasable(&self) -> impl Iterator<Item = (&str, &Secret<String>)> {
        self.values_in_use().filter(|(name, _)| !is_platform(name))
    }

    /// Takes a provider or custom secret out of use.
    pub(crate) fn disable(&mut self, name: &str, why: SecretsError) {
        self.typed.retain(|key, _| *key != name);
        self.custom.remove(name);
        self.unavailable.insert(name.to_owned(), why);
    }

    pub(crate) fn note_source(&mut self, name: &str, source: String) {
        self.sources.insert(name.to_owned(), source);
    }

    /// The text that stands for a secret, platform secrets included.
    fn raw(&self, name: &str) -> Option<&str> {
        self.values_in_use().find(|(key, _)| *key == name).map(|(_, value)| value.expose().as_str())
    }

    pub(crate) fn replace(&mut self, name: &str, value: Secret<String>) {
        match names::canonical(name) {
            Some(canonical) => {
                self.typed.insert(canonical, value);
            }
            None => {
                self.custom.insert(name.to_owned(), value);
            }
        }
    }
}

pub(crate) fn check_value(key: &str, value: &str) -> Result<(), SecretsError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(SecretsError::ValueTooLong { key: key.to_owned() });
    }
    if value.contains('\0') {
        return Err(SecretsError::ContainsNul { key: key.to_owned() });
    }
    Ok(())
}

fn is_seed(text: &str) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// One or two secrets of the Standard Webhooks specification.
fn are_webhook_secrets(text: &str) -> bool {
    use base64::Engine;
    let is_one = |word: &str| {
        let bytes =
            word.strip_prefix("whsec_").map(|b64| base64::engine::general_purpose::STANDARD.decode(b64));
        bytes.is_some_and(|bytes| bytes.is_ok_and(|bytes| (24..=64).contains(&bytes.len())))
    };
    let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    (1..=2).contains(&words.len()) && words.into_iter().all(is_one)
}

/// Values that somebody meant to replace.
fn is_placeholder(value: &str) -> bool {
    let folded: String =
        value.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let mut chars = value.chars();
    let first = chars.next();
    let repeated = value.chars().count() >= 4 && chars.all(|c| Some(c) == first);
    repeated || ["changeme", "changethis", "replaceme", "placeholder", "todo"].contains(&folded.as_str())
}

#[cfg(test)]
mod tests;
