//! Secrets at start and reload: read from the profile's source, look references up, and judge what is wrong by the mode
//! (SCR-6). An owned value, not a process global: who needs secrets is handed them.

use crate::data_dir::DataPaths;
use crate::diagnostic::Diagnostic;
use crate::env::Environment;
use crate::profile::Profile;
use crate::profile::database::DatabaseKind;
use crate::profile::runtime::RuntimeEnvironment;
use crate::profile::secrets::{SecretsConfig, SecretsSource, SecretsValidationMode};
use crate::secrets::file::read_checked;
use crate::secrets::reference::Resolver;
use crate::secrets::{Secrets, SecretsError};
use std::path::Path;
use std::sync::Arc;
use systemprompt_models::Secret;

/// Prefix of the variables that carry secrets.
pub const ENV_PREFIX: &str = "SYSTEMPROMPT_SECRET_";

/// Checked secrets with what was found wrong but let pass.
#[derive(Clone)]
pub struct SecretsBootstrap {
    secrets: Arc<Secrets>,
    warnings: Vec<Diagnostic>,
}

impl SecretsBootstrap {
    /// Reads and judges the secrets of a profile. `run_commands` says whether `exec:` references are run.
    pub fn load(
        profile: &Profile,
        paths: &DataPaths,
        env: &dyn Environment,
        run_commands: bool,
    ) -> Result<Self, Vec<Diagnostic>> {
        let config = &profile.secrets;
        let file = (config.source == SecretsSource::File).then_some(paths.secrets_file.as_path());
        let judge = Judge { config, environment: profile.runtime.environment, file };
        let mut findings = Vec::new();
        let mut secrets = match read(config, paths, env) {
            Ok(secrets) => secrets,
            Err(fault) => {
                findings.extend(judge.platform(&fault));
                Secrets::default()
            }
        };
        let folder = paths.secrets_file.parent().unwrap_or(Path::new("."));
        let resolver = Resolver { env, folder, file_mode: config.file_mode, run_commands };
        if let Err(fault) = resolver.resolve(&mut secrets) {
            findings.extend(judge.platform(&fault));
        }
        for fault in secrets.platform_faults() {
            findings.extend(judge.platform(&fault));
        }
        // One cause is enough: a file that could not be read misses everything.
        if findings.is_empty() {
            findings.extend(secrets.missing_platform().iter().filter_map(|fault| judge.platform(fault)));
        }
        findings.extend(judge.database(profile, &secrets));
        for fault in secrets.other_faults() {
            findings.extend(judge.other(&fault));
            if let SecretsError::Placeholder { key } = &fault
                && config.validation == SecretsValidationMode::Warn
            {
                secrets.disable(key, fault.clone());
            }
        }
        if findings.iter().any(Diagnostic::is_error) {
            return Err(findings);
        }
        Ok(Self { secrets: Arc::new(secrets), warnings: findings })
    }

    pub fn get(&self) -> Arc<Secrets> {
        Arc::clone(&self.secrets)
    }

    /// The secret that session keys are derived from.
    pub fn jwt_secret(&self) -> Result<&Secret<String>, SecretsError> {
        self.secrets.jwt_secret().ok_or(SecretsError::Missing { field: "jwt_secret" })
    }

    /// What is wrong but did not stop the start.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }
}

fn read(config: &SecretsConfig, paths: &DataPaths, env: &dyn Environment) -> Result<Secrets, SecretsError> {
    match config.source {
        SecretsSource::File => {
            let text = read_checked(&paths.secrets_file, config.file_mode)?;
            Secrets::parse(text.expose())
        }
        SecretsSource::Env => {
            Secrets::from_pairs(env.with_prefix(ENV_PREFIX).into_iter().map(|(name, value)| {
                let name = name.get(ENV_PREFIX.len()..).unwrap_or_default().to_ascii_lowercase();
                (name, Some(Secret::new(value)))
            }))
        }
    }
}

/// The table of SCR-6.
struct Judge<'a> {
    config: &'a SecretsConfig,
    environment: RuntimeEnvironment,
    file: Option<&'a Path>,
}

impl Judge<'_> {
    /// Platform secrets and the file itself: stops, unless skipped in a test. A short value always stops.
    fn platform(&self, fault: &SecretsError) -> Option<Diagnostic> {
        let skipped = self.config.validation == SecretsValidationMode::Skip
            && !matches!(fault, SecretsError::TooShort { .. });
        match (skipped, self.environment) {
            (false, _) => Some(fault.diagnostic(self.file)),
            (true, RuntimeEnvironment::Test) => None,
            (true, _) => {
                let refused = SecretsError::SkipOutsideTest.diagnostic(self.file);
                Some(refused.with_remedy(format!("mend this, or set secrets.validation to warn: {fault}")))
            }
        }
    }

    /// Provider and custom secrets: stops, is reported, or is not looked at.
    fn other(&self, fault: &SecretsError) -> Option<Diagnostic> {
        let finding = fault.diagnostic(self.file);
        match self.config.validation {
            SecretsValidationMode::Strict => Some(finding),
            SecretsValidationMode::Warn => Some(finding.as_warning()),
            SecretsValidationMode::Skip => None,
        }
    }

    /// The address must be that of the engine the profile names.
    fn database(&self, profile: &Profile, secrets: &Secrets) -> Option<Diagnostic> {
        let finding = |message: &str| {
            let finding = Diagnostic::error("database_url_mismatch", message).for_key("database_url");
            self.file.map_or(finding.clone(), |file| finding.in_file(file))
        };
        let is_sqlite = secrets.database_url().map(|url| url.expose().starts_with("sqlite:"));
        match (profile.database.kind, is_sqlite) {
            (DatabaseKind::Sqlite, None | Some(true)) | (DatabaseKind::Postgres, Some(false)) => None,
            (DatabaseKind::Sqlite, Some(false)) => Some(
                finding("the profile says `database.type: sqlite`, but the address is not a sqlite one")
                    .with_remedy("set database.type to postgres"),
            ),
            (DatabaseKind::Postgres, Some(true)) => Some(
                finding("the profile says `database.type: postgres`, but the address is a sqlite one")
                    .with_remedy("set the secret database_url to postgres://USER:PASSWORD@HOST/DATABASE"),
            ),
            (DatabaseKind::Postgres, None) => Some(
                finding("`database.type: postgres` needs the secret `database_url`")
                    .with_remedy("systemprompt admin secrets set database_url"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
