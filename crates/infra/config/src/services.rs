//! The services folder: access-control, governance and MCP servers as YAML. Everything is read and checked together; one bad
//! file and nothing of that reading counts.

pub mod access_control;
pub mod draft;
pub(crate) mod folder;
pub mod governance;
pub mod mcp;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::Document;
use crate::schema::check::Checker;
use access_control::{AccessControlConfig, AccessControlReader};
use folder::{YamlFile, yaml_files};
use governance::{GovernanceConfig, PolicyConfig};
use mcp::McpServerConfig;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// What the services folder says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    pub access_control: AccessControlConfig,
    pub governance: GovernanceConfig,
    /// By server name.
    pub mcp_servers: BTreeMap<String, McpServerConfig>,
}

/// What rooms above this crate know about the services files: which policies exist, how they read their parameters, what looks
/// like a secret.
pub trait Checks: Send + Sync {
    /// Ids that a policy entry may have.
    fn policy_ids(&self) -> Vec<String> {
        governance::BUILT_IN_POLICIES.map(str::to_owned).to_vec()
    }

    /// What is wrong with a policy's parameters.
    fn policy_params(&self, _policy: &PolicyConfig) -> Vec<ParamProblem> {
        Vec::new()
    }

    /// Whether a plain value looks like a secret and belongs under `secrets`.
    fn looks_like_a_secret(&self, _value: &str) -> bool {
        false
    }
}

/// The built-in policy ids and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoChecks;

impl Checks for NoChecks {}

/// One fault of a policy's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamProblem {
    /// Keys from `params` down; empty for the whole.
    pub keys: Vec<String>,
    /// Whether the key itself is the fault (it is not known) rather than its value.
    pub unknown_key: bool,
    pub message: String,
    pub allowed: Vec<String>,
}

/// The folder as read: its content, the files it came from (relative name and bytes, for the content hash), and what was found
/// but let pass.
pub(crate) struct ReadServices {
    pub(crate) services: Services,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) mcp_documents: Vec<(Document, mcp::McpFile)>,
}

/// Folders of this crate's knowledge.
const FOLDERS: [&str; 3] = ["access-control", "governance", "mcp"];

/// Reads and checks the services folder. A folder that does not exist is an empty one.
pub(crate) fn read(folder: &Path, checks: &dyn Checks) -> Result<ReadServices, Diagnostics> {
    let mut pass = Pass { findings: Vec::new(), files: Vec::new() };
    folder::strangers(folder, &FOLDERS, &mut pass.findings);

    let documents = pass.documents(&folder.join("access-control"), "access-control");
    let reader = AccessControlReader::default();
    let access_control = access_control::check(pass.typed(reader.checker(), documents), &mut pass.findings);

    let documents = pass.documents(&folder.join("governance"), "governance");
    let files = pass.typed(&Checker::new("governance"), documents);
    let governance = governance::check(files, checks, &mut pass.findings);

    let documents = pass.documents(&folder.join("mcp"), "mcp");
    let mcp_documents = pass.typed(&Checker::new("mcp"), documents);
    let mcp_servers = mcp::check(&mcp_documents, checks, &mut pass.findings);

    if pass.findings.iter().any(Diagnostic::is_error) {
        return Err(Diagnostics(pass.findings));
    }
    Ok(ReadServices {
        services: Services { access_control, governance, mcp_servers },
        files: pass.files,
        warnings: pass.findings,
        mcp_documents,
    })
}

/// Collects findings while files are read.
struct Pass {
    findings: Vec<Diagnostic>,
    files: Vec<(String, Vec<u8>)>,
}

impl Pass {
    fn documents(&mut self, folder: &Path, name: &str) -> Vec<Document> {
        let mut documents = Vec::new();
        for file in yaml_files(folder, &mut self.findings) {
            let YamlFile { path, text } = file;
            let relative = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            match Document::parse(&path, &text, &text, &crate::interpolate::Columns::default()) {
                Ok(document) => documents.push(document),
                Err(finding) => self.findings.push(*finding),
            }
            self.files.push((relative, text.into_bytes()));
        }
        documents
    }

    fn typed<T: JsonSchema + DeserializeOwned>(
        &mut self,
        checker: &Checker<T>,
        documents: Vec<Document>,
    ) -> Vec<(Document, T)> {
        documents
            .into_iter()
            .filter_map(|document| match checker.read(&document) {
                Ok(value) => Some((document, value)),
                Err(findings) => {
                    self.findings.extend(findings);
                    None
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
