//! What can be wrong with secrets. No message quotes a value.

use crate::diagnostic::Diagnostic;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    #[error("not a JSON object of strings")]
    Syntax { line: usize, column: usize },
    #[error("the value of `{key}` is not a string")]
    NotAString { key: String },
    #[error("`{first}` and `{second}` are the same name")]
    DuplicateKey { first: String, second: String },
    #[error("`{key}` is not a name: letters, digits and underscores, at most 64, not beginning with a digit")]
    BadName { key: String },
    #[error("`{key}` is reserved: as a variable it would steer a child process")]
    ReservedName { key: String },
    #[error("the value of `{key}` is longer than {} bytes", super::MAX_VALUE_BYTES)]
    ValueTooLong { key: String },
    #[error("the value of `{key}` contains a NUL byte")]
    ContainsNul { key: String },
    #[error("larger than {} bytes", super::MAX_FILE_BYTES)]
    TooLarge,
    #[error("more than {} custom secrets", super::MAX_CUSTOM)]
    TooMany,

    #[error("`{field}` has {found} characters, at least {minimum} are required")]
    TooShort { field: &'static str, minimum: usize, found: usize },
    #[error("`{field}` must be {rule} (found {found} characters)")]
    Malformed { field: &'static str, rule: &'static str, found: usize },
    #[error("`{field}` is missing")]
    Missing { field: &'static str },
    #[error("`{key}` holds a placeholder")]
    Placeholder { key: String },
    #[error("`{key}` is empty")]
    Empty { key: String },
    #[error("the reference in `{key}` does not resolve: {problem}")]
    Reference { key: String, problem: ReferenceProblem },
    #[error("`{key}` begins with an unknown reference scheme")]
    UnknownScheme { key: String },
    #[error("`secrets.validation: skip` lets faulty secrets pass only when runtime.environment is test")]
    SkipOutsideTest,

    #[error("there is no secrets file")]
    NotFound { path: PathBuf },
    #[error("the secrets file is not a regular file")]
    NotRegular { path: PathBuf },
    #[error("the mode of the secrets file is {found:04o}, at most {allowed:04o} is allowed")]
    FileMode { path: PathBuf, found: u32, allowed: u32 },
    #[error("the secrets file belongs to user {found}, not to user {wanted}, who runs this")]
    FileOwner { path: PathBuf, found: u32, wanted: u32 },
    #[error("everyone may write to the folder of the secrets file")]
    FolderWritable { path: PathBuf },
    #[error("the secrets file cannot be {doing}: {error}")]
    Io { path: PathBuf, doing: &'static str, error: std::io::ErrorKind },
    #[error("`{key}` is a platform secret")]
    PlatformSecret { key: String },
}

/// Why a reference gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceProblem {
    #[error("the variable {0} is not set")]
    Variable(String),
    #[error("{0}")]
    File(Box<SecretsError>),
    #[error("the file is not UTF-8")]
    NotText,
    #[error("$CREDENTIALS_DIRECTORY is not set, or the name holds a slash")]
    Credential,
    #[error("the command line is empty or has an open quote")]
    CommandSyntax,
    #[error("the command could not be started")]
    CommandStart,
    #[error("the command did not end with status 0")]
    CommandFailed,
    #[error("the command did not end within 10 s")]
    CommandTimeout,
    #[error("commands are not run here; --resolve runs them")]
    CommandNotRun,
}

impl SecretsError {
    /// Stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "secrets_syntax",
            Self::NotAString { .. } => "secret_not_a_string",
            Self::DuplicateKey { .. } => "secret_duplicate",
            Self::BadName { .. } => "secret_bad_name",
            Self::ReservedName { .. } => "secret_reserved_name",
            Self::ValueTooLong { .. } => "secret_too_long",
            Self::ContainsNul { .. } => "secret_contains_nul",
            Self::TooLarge => "secrets_too_large",
            Self::TooMany => "secrets_too_many",
            Self::TooShort { .. } => "secret_too_short",
            Self::Malformed { .. } => "secret_malformed",
            Self::Missing { .. } => "secret_missing",
            Self::Placeholder { .. } => "secret_placeholder",
            Self::Empty { .. } => "secret_empty",
            Self::Reference { .. } => "secret_reference",
            Self::UnknownScheme { .. } => "secret_unknown_scheme",
            Self::SkipOutsideTest => "skip_outside_test",
            Self::NotFound { .. } => "secrets_file_missing",
            Self::NotRegular { .. } => "secrets_file_type",
            Self::FileMode { .. } => "secrets_file_mode",
            Self::FileOwner { .. } => "secrets_file_owner",
            Self::FolderWritable { .. } => "secrets_folder_writable",
            Self::Io { .. } => "secrets_file_io",
            Self::PlatformSecret { .. } => "platform_secret",
        }
    }

    /// The step that mends it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Syntax { .. } => Some("write {\"name\": \"value\", …}".into()),
            Self::ReservedName { .. } | Self::BadName { .. } => Some("choose another name".into()),
            Self::TooShort { field, .. } | Self::Malformed { field, .. } | Self::Missing { field } => {
                Some(if *field == "database_url" {
                    "write sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE".to_owned()
                } else {
                    format!(
                        "remove `{field}` from the secrets file and run `systemprompt up`, which makes a new one"
                    )
                })
            }
            Self::Placeholder { key } | Self::Empty { key } => {
                Some(format!("systemprompt admin secrets set {key}"))
            }
            Self::UnknownScheme { .. } => {
                Some("allowed are env:, file: and exec:; literal: keeps the value as it is".into())
            }
            Self::NotFound { .. } => Some("systemprompt up makes one".into()),
            Self::FileMode { path, allowed, .. } => Some(format!("chmod {allowed:04o} {}", path.display())),
            Self::FileOwner { path, wanted, .. } => Some(format!("chown {wanted} {}", path.display())),
            Self::FolderWritable { path } => Some(format!("chmod o-w {}", path.display())),
            Self::PlatformSecret { .. } => Some("platform secrets are made by `systemprompt up`".into()),
            _ => None,
        }
    }

    /// As a finding in the secrets file (or none, when secrets come from the environment).
    pub fn diagnostic(&self, file: Option<&std::path::Path>) -> Diagnostic {
        let mut finding = Diagnostic::error(self.code(), self.to_string());
        if let Some(remedy) = self.remedy() {
            finding = finding.with_remedy(remedy);
        }
        if let Some(file) = file {
            finding = finding.in_file(file);
        }
        if let Self::Syntax { line, column } = self {
            finding.line = u32::try_from(*line).unwrap_or(u32::MAX);
            finding.column = u32::try_from(*column).unwrap_or(u32::MAX);
        }
        finding
    }
}
