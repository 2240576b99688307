//! The one validation that start, reload and `validate` share: profile, services and secrets together, with every finding.

use crate::bootstrap::SecretsBootstrap;
use crate::data_dir::{DataPaths, ProfileLocation};
use crate::diagnostic::Diagnostic;
use crate::document::{Document, steps};
use crate::env::{Environment, ProcessEnvironment};
use crate::interpolate::interpolate;
use crate::origins::{Origins, SettingLine};
use crate::overlay;
use crate::profile::secrets::SecretsValidationMode;
use crate::profile::{Profile, check};
use crate::schema::check::Checker;
use crate::secrets::Secrets;
use crate::services::{Checks, NoChecks, ReadServices, Services, folder::read_text, mcp};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use systemprompt_models::Secret;

/// What is loaded, and with what.
#[derive(Clone)]
pub struct LoadOptions {
    pub location: ProfileLocation,
    pub env: Arc<dyn Environment>,
    /// Settings from the command line, as (`server.port`, `9000`). They win over everything.
    pub flags: Vec<(String, String)>,
    pub checks: Arc<dyn Checks>,
    /// Whether `exec:` references of secrets are run.
    pub run_commands: bool,
}

impl LoadOptions {
    /// The process environment, no flags, no checks of rooms above, commands run.
    pub fn new(location: ProfileLocation) -> Self {
        Self {
            location,
            env: Arc::new(ProcessEnvironment),
            flags: Vec::new(),
            checks: Arc::new(NoChecks),
            run_commands: true,
        }
    }
}

/// A configuration that passed every check.
#[derive(Clone)]
pub struct Loaded {
    pub profile: Arc<Profile>,
    pub services: Arc<Services>,
    pub secrets: Arc<Secrets>,
    pub paths: DataPaths,
    /// SHA-256 in hex over the effective profile and the bytes of the services files. Secrets are not part of it.
    pub hash: String,
    /// What was found but let pass.
    pub warnings: Vec<Diagnostic>,
    pub origins: Origins,
    /// What the files held when they were read, for the watcher.
    pub(crate) fingerprint: Vec<u8>,
}

/// Reads and checks everything. The error holds all findings, warnings among them.
pub fn validate(options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    let ReadProfile { profile, document, origins, mut findings } = read_profile(options)?;
    let paths = options.location.resolve(&profile);
    let fingerprint = crate::watch::digest(&paths);
    let services = match crate::services::read(&paths.services, options.checks.as_ref()) {
        Ok(read) => Some(read),
        Err(more) => {
            findings.extend(more.0);
            None
        }
    };
    let bootstrap = match SecretsBootstrap::load(&profile, &paths, options.env.as_ref(), options.run_commands)
    {
        Ok(bootstrap) => {
            findings.extend_from_slice(bootstrap.warnings());
            Some(bootstrap)
        }
        Err(more) => {
            findings.extend(more);
            None
        }
    };
    let (Some(services), Some(bootstrap)) = (services, bootstrap) else { return Err(findings) };
    let secrets = bootstrap.get();
    let ReadServices { services, files, warnings, mcp_documents } = services;
    findings.extend(warnings);
    let mode = profile.secrets.validation;
    findings.extend(mcp::check_secrets(&mcp_documents, &secrets, mode));
    findings.extend(provider_secrets(&profile, &document, &secrets, mode));
    if findings.iter().any(Diagnostic::is_error) {
        return Err(findings);
    }
    Ok(Loaded {
        hash: content_hash(&profile, &files),
        profile: Arc::new(profile),
        services: Arc::new(services),
        secrets,
        paths,
        warnings: findings,
        origins,
        fingerprint,
    })
}

/// The profile alone: what commands need that work without secrets.
pub fn load_profile(options: &LoadOptions) -> Result<(Profile, Origins), Vec<Diagnostic>> {
    read_profile(options).map(|read| (read.profile, read.origins))
}

struct ReadProfile {
    profile: Profile,
    document: Document,
    origins: Origins,
    findings: Vec<Diagnostic>,
}

fn read_profile(options: &LoadOptions) -> Result<ReadProfile, Vec<Diagnostic>> {
    let file = options.location.profile_file();
    let original = read_text(&file).map_err(|error| vec![unreadable(&file, &error)])?;
    let (text, columns) = interpolate(&file, &original, options.env.as_ref())?;
    let mut document =
        Document::parse(&file, &text, &original, &columns).map_err(|finding| vec![*finding])?;
    let checker = Checker::<Profile>::new("systemprompt profile");
    let settings = overlay::settings(options.env.as_ref(), &options.flags);
    let mut findings = overlay::lay(&mut document, &checker.schema, &settings);
    let profile = match checker.read(&document) {
        Ok(profile) => profile,
        Err(more) => {
            findings.extend(more);
            return Err(findings);
        }
    };
    findings.extend(check::check(&profile, &document));
    if findings.iter().any(Diagnostic::is_error) {
        return Err(findings);
    }
    Ok(ReadProfile { origins: Origins::of(&document), profile, document, findings })
}

fn unreadable(file: &Path, error: &std::io::Error) -> Diagnostic {
    let finding = match error.kind() {
        ErrorKind::NotFound => Diagnostic::error("profile_missing", "there is no profile here")
            .with_remedy("`systemprompt up` makes one"),
        ErrorKind::InvalidData => Diagnostic::error("unreadable", "the file is not UTF-8 text"),
        _ => Diagnostic::error("unreadable", format!("it cannot be read: {error}")),
    };
    finding.in_file(file)
}

/// Keys that providers name and that do not exist.
fn provider_secrets(
    profile: &Profile,
    document: &Document,
    secrets: &Secrets,
    mode: SecretsValidationMode,
) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for (index, provider) in profile.gateway.providers.iter().enumerate() {
        let Some(name) = provider.api_key_secret() else { continue };
        let path = steps!["gateway", "providers", index, "api_key_secret"];
        if crate::secrets::names::is_platform(name) || secrets.equals_platform(name) {
            let finding = Diagnostic::error(
                "platform_secret_not_leasable",
                format!("`{name}` is a platform secret and never goes to a provider"),
            );
            findings.push(document.locate(finding, &path));
        } else if secrets.get(name).is_none() && mode != SecretsValidationMode::Skip {
            let finding = Diagnostic::error(
                "secret_missing",
                format!("the secret `{name}` of provider `{}` has no value", provider.name),
            )
            .with_remedy(format!("systemprompt admin secrets set {name}"));
            let strict = mode == SecretsValidationMode::Strict;
            findings.push(document.locate(if strict { finding } else { finding.as_warning() }, &path));
        }
    }
    findings
}

fn content_hash(profile: &Profile, files: &[(String, Vec<u8>)]) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut part = |name: &str, bytes: &[u8]| {
        for piece in [name.as_bytes(), bytes] {
            context.update(&(piece.len() as u64).to_be_bytes());
            context.update(piece);
        }
    };
    // A profile of plain values always has a JSON form.
    part("profile", &serde_json::to_vec(profile).unwrap_or_default());
    for (name, bytes) in files {
        part(name, bytes);
    }
    hex::encode(context.finish())
}

impl Loaded {
    /// Every setting in force with its origin, sorted by key.
    pub fn settings(&self) -> Vec<SettingLine> {
        self.origins.lines(&serde_json::to_value(&*self.profile).unwrap_or_default())
    }

    /// Address of the database: the secret, a relative SQLite path counted from the data folder; else the data folder's file.
    pub fn database_url(&self) -> Secret<String> {
        let Some(url) = self.secrets.database_url() else {
            return Secret::new(format!("sqlite:{}", self.paths.database_file.display()));
        };
        let Some(path) = url.expose().strip_prefix("sqlite:") else { return url.clone() };
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.starts_with(":memory:") {
            return url.clone();
        }
        Secret::new(format!("sqlite:{}", self.paths.data_dir().join(path).display()))
    }
}

#[cfg(test)]
mod tests;
