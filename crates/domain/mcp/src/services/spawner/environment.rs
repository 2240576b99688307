//! The environment of a child: nothing is inherited (SCR-30, SCR-33).

use super::leases::LeaseSet;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use systemprompt_models::Secret;
use tokio::process::Command;

/// What every child is given, whatever server it is.
#[derive(Clone, Debug)]
pub struct BaseEnvironment {
    /// `PATH` of the gateway.
    pub path: String,
}

/// Variables of one child. It holds secrets and shows none.
pub struct ChildEnvironment(BTreeMap<String, Variable>);

enum Variable {
    Plain(String),
    Secret(Secret<String>),
}

impl ChildEnvironment {
    /// The whole environment: base, private folders, the entries of the server's file, then the leased secrets.
    pub fn build(
        base: &BaseEnvironment,
        server: &str,
        (home, tmp): (&Path, &Path),
        entries: &BTreeMap<String, String>,
        leases: &LeaseSet,
    ) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let fixed = [
            ("PATH", absolute_only(&base.path)),
            ("HOME", text(home)),
            ("TMPDIR", text(tmp)),
            ("LANG", "C.UTF-8".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("TZ", "UTC".to_owned()),
            ("SYSTEMPROMPT_SERVER", server.to_owned()),
        ];
        let plain = |(name, value): (&str, String)| (name.to_owned(), Variable::Plain(value));
        let mut variables: BTreeMap<_, _> = fixed.into_iter().map(plain).collect();
        variables.extend(entries.iter().map(|(name, value)| plain((name, value.clone()))));
        for leased in leases.iter() {
            for name in leased.variables() {
                variables.insert(name.clone(), Variable::Secret(leased.value().clone()));
            }
        }
        let names = Variable::Plain(leases.custom_variables().join(","));
        variables.insert("SYSTEMPROMPT_CUSTOM_SECRETS".to_owned(), names);
        Self(variables)
    }

    /// Clears the environment of `command` and sets this one.
    pub fn apply(&self, command: &mut Command) {
        command.env_clear();
        for (name, variable) in &self.0 {
            match variable {
                Variable::Plain(value) => command.env(name, value),
                Variable::Secret(value) => command.env(name, value.expose()),
            };
        }
    }

    /// Names of the variables, in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// The absolute folders of a search path.
fn absolute_only(path: &str) -> String {
    let folders: Vec<PathBuf> = std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
    std::env::join_paths(folders).ok().and_then(|p| p.into_string().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use systemprompt_config::secrets::Secrets;
    use systemprompt_config::services::mcp::{INHERIT, SecretEntry, SecretLease};

    fn secrets() -> Secrets {
        Secrets::parse(
            r#"{"jwt_secret":"0123456789abcdef0123456789abcdef","anthropic":"sk-ant-value","github":"ghp_value",
                "demo_crm_token":"crm-value","Other":"other-value","database_url":"postgres://u:p@h/db","copy":"postgres://u:p@h/db"}"#,
        )
        .unwrap()
    }

    fn built(entries: &[SecretEntry]) -> BTreeMap<String, String> {
        let leases = LeaseSet::select(entries, &secrets()).unwrap();
        let base = BaseEnvironment { path: "/usr/bin:relative:/bin:".into() };
        let env = BTreeMap::from([("MODE".to_owned(), "demo".to_owned())]);
        let folders = (Path::new("/run/c/home"), Path::new("/run/c/tmp"));
        let environment = ChildEnvironment::build(&base, "demo", folders, &env, &leases);
        let mut command = Command::new("true");
        environment.apply(&mut command);
        let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
        command.as_std().get_envs().filter_map(|(k, v)| Some((text(k), text(v?)))).collect()
    }

    fn name(name: &str) -> SecretEntry {
        SecretEntry::Name(name.into())
    }

    #[test]
    fn a_child_without_secrets_gets_the_fixed_variables_alone() {
        let environment = built(&[]);
        let expected = [
            ("HOME", "/run/c/home"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
            ("MODE", "demo"),
            ("PATH", "/usr/bin:/bin"),
            ("SYSTEMPROMPT_CUSTOM_SECRETS", ""),
            ("SYSTEMPROMPT_SERVER", "demo"),
            ("TMPDIR", "/run/c/tmp"),
            ("TZ", "UTC"),
        ];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(environment, BTreeMap::from(expected));
    }

    #[test]
    fn a_custom_secret_appears_under_both_names_and_is_listed() {
        let environment = built(&[name("DEMO_CRM_token")]);
        assert_eq!(environment["demo_crm_token"], "crm-value");
        assert_eq!(environment["DEMO_CRM_TOKEN"], "crm-value");
        assert_eq!(environment["SYSTEMPROMPT_CUSTOM_SECRETS"], "DEMO_CRM_TOKEN");
        assert!(!environment.values().any(|v| v == "other-value" || v == "sk-ant-value"));
    }

    #[test]
    fn provider_keys_appear_under_their_variable_and_are_not_listed() {
        let environment = built(&[name("anthropic"), name("github")]);
        assert_eq!(environment["ANTHROPIC_API_KEY"], "sk-ant-value");
        assert_eq!(environment["GITHUB_TOKEN"], "ghp_value");
        assert_eq!(environment["SYSTEMPROMPT_CUSTOM_SECRETS"], "");
        assert!(!environment.contains_key("OPENAI_API_KEY"));
    }

    #[test]
    fn inherit_gives_providers_and_custom_secrets_but_nothing_of_the_platform() {
        let environment = built(&[name(INHERIT)]);
        assert_eq!(environment["SYSTEMPROMPT_CUSTOM_SECRETS"], "DEMO_CRM_TOKEN,OTHER");
        assert_eq!(environment["Other"], "other-value");
        assert!(!environment.values().any(|v| v.contains("postgres://") || v.starts_with("0123")));
        assert!(!environment.contains_key("copy"), "a copy of a platform secret is not leasable either");
    }

    #[test]
    fn a_secret_may_be_given_under_another_name() {
        let lease = SecretLease { name: "demo_crm_token".into(), variable: Some("Crm_Key".into()) };
        let environment = built(&[SecretEntry::Detailed(lease)]);
        assert_eq!((&*environment["Crm_Key"], &*environment["CRM_KEY"]), ("crm-value", "crm-value"));
        assert_eq!(environment["SYSTEMPROMPT_CUSTOM_SECRETS"], "CRM_KEY");
        assert!(!environment.contains_key("DEMO_CRM_TOKEN"));
    }
}
