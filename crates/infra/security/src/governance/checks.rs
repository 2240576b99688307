//! What the configuration asks this crate when it checks the services folder: which policies exist, whether they take
//! their parameters, and what looks like a secret that should not stand there.

use super::params::ParamError;
use super::pipeline::Parts;
use super::scan::FindingClass;
use systemprompt_config::services::governance::PolicyConfig;
use systemprompt_config::services::{Checks, ParamProblem};

/// The checks of the services folder, made of what pipelines are made of.
#[derive(Clone)]
pub struct GovernanceChecks(pub Parts);

impl Checks for GovernanceChecks {
    fn policy_ids(&self) -> Vec<String> {
        self.0.policy_ids().map(str::to_owned).collect()
    }

    fn policy_params(&self, policy: &PolicyConfig) -> Vec<ParamProblem> {
        match self.0.build(&policy.id, &policy.params) {
            Some(Err(error)) => vec![problem(error)],
            Some(Ok(_)) | None => Vec::new(),
        }
    }

    fn looks_like_a_secret(&self, value: &str) -> bool {
        self.0.scanner.scan_text(value).iter().any(|f| f.class == FindingClass::Specific)
    }
}

fn problem(error: ParamError) -> ParamProblem {
    let message = error.to_string();
    match error {
        ParamError::Unknown { name, allowed, .. } => {
            let message = format!("there is no parameter `{name}`");
            ParamProblem { keys: vec![name], unknown_key: true, message, allowed }
        }
        ParamError::Type(_) => ParamProblem { message, ..ParamProblem::default() },
        ParamError::Value { keys, message } => ParamProblem { keys, message, ..ParamProblem::default() },
    }
}
