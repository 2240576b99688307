//! Which secrets a server is given: those that its file declares and that may be leased at all (SCR-31, SCR-32).

use aws_lc_rs::digest;
use std::collections::BTreeSet;
use systemprompt_config::secrets::Secrets;
use systemprompt_config::secrets::names::{PROVIDER_VARIABLES, is_platform, steers_a_child};
use systemprompt_config::services::mcp::{INHERIT, SecretEntry};
use systemprompt_leak::{Hold, LeakError, Scanner};
use systemprompt_models::Secret;

/// Why a server cannot be given its secrets; the server is not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefused {
    #[error("secret_missing: {0}")]
    Missing(String),
    #[error("platform_secret_not_leasable: {0}")]
    Platform(String),
    #[error("reserved_variable: {0}")]
    Reserved(String),
}

/// A secret for one server.
pub struct LeasedSecret {
    name: String,
    variables: Vec<String>,
    is_custom: bool,
    value: Secret<String>,
}

/// The secrets of one server, in order of their names.
#[derive(Default)]
pub struct LeaseSet(Vec<LeasedSecret>);

impl LeasedSecret {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The variables that carry it.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    pub(super) fn value(&self) -> &Secret<String> {
        &self.value
    }
}

impl LeaseSet {
    /// Picks what `entries` declare.
    ///
    /// # Errors
    /// The first entry that names no secret, or one that is never leased.
    pub fn select(entries: &[SecretEntry], secrets: &Secrets) -> Result<Self, LeaseRefused> {
        let mut set = Self::default();
        for entry in entries {
            match entry.name() {
                INHERIT => set.inherit(secrets),
                name => set.add(name, entry.variable(), secrets)?,
            }
        }
        set.0.sort_by(|a, b| (&a.name, &a.variables).cmp(&(&b.name, &b.variables)));
        set.0.dedup_by(|a, b| (&a.name, &a.variables) == (&b.name, &b.variables));
        Ok(set)
    }

    fn inherit(&mut self, secrets: &Secrets) {
        let custom = secrets.custom_names();
        for name in secrets.provider_names().into_iter().chain(custom) {
            // What may not be leased is left out here and an error where it is named.
            let _ = self.add(name, None, secrets);
        }
    }

    fn add(&mut self, name: &str, variable: Option<&str>, secrets: &Secrets) -> Result<(), LeaseRefused> {
        if is_platform(name) || secrets.equals_platform(name) {
            return Err(LeaseRefused::Platform(name.to_owned()));
        }
        if let Some(variable) = variable.filter(|v| steers_a_child(v)) {
            return Err(LeaseRefused::Reserved(variable.to_owned()));
        }
        let value = secrets.get(name).ok_or_else(|| LeaseRefused::Missing(name.to_owned()))?;
        let provider = PROVIDER_VARIABLES.iter().find(|(provider, _)| provider.eq_ignore_ascii_case(name));
        let own_name = match provider {
            Some((provider, _)) => *provider,
            // As it is written in the secrets, however the server's file spells it.
            None => secrets.custom_names().into_iter().find(|n| n.eq_ignore_ascii_case(name)).unwrap_or(name),
        };
        let variables = match (variable, provider) {
            (None, Some((_, variable))) => vec![(*variable).to_owned()],
            (variable, _) => both_cases(variable.unwrap_or(own_name)),
        };
        let is_custom = provider.is_none();
        self.0.push(LeasedSecret { name: own_name.to_owned(), variables, is_custom, value: value.clone() });
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = &LeasedSecret> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The upper-case variables of the custom secrets, sorted: what `SYSTEMPROMPT_CUSTOM_SECRETS` lists.
    pub fn custom_variables(&self) -> Vec<String> {
        let custom = self.0.iter().filter(|leased| leased.is_custom);
        let names = custom.filter_map(|leased| leased.variables.first()).map(|v| v.to_ascii_uppercase());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Tells two sets apart, by names and values. Kept in memory alone.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for leased in &self.0 {
            for part in [&leased.name, &leased.variables.join(","), leased.value.expose()] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part.as_bytes());
            }
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    /// Guards every value. A lease counts only while its value is guarded.
    ///
    /// # Errors
    /// A value that cannot be guarded.
    pub fn hold(&self, scanner: &Scanner) -> Result<Vec<Hold>, LeakError> {
        self.0.iter().map(|leased| scanner.hold(&leased.name, &leased.value)).collect()
    }
}

/// A name and its upper-case form, once where they are equal.
fn both_cases(name: &str) -> Vec<String> {
    let upper = name.to_ascii_uppercase();
    if upper == name { vec![upper] } else { vec![name.to_owned(), upper] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(names: &[&str]) -> Result<LeaseSet, LeaseRefused> {
        let secrets = Secrets::parse(
            r#"{"jwt_secret":"0123456789abcdef0123456789abcdef","crm":"crm-value","copy":"0123456789abcdef0123456789abcdef"}"#,
        );
        let entries: Vec<_> = names.iter().map(|n| SecretEntry::Name((*n).into())).collect();
        LeaseSet::select(&entries, &secrets.unwrap())
    }

    #[test]
    fn what_may_not_be_leased_is_refused_by_name() {
        let refused = |name: &str| select(&["crm", name]).err();
        assert_eq!(refused("absent"), Some(LeaseRefused::Missing("absent".into())));
        assert_eq!(refused("openai"), Some(LeaseRefused::Missing("openai".into())));
        for name in ["jwt_secret", "JWT_Secret", "database_url", "copy"] {
            assert_eq!(refused(name), Some(LeaseRefused::Platform(name.into())));
        }
        assert_eq!(refused("CRM"), None);
    }

    #[test]
    fn the_digest_changes_with_names_and_values_and_not_with_order() {
        let other = Secrets::parse(r#"{"crm":"crm-value-2"}"#).unwrap();
        let entry = [SecretEntry::Name("crm".into())];
        let digest = |set: Result<LeaseSet, LeaseRefused>| set.unwrap().digest();
        assert_eq!(digest(select(&["crm"])), digest(select(&["CRM", "crm"])));
        assert_ne!(digest(select(&["crm"])), digest(select(&[])));
        assert_ne!(digest(select(&["crm"])), digest(LeaseSet::select(&entry, &other)));
    }

    #[test]
    fn leased_values_are_guarded_while_held() {
        let scanner = Scanner::new();
        let holds = select(&["crm"]).unwrap().hold(&scanner).unwrap();
        assert_eq!(&*scanner.scan(b"x crm-value x")[0].name, "crm");
        drop(holds);
        assert!(scanner.is_empty());
    }
}
