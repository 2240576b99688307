//! A throw-away data folder for tests of this crate.

use crate::data_dir::ProfileLocation;
use crate::diagnostic::Diagnostic;
use crate::load::{LoadOptions, Loaded, validate};
use crate::services::Checks;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) const GOOD_SECRETS: &str = r#"{
    "jwt_secret": "0123456789abcdef0123456789abcdef",
    "oauth_at_rest_pepper": "fedcba9876543210fedcba9876543210",
    "manifest_signing_secret_seed": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "crm_token": "t0p-s3cret-value"
}"#;
pub(crate) const RULES_HOOK: &str = "governance: {authz: {hook: {mode: rules}}}\n";

pub(crate) struct Folder {
    pub(crate) dir: TempDir,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) flags: Vec<(String, String)>,
    pub(crate) checks: Option<Arc<dyn Checks>>,
}

impl Folder {
    /// A folder with a minimal profile and good secrets.
    pub(crate) fn new() -> Self {
        let folder =
            Self { dir: TempDir::new().unwrap(), env: BTreeMap::new(), flags: Vec::new(), checks: None };
        folder.profile(RULES_HOOK);
        folder.secrets(GOOD_SECRETS);
        folder
    }

    pub(crate) fn location(&self) -> ProfileLocation {
        ProfileLocation { data_dir: self.dir.path().to_owned(), profile_name: "default".into() }
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn profile(&self, text: &str) {
        self.write("profiles/default/profile.yaml", text);
    }

    pub(crate) fn secrets(&self, text: &str) -> PathBuf {
        let path = self.write("profiles/default/secrets.json", text);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub(crate) fn options(&self) -> LoadOptions {
        let mut options = LoadOptions::new(self.location());
        options.env = Arc::new(self.env.clone());
        options.flags = self.flags.clone();
        if let Some(checks) = &self.checks {
            options.checks = Arc::clone(checks);
        }
        options
    }

    pub(crate) fn load(&self) -> Result<Loaded, Vec<Diagnostic>> {
        validate(&self.options())
    }

    /// The one error of a load that must fail, as (code, line, column, whole text).
    pub(crate) fn fault(&self) -> (&'static str, u32, u32, String) {
        let findings = self.load().err().expect("it loads");
        let errors: Vec<_> = findings.iter().filter(|d| d.is_error()).collect();
        assert_eq!(errors.len(), 1, "{findings:#?}");
        (errors[0].code, errors[0].line, errors[0].column, errors[0].to_string())
    }
}
