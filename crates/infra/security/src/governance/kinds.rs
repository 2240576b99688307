//! Parameters of policies that find things of several kinds: what a finding leads to, for all kinds and for each.

use super::findings::Action;
use super::params::{self, ParamError, closest, hint};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

const ALLOWED: [&str; 2] = ["action", "kinds"];

/// What findings lead to; flags, unless the configuration says otherwise.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Kinds {
    /// For all kinds.
    action: Action,
    /// By kind; wins over `action`.
    kinds: BTreeMap<String, Action>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { action: Action::Flag, kinds: BTreeMap::new() }
    }
}

impl Kinds {
    /// Reads the parameters of a policy that knows the kinds `known`, which are kinds of `what`.
    pub fn read<'k>(
        params: &Value,
        known: impl Iterator<Item = &'k str> + Clone,
        what: &str,
    ) -> Result<Self, ParamError> {
        let read: Self = params::read(params, &ALLOWED)?;
        let stranger = read.kinds.keys().find(|kind| !known.clone().any(|k| k == kind.as_str()));
        let Some(kind) = stranger else { return Ok(read) };
        let message = format!("there is no such kind of {what}{}", hint(closest(kind, known).as_deref()));
        Err(ParamError::value(["kinds", kind], message))
    }

    /// What a finding of this kind leads to.
    pub fn action(&self, kind: &str) -> Action {
        self.kinds.get(kind).copied().unwrap_or(self.action)
    }
}
