//! The process-wide hook that the seed documents name. Nothing inside uses it: every plane takes its hook from the
//! application context, and this is the same one, for code that embeds the crate.

use super::error::AuthzBootstrapError;
use super::hook::{AuthzDecisionHook, DenyAllHook, HookParts, from_config};
use std::sync::{Arc, PoisonError, RwLock};
use systemprompt_config::profile::governance::AuthzConfig;

static HOOK: RwLock<Option<Arc<dyn AuthzDecisionHook>>> = RwLock::new(None);

/// The installed hook; without one, everything is denied.
pub fn global_hook() -> Arc<dyn AuthzDecisionHook> {
    let installed = HOOK.read().unwrap_or_else(PoisonError::into_inner);
    installed.clone().unwrap_or_else(|| Arc::new(DenyAllHook::DEFAULT))
}

/// Installs the hook, once.
///
/// # Errors
/// When one is installed already.
pub fn install_global_hook(hook: Arc<dyn AuthzDecisionHook>) -> Result<(), AuthzBootstrapError> {
    let mut installed = HOOK.write().unwrap_or_else(PoisonError::into_inner);
    if installed.is_some() {
        return Err(AuthzBootstrapError::AlreadyInstalled);
    }
    *installed = Some(hook);
    Ok(())
}

/// Installs the hook that a profile asks for, and returns it.
///
/// # Errors
/// A mode that is not acknowledged, a decision service without address or secret, or a hook that is installed already.
pub fn install_from_governance_config(
    config: &AuthzConfig,
    parts: &HookParts<'_>,
) -> Result<Arc<dyn AuthzDecisionHook>, AuthzBootstrapError> {
    let hook = from_config(config, parts)?;
    install_global_hook(Arc::clone(&hook))?;
    Ok(hook)
}

/// Takes the hook away again; for tests and for a second server in one process.
pub fn clear_global_hook() {
    *HOOK.write().unwrap_or_else(PoisonError::into_inner) = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::types::{AuthzRequest, EntityKind, EntityRef};
    use systemprompt_models::Principal;

    #[test]
    fn without_a_hook_everything_is_denied_and_a_second_install_fails() {
        let entity = EntityRef::new(EntityKind::Agent, "a");
        let principal = Principal::anonymous();
        let ask = || global_hook().decide(AuthzRequest::new(&principal, &entity)).unwrap().policy();
        assert_eq!(ask(), "authz_default_deny");
        install_global_hook(Arc::new(crate::authz::AllowAllHook)).unwrap();
        assert_eq!(ask(), "authz_unrestricted");
        assert_eq!(
            install_global_hook(Arc::new(DenyAllHook::DISABLED)),
            Err(AuthzBootstrapError::AlreadyInstalled)
        );
        clear_global_hook();
        assert_eq!(ask(), "authz_default_deny");
    }
}
