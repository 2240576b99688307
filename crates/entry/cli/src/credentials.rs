//! The local operator's credential: a file of mode 0600 beside the profile, written by the server at its start, so that commands
//! on this machine need no sign-in.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use systemprompt_config::ProfileLocation;

/// Where a server answers, and as whom.
#[derive(Serialize, Deserialize)]
pub struct Credentials {
    pub url: String,
    pub token: String,
    /// The number of the folder that the file was written in: a copy of the folder has another.
    #[serde(default)]
    pub folder: Option<u64>,
}

/// The file of a profile's credential.
pub fn file_of(location: &ProfileLocation) -> PathBuf {
    location.profile_dir().join("credentials.json")
}

/// The number that the file system gave the profile's folder.
fn folder_of(location: &ProfileLocation) -> Option<u64> {
    std::fs::metadata(location.profile_dir()).ok().map(|folder| folder.ino())
}

impl Credentials {
    /// What the server at `url` writes down in this profile's folder.
    pub fn new(location: &ProfileLocation, url: String, token: String) -> Self {
        Self { url, token, folder: folder_of(location) }
    }

    /// Whether they came along when the folder was copied, and so name the server of the original.
    pub fn are_copied(&self, location: &ProfileLocation) -> bool {
        self.folder.is_some() && self.folder != folder_of(location)
    }

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
