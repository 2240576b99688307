//! The local operator's credential: a file of mode 0600 beside the profile, written by the server at its start, so that commands
//! on this machine need no sign-in.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use systemprompt_config::ProfileLocation;

/// Where a server answers, and as whom.
#[derive(Serialize, Deserialize)]
pub struct Credentials {
    pub url: String,
    pub token: String,
}

/// The file of a profile's credential.
pub fn file_of(location: &ProfileLocation) -> PathBuf {
    location.profile_dir().join("credentials.json")
}

impl Credentials {
    /// Reads the file, if there is a readable one.
    pub fn read(location: &ProfileLocation) -> Option<Self> {
        serde_json::from_reader(File::open(file_of(location)).ok()?).ok()
    }

    /// Writes the file through a temporary name.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, location: &ProfileLocation) -> std::io::Result<()> {
        let path = file_of(location);
        let draft = path.with_extension("json.new");
        let _ = std::fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(serde_json::to_string(self)?.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)
    }
}
