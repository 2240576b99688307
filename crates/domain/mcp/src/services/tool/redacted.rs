//! The parameters of a call that goes on with marks in place of secrets (SEC-87): what the server gets, once it is sure that the server
//! would take it for the same call.

use super::question::{ARGUMENTS, OTHERS};
use super::violations;
use crate::services::definitions::Definition;
use crate::wire::MAX_DEPTH;
use crate::wire::raw::RawObject;
use serde_json::value::RawValue;
use systemprompt_models::json::check_object;
use systemprompt_security::governance::Redaction;

/// What is put in place of parts of the parameters.
#[derive(Debug, Default)]
pub(super) struct Redacted {
    arguments: Option<Box<RawValue>>,
    /// The parameters without the arguments.
    others: Option<Box<RawValue>>,
}

impl Redacted {
    /// The parts that a judgement wants replaced.
    ///
    /// # Errors
    /// Why the call cannot go on with them.
    pub(super) fn of(
        redactions: &[Redaction],
        tool: &str,
        definition: &Definition,
    ) -> Result<Self, &'static str> {
        let mut redacted = Self::default();
        for redaction in redactions {
            let text = std::str::from_utf8(&redaction.json).ok();
            let part = text.and_then(|text| serde_json::from_str::<Box<RawValue>>(text).ok());
            // Two secrets in names may get the same mark, and of two members of one name parsers pick different ones.
            let is_object = check_object(&redaction.json, MAX_DEPTH).is_ok();
            let part = part.filter(|_| is_object).ok_or("marks in its place leave no parameters to send")?;
            match redaction.segment {
                ARGUMENTS => redacted.arguments = Some(part),
                OTHERS => redacted.others = Some(part),
                _ => return Err("it stands where no mark can be put"),
            }
        }
        if redacted.arguments.as_ref().is_some_and(|arguments| !violations(definition, arguments).is_empty())
        {
            return Err("with a mark in its place the arguments do not fit the tool's inputSchema");
        }
        let others = redacted.others.as_ref().map(|others| RawObject::read(others).unwrap_or_default());
        if others.is_some_and(|others| others.string("name").as_deref() != Some(tool)) {
            return Err("it stands in the tool's name, which no mark can take the place of");
        }
        Ok(redacted)
    }

    /// The parameters that go to the server, of a call that came with `params`.
    pub(super) fn params<'a>(&'a self, params: &RawObject<'a>) -> RawObject<'a> {
        let arguments = self.arguments.as_deref().or_else(|| params.get("arguments"));
        let changed = match self.others.as_deref().and_then(RawObject::read) {
            Some(others) => others,
            None => params.clone(),
        };
        match arguments {
            Some(arguments) => changed.with("arguments", arguments),
            None => changed,
        }
    }

    /// The arguments, or the other parameters, as they go to the server.
    pub(super) fn part<'a>(&'a self, part: usize, came: &'a RawValue) -> &'a RawValue {
        let changed = if part == ARGUMENTS { &self.arguments } else { &self.others };
        changed.as_deref().unwrap_or(came)
    }
}
