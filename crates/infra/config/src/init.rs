//! The first profile of a data folder. Nothing that exists is overwritten.

use crate::data_dir::ProfileLocation;
use crate::profile::database::DatabaseKind;
use crate::schema::profile_schema;
use crate::secrets::file::write_atomically;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a new profile says beyond the defaults.
#[derive(Clone, Debug)]
pub struct NewProfile {
    pub database: DatabaseKind,
    /// Port to listen on; the default if absent.
    pub port: Option<u16>,
    /// Whether the offline demo model gets a provider and a route.
    pub demo: bool,
}

/// Why a profile could not be written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("a profile exists already at {0}")]
    Exists(PathBuf),
    #[error("{path} cannot be written")]
    Io { path: PathBuf, source: std::io::Error },
}

/// Writes the profile, its schema and the folders it needs (mode 0700).
pub fn init_profile(location: &ProfileLocation, new: &NewProfile) -> Result<PathBuf, InitError> {
    let file = location.profile_file();
    if file.exists() {
        return Err(InitError::Exists(file));
    }
    let services = location.data_dir.join("services");
    for folder in [
        location.profile_dir(),
        location.data_dir.join("keys"),
        services.join("access-control"),
        services.join("governance"),
        services.join("mcp"),
    ] {
        private_folder(&folder).map_err(|source| InitError::Io { path: folder.clone(), source })?;
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::Io { path, source }
    };
    let schema = location.schema_file();
    let text = serde_json::to_string_pretty(&profile_schema())
        .map_err(|e| InitError::Io { path: schema.clone(), source: e.into() })?;
    write_atomically(&schema, (text + "\n").as_bytes(), 0o644).map_err(io(&schema))?;
    let mut out =
        OpenOptions::new().create_new(true).write(true).mode(0o644).open(&file).map_err(io(&file))?;
    out.write_all(profile_text(&location.profile_name, new).as_bytes()).map_err(io(&file))?;
    out.sync_all().map_err(io(&file))?;
    Ok(file)
}

/// Makes a folder and its parents, each readable by its owner alone. Existing ones are left as they are.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn profile_text(name: &str, new: &NewProfile) -> String {
    let database = match new.database {
        DatabaseKind::Sqlite => "sqlite",
        DatabaseKind::Postgres => "postgres",
    };
    let server = new.port.map_or_else(String::new, |port| format!("server:\n  port: {port}\n"));
    let gateway = if new.demo { DEMO_GATEWAY } else { "" };
    format!(
        "# yaml-language-server: $schema=../../profile.schema.json\n\
         # `systemprompt config show --origin` lists every setting with its value and where it comes from.\n\
         name: {name}\n\
         database:\n  type: {database}\n\
         {server}\
         governance:\n  authz:\n    hook:\n      mode: rules\n\
        \x20 # What a coding agent's hook is told of a tool that may be used: `allow` (its user is not asked as well), or\n\
        \x20 # `none` (the agent asks its user as it would without the hook).\n\
        \x20 hooks:\n    on_allow: allow\n\
         {gateway}"
    )
}

const DEMO_GATEWAY: &str = "\
gateway:
  providers:
    - name: demo
      type: demo
  routes:
    - name: demo
      model: claude-demo*
      targets:
        - provider: demo
";

#[cfg(test)]
mod tests;
