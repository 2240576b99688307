//! Reads the YAML files of a folder: sorted by name, bounded in number and size.

use crate::diagnostic::Diagnostic;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

const MAX_FILES: usize = 1000;
const MAX_FILE_BYTES: u64 = 16 << 20;

pub(super) struct YamlFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The folder's `*.yaml` and `*.yml`; hidden files and other names are passed over. An absent folder has none.
pub(super) fn yaml_files(folder: &Path, findings: &mut Vec<Diagnostic>) -> Vec<YamlFile> {
    let paths = match entries(folder) {
        Ok(paths) => paths,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            findings.push(unreadable(folder, &error));
            return Vec::new();
        }
    };
    let paths: Vec<PathBuf> = paths.into_iter().filter(|path| is_yaml(path)).collect();
    if paths.len() > MAX_FILES {
        let message = format!("{} files, at most {MAX_FILES} are read", paths.len());
        findings.push(Diagnostic::error("too_many_files", message).in_file(folder));
        return Vec::new();
    }
    let mut files = Vec::new();
    for path in paths {
        match read_text(&path) {
            Ok(text) => files.push(YamlFile { path, text }),
            // A file that went away between listing and reading is gone, and the next poll sees that.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => findings.push(unreadable(&path, &error)),
        }
    }
    files
}

/// Warns of files and folders under `folder` that nothing reads.
pub(super) fn strangers(folder: &Path, known: &[&str], findings: &mut Vec<Diagnostic>) {
    for path in entries(folder).unwrap_or_default() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stray_file = is_yaml(&path);
        let stray_folder = path.is_dir() && !known.contains(&name.as_str());
        if stray_file || (stray_folder && entries(&path).is_ok_and(|e| e.iter().any(|p| is_yaml(p)))) {
            let finding = Diagnostic::warning("unread_service", format!("nothing reads `{name}` here"))
                .suggesting(&name, known.iter().copied())
                .with_allowed(known.iter().copied());
            findings.push(finding.in_file(&path));
        }
    }
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml") && path.is_file()
}

/// A whole text file, refused above the size limit.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, "larger than 16 MiB"));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    let message = match error.kind() {
        ErrorKind::InvalidData => "the file is not UTF-8 text".to_owned(),
        _ => format!("it cannot be read: {error}"),
    };
    Diagnostic::error("unreadable", message).in_file(path)
}
