//! Values in use in what a caller sends (SCR-64): a credential that was handed to a tool server or a provider has no place in a
//! model request, in the arguments of a tool or in the body of a hook. Such a call is refused whatever the policies say; the
//! only place where a value may pass is the header for which it was leased, and that is none of the content.

use super::chain::Denial;
use super::facts::CallFacts;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use systemprompt_leak::{Hit, Scanner};

/// Policy of a call that brings a value in use along.
pub const ID: &str = "secret_leak";
/// Its reason.
pub const REASON: &str = "secret_in_use";
/// Most leaks of a call that are told one by one.
pub const MAX_TOLD: usize = 10;

/// A value in use in what was sent. It names the secret, never the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    pub name: Arc<str>,
    /// How it was written.
    pub form: Cow<'static, str>,
    /// JSON pointer of the part of the body that holds it.
    pub pointer: Box<str>,
    /// Where it begins there, in bytes of the raw text.
    pub offset: usize,
}

/// What was found in one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaks {
    /// The first ones.
    pub told: Vec<Leak>,
    /// All of them.
    pub count: usize,
}

impl Leaks {
    pub(super) fn of(facts: &CallFacts<'_>, in_use: &Scanner) -> Self {
        let mut leaks = Self::default();
        for (pointer, hit) in facts.names.leaks() {
            leaks.add(pointer, hit.clone());
        }
        if in_use.is_empty() {
            return leaks;
        }
        for segment in facts.segments {
            for hit in in_use.scan_request(segment.json) {
                leaks.add(&segment.pointer, hit);
            }
        }
        leaks
    }

    fn add(&mut self, pointer: &str, hit: Hit) {
        self.count += 1;
        if self.told.len() < MAX_TOLD {
            let form = Cow::Borrowed(hit.form.as_str());
            self.told.push(Leak { name: hit.name, form, pointer: pointer.into(), offset: hit.offset });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Why a call with these leaks is refused; it names the secrets.
    pub(super) fn denial(&self) -> Denial {
        let names: BTreeSet<String> = self.told.iter().map(|leak| format!("`{}`", leak.name)).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        Denial {
            policy: ID.into(),
            reason: REASON.into(),
            message: format!("the content holds the value of {names}, which is in use here; remove it")
                .into(),
        }
    }
}
