//! Where things are: the data folder, the profile in it, and what the profile's paths resolve to.

use crate::env::Environment;
use crate::profile::Profile;
use std::path::{Path, PathBuf};

/// Name of the data folder inside a working folder.
pub const FOLDER_NAME: &str = ".systemprompt";
/// Profile that is made and taken when none is named.
pub const DEFAULT_PROFILE: &str = "default";

/// A profile's place, known before the profile is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileLocation {
    pub data_dir: PathBuf,
    pub profile_name: String,
}

/// Why no profile could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    #[error(
        "`{0}` is not a profile name: letters, digits, `.`, `_` and `-`, at most 64, not beginning with a sign"
    )]
    BadName(String),
    #[error("several profiles exist ({}); name one with --profile", .0.join(", "))]
    Ambiguous(Vec<String>),
    #[error("neither HOME nor XDG_DATA_HOME is set; name the data folder with --data-dir")]
    NoHome,
}

impl ProfileLocation {
    /// Finds the data folder and profile. Folder: `data_dir` (flag), `SYSTEMPROMPT_DATA_DIR`, `.systemprompt` of the working
    /// folder if it exists, the user's data folder. Profile: `profile` (flag), `SYSTEMPROMPT_PROFILE`, the only one, `default`.
    pub fn discover(
        data_dir: Option<&Path>,
        profile: Option<&str>,
        working_dir: &Path,
        env: &dyn Environment,
    ) -> Result<Self, LocationError> {
        let data_dir = data_folder(data_dir, working_dir, env)?;
        let named =
            profile.map(str::to_owned).or_else(|| env.get("SYSTEMPROMPT_PROFILE").filter(|p| !p.is_empty()));
        let profile_name = match named {
            Some(name) if is_profile_name(&name) => name,
            Some(name) => return Err(LocationError::BadName(name.chars().take(64).collect())),
            None => only_profile(&data_dir)?,
        };
        Ok(Self { data_dir, profile_name })
    }

    pub fn profile_dir(&self) -> PathBuf {
        self.data_dir.join("profiles").join(&self.profile_name)
    }

    pub fn profile_file(&self) -> PathBuf {
        self.profile_dir().join("profile.yaml")
    }

    /// The secrets file where the profile names no other.
    pub fn default_secrets_file(&self) -> PathBuf {
        self.profile_dir().join("secrets.json")
    }

    /// The database of a fresh installation.
    pub fn default_database_file(&self) -> PathBuf {
        self.data_dir.join("systemprompt.db")
    }

    pub fn schema_file(&self) -> PathBuf {
        self.data_dir.join("profile.schema.json")
    }

    /// Everything that the profile's paths resolve to.
    pub fn resolve(&self, profile: &Profile) -> DataPaths {
        let data = |path: &Path| self.data_dir.join(path);
        let keys_dir = data(Path::new("keys"));
        DataPaths {
            profile_file: self.profile_file(),
            secrets_file: profile
                .secrets
                .secrets_path
                .as_ref()
                .map_or_else(|| self.default_secrets_file(), |path| self.profile_dir().join(path)),
            signing_key_path: profile
                .security
                .signing_key_path
                .as_ref()
                .map_or_else(|| keys_dir.join("signing.json"), |path| data(path)),
            ledger_key_path: match (&profile.audit.signing_key_path, profile.audit.signing_command()) {
                (Some(path), None) => data(path),
                _ => keys_dir.join("ledger.ed25519"),
            },
            ledger_key_command: profile.audit.signing_command().flatten(),
            keys_dir,
            database_file: self.default_database_file(),
            system: data(&profile.paths.system),
            services: data(&profile.paths.services),
            storage: data(&profile.paths.storage),
            web: data(&profile.paths.web_path),
            location: self.clone(),
        }
    }
}

/// The files and folders of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPaths {
    pub location: ProfileLocation,
    pub profile_file: PathBuf,
    pub secrets_file: PathBuf,
    pub keys_dir: PathBuf,
    /// JWK Set of the key ring.
    pub signing_key_path: PathBuf,
    /// The key that signs the ledger's checkpoints.
    pub ledger_key_path: PathBuf,
    /// The words of the command that signs instead.
    pub ledger_key_command: Option<Vec<String>>,
    /// SQLite file where `database_url` names no other.
    pub database_file: PathBuf,
    pub system: PathBuf,
    pub services: PathBuf,
    pub storage: PathBuf,
    pub web: PathBuf,
}

impl DataPaths {
    pub fn data_dir(&self) -> &Path {
        &self.location.data_dir
    }
}

fn data_folder(
    flag: Option<&Path>,
    working_dir: &Path,
    env: &dyn Environment,
) -> Result<PathBuf, LocationError> {
    let named = flag
        .map(Path::to_owned)
        .or_else(|| env.get("SYSTEMPROMPT_DATA_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from));
    if let Some(named) = named {
        let named = working_dir.join(named);
        // A working folder may be named in place of the data folder inside it.
        let inner = named.join(FOLDER_NAME);
        return Ok(if !named.join("profiles").is_dir() && inner.join("profiles").is_dir() {
            inner
        } else {
            named
        });
    }
    let local = working_dir.join(FOLDER_NAME);
    if local.is_dir() {
        return Ok(local);
    }
    let folder = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("systemprompt"))
        .ok_or(LocationError::NoHome)
}

fn is_profile_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn only_profile(data_dir: &Path) -> Result<String, LocationError> {
    let mut names: Vec<String> = std::fs::read_dir(data_dir.join("profiles"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("profile.yaml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_profile_name(name))
        .collect();
    names.sort();
    match names.as_slice() {
        [] => Ok(DEFAULT_PROFILE.to_owned()),
        [only] => Ok(only.clone()),
        several if several.iter().any(|n| n == DEFAULT_PROFILE) => Ok(DEFAULT_PROFILE.to_owned()),
        _ => Err(LocationError::Ambiguous(names)),
    }
}

#[cfg(test)]
mod tests;
