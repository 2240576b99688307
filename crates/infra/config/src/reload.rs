//! What a reload changes: which settings differ, and which of them wait for a restart (PL-15).

use crate::load::Loaded;
use crate::profile::Profile;
use serde_json::Value;
use std::sync::Arc;

/// Settings that a running node cannot change.
const RESTART_KEYS: [&str; 8] = [
    "/database",
    "/server/host",
    "/server/port",
    "/server/internal_listener",
    "/server/instance_id",
    "/security/egress",
    "/governance/authz",
    "/paths",
];

impl Loaded {
    /// This configuration with what cannot change in a running node kept as `running` has it, and the keys that wait for a restart.
    pub fn kept_running(mut self, running: &Self) -> (Self, Vec<String>) {
        let (mut wanted, current) = (to_json(&self.profile), to_json(&running.profile));
        let mut pending = Vec::new();
        for key in RESTART_KEYS {
            if let (Some(new), Some(old)) = (wanted.pointer_mut(key), current.pointer(key))
                && *new != *old
            {
                pending.extend(differences(key.trim_start_matches('/').replace('/', "."), old, new));
                *new = old.clone();
            }
        }
        if !pending.is_empty()
            && let Ok(profile) = serde_json::from_value(wanted)
        {
            self.profile = Arc::new(profile);
            self.paths = running.paths.clone();
        }
        (self, pending)
    }

    /// Whether `older` was read from the same settings, services and secrets.
    pub fn is_same_as(&self, older: &Self) -> bool {
        self.hash == older.hash && self.secrets.same_as(&older.secrets)
    }

    /// What differs from `older`: setting keys, and `services/…` and `secrets` as wholes. Never a value.
    pub fn changed_keys(&self, older: &Self) -> Vec<String> {
        let mut keys = differences(String::new(), &to_json(&older.profile), &to_json(&self.profile));
        let parts = [
            ("services/access-control", self.services.access_control != older.services.access_control),
            ("services/governance", self.services.governance != older.services.governance),
            ("services/mcp", self.services.mcp_servers != older.services.mcp_servers),
            ("secrets", !self.secrets.same_as(&older.secrets)),
        ];
        keys.extend(parts.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()));
        keys
    }
}

fn to_json(profile: &Profile) -> Value {
    serde_json::to_value(profile).unwrap_or_default()
}

fn differences(prefix: String, old: &Value, new: &Value) -> Vec<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter()
                .flat_map(|key| {
                    let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    let side =
                        |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                    differences(path, &side(old), &side(new))
                })
                .collect()
        }
        (old, new) if old == new => Vec::new(),
        _ => vec![prefix],
    }
}
