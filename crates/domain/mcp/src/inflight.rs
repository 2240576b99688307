//! Calls under way, by who made them: a cancellation names only the sender's own requests (MCP-43).

use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use systemprompt_models::Principal;
use systemprompt_models::ids::{ClientId, SessionId, UserId};
use tokio_util::sync::CancellationToken;

/// Who made a call, and how it named it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    user: UserId,
    client: Option<ClientId>,
    session: SessionId,
    server: Box<str>,
    request: Box<str>,
}

/// The calls of this node. Bounded by the slots of the servers. Clones share them.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashMap<Key, Vec<CancellationToken>>>>);

/// A call that is under way for as long as this lives.
pub struct Running {
    calls: InFlight,
    key: Key,
    pub cancel: CancellationToken,
}

impl InFlight {
    pub fn begin(&self, principal: &Principal, server: &str, id: &RawValue) -> Running {
        let (key, cancel) = (key(principal, server, id), CancellationToken::new());
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.entry(key.clone()).or_default().push(cancel.clone());
        Running { calls: self.clone(), key, cancel }
    }

    /// Cancels a call. Without sessions two programs that share a token may both use one id; as it cannot be told which of
    /// the calls is meant, none is then cancelled.
    pub fn cancel(&self, principal: &Principal, server: &str, id: &RawValue) -> bool {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get(&key(principal, server, id)).map(Vec::as_slice) {
            Some([only]) => {
                only.cancel();
                true
            }
            _ => false,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The last owner of a token marks it, so that it is found here.
        self.cancel.cancel();
        let mut calls = self.calls.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokens) = calls.get_mut(&self.key) {
            tokens.retain(|token| !token.is_cancelled());
            if tokens.is_empty() {
                calls.remove(&self.key);
            }
        }
    }
}

fn key(principal: &Principal, server: &str, id: &RawValue) -> Key {
    Key {
        user: principal.user_id.clone(),
        client: principal.client_id.clone(),
        session: principal.session_id.clone(),
        server: server.into(),
        request: id.get().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::raw::raw;

    fn principal(user: &str) -> Principal {
        Principal { user_id: UserId::new(user), ..Principal::anonymous() }
    }

    #[test]
    fn a_cancellation_reaches_only_the_senders_own_call() {
        let calls = InFlight::default();
        let (one, text) = (raw("1".into()), raw("\"1\"".into()));
        let ada = calls.begin(&principal("ada"), "demo", &one);
        let bob = calls.begin(&principal("bob"), "demo", &one);
        assert!(
            !calls.cancel(&principal("ada"), "demo", &text)
                && !calls.cancel(&principal("ada"), "other", &one)
        );
        assert!(calls.cancel(&principal("ada"), "demo", &one));
        assert!(ada.cancel.is_cancelled() && !bob.cancel.is_cancelled());
        drop((ada, bob));
        assert!(calls.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_ambiguous_cancellation_cancels_nothing() {
        let calls = InFlight::default();
        let one = raw("1".into());
        let first = calls.begin(&principal("ada"), "demo", &one);
        let second = calls.begin(&principal("ada"), "demo", &one);
        assert!(!calls.cancel(&principal("ada"), "demo", &one));
        drop(first);
        assert!(calls.cancel(&principal("ada"), "demo", &one) && second.cancel.is_cancelled());
    }
}
