//! The servers of the deployment, as the services folder says. A reload swaps the whole set at once; what did not change is
//! the same object as before, so that its child goes on.

use super::limits::Slots;
use super::spawner::{LeaseRefused, LeaseSet};
use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use std::collections::BTreeMap;
use std::sync::Arc;
use systemprompt_config::McpServerConfig;
use systemprompt_config::secrets::Secrets;

/// A server and what its children are given.
pub struct Server {
    pub name: Box<str>,
    pub config: McpServerConfig,
    /// The secrets of its children, or why it cannot have them.
    pub leases: Result<LeaseSet, LeaseRefused>,
    /// Its calls under way.
    pub slots: Slots,
    key: InstanceKey,
}

/// What an instance was made from: the definition of the server and its set of secrets. A different key means another child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceKey([u8; 32]);

impl Server {
    fn new(name: &str, config: McpServerConfig, secrets: &Secrets) -> Self {
        let leases = LeaseSet::select(&config.secrets, secrets);
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&serde_json::to_vec(&config).unwrap_or_default());
        match &leases {
            Ok(set) => context.update(&set.digest()),
            Err(refused) => context.update(refused.to_string().as_bytes()),
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        let slots = Slots::new(&config.limits);
        Self { name: name.into(), config, leases, slots, key: InstanceKey(key) }
    }

    pub fn key(&self) -> InstanceKey {
        self.key
    }
}

/// The set of servers. Clones share it.
#[derive(Clone, Default)]
pub struct Registry(Arc<ArcSwap<BTreeMap<Box<str>, Arc<Server>>>>);

impl Registry {
    /// Puts the enabled servers of `configs` in force.
    pub fn replace(&self, configs: &BTreeMap<String, McpServerConfig>, secrets: &Secrets) {
        let before = self.0.load();
        let enabled = configs.iter().filter(|(name, config)| config.enabled && is_server_name(name));
        let servers = enabled.map(|(name, config)| {
            let server = Server::new(name, config.clone(), secrets);
            let unchanged = before.get(name.as_str()).filter(|old| old.key() == server.key());
            (name.as_str().into(), unchanged.cloned().unwrap_or_else(|| Arc::new(server)))
        });
        self.0.store(Arc::new(servers.collect()));
    }

    pub fn get(&self, name: &str) -> Option<Arc<Server>> {
        self.0.load().get(name).cloned()
    }

    /// All servers, by name.
    pub fn all(&self) -> Vec<Arc<Server>> {
        self.0.load().values().cloned().collect()
    }
}

/// `^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$`, and none of the names that routes need (MCP-2).
pub fn is_server_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let edges = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
    edges
        && bytes.len() <= 48
        && bytes.iter().all(|b| plain(*b) || *b == b'-')
        && !["all", "registry", "executions", "oauth"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> McpServerConfig {
        serde_json::from_value(serde_json::json!({
            "type": "stdio", "command": "server", "args": args, "secrets": ["crm"],
        }))
        .unwrap()
    }

    #[test]
    fn names_keep_to_their_form() {
        for name in ["a", "demo", "systemprompt-admin", "0-9", &"x".repeat(48)] {
            assert!(is_server_name(name), "{name}");
        }
        for name in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a/b",
            "all",
            "registry",
            "executions",
            "oauth",
            "é",
            &"x".repeat(49),
        ] {
            assert!(!is_server_name(name), "{name}");
        }
    }

    #[test]
    fn a_reload_keeps_what_did_not_change() {
        let registry = Registry::default();
        let secrets = |v: &str| Secrets::parse(&format!("{{\"crm\":\"{v}\"}}")).unwrap();
        let mut configs = BTreeMap::from([("a".to_owned(), config(&[])), ("b".to_owned(), config(&[]))]);
        registry.replace(&configs, &secrets("value-1"));
        let (a, b) = (registry.get("a").unwrap(), registry.get("b").unwrap());
        configs.insert("b".into(), config(&["--new"]));
        registry.replace(&configs, &secrets("value-1"));
        assert!(Arc::ptr_eq(&a, &registry.get("a").unwrap()));
        assert!(!Arc::ptr_eq(&b, &registry.get("b").unwrap()));
        registry.replace(&configs, &secrets("value-2"));
        assert_ne!(a.key(), registry.get("a").unwrap().key(), "a new value means a new child");
        configs.get_mut("a").unwrap().enabled = false;
        registry.replace(&configs, &secrets("value-2"));
        assert!(registry.get("a").is_none());
    }

    #[test]
    fn a_missing_secret_is_told_and_the_server_stays_known() {
        let registry = Registry::default();
        registry.replace(&BTreeMap::from([("a".to_owned(), config(&[]))]), &Secrets::default());
        let server = registry.get("a").unwrap();
        assert_eq!(server.leases.as_ref().err(), Some(&LeaseRefused::Missing("crm".into())));
    }
}
