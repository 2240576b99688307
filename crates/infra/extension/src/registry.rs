//! The ordered list of extensions that a node runs.

use crate::Extension;
use systemprompt_audit::Table;
use systemprompt_database::Migration;

/// Why a list of extensions cannot run together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    #[error("`{0}` is no extension id; ids match [a-z][a-z0-9-]{{1,31}}")]
    BadId(&'static str),
    #[error("two extensions are called `{0}`")]
    Duplicate(&'static str),
    #[error("extension `{from}` needs `{to}`, which is not registered")]
    Unknown { from: &'static str, to: &'static str },
    #[error("extension `{from}` needs `{to}`, which `extensions.disabled` switches off")]
    DisabledDependency { from: &'static str, to: &'static str },
    #[error("extension `{0}` depends on itself by way of others")]
    Circular(&'static str),
    #[error("two migrations have version {0}")]
    DuplicateMigration(i64),
    #[error("`extensions.disabled` names `{0}`, which is not registered")]
    UnknownDisabled(String),
}

/// Extensions in order of their dependencies.
pub struct Registry {
    extensions: Vec<Box<dyn Extension>>,
    disabled: Vec<String>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.extensions.iter().map(|e| e.id())).finish()
    }
}

impl Registry {
    /// Checks a list of extensions. Those in `disabled` keep their tables and run nothing.
    ///
    /// # Errors
    /// Any [`RegistryError`]; both sides of a conflict are named.
    pub fn new(extensions: Vec<Box<dyn Extension>>, disabled: &[String]) -> Result<Self, RegistryError> {
        let registry = Self { extensions, disabled: disabled.to_vec() };
        registry.check_ids()?;
        registry.check_dependencies()?;
        registry.check_migrations()?;
        Ok(registry)
    }

    fn check_ids(&self) -> Result<(), RegistryError> {
        let mut seen: Vec<&str> = Vec::new();
        for id in self.extensions.iter().map(|e| e.id()) {
            if !is_id(id) {
                return Err(RegistryError::BadId(id));
            }
            if seen.contains(&id) {
                return Err(RegistryError::Duplicate(id));
            }
            seen.push(id);
        }
        match self.disabled.iter().find(|name| !seen.contains(&name.as_str())) {
            Some(name) => Err(RegistryError::UnknownDisabled(name.clone())),
            None => Ok(()),
        }
    }

    fn check_dependencies(&self) -> Result<(), RegistryError> {
        for extension in &self.extensions {
            let from = extension.id();
            for to in extension.depends_on() {
                if self.find(to).is_none() {
                    return Err(RegistryError::Unknown { from, to });
                }
                if self.is_enabled(from) && !self.is_enabled(to) {
                    return Err(RegistryError::DisabledDependency { from, to });
                }
            }
            if self.reaches(from, from, self.extensions.len()) {
                return Err(RegistryError::Circular(from));
            }
        }
        Ok(())
    }

    /// Whether `target` is among what `from` needs, within `depth` steps.
    fn reaches(&self, from: &str, target: &str, depth: usize) -> bool {
        let needed = self.find(from).map_or(&[][..], |e| e.depends_on());
        needed.iter().any(|next| *next == target || (depth > 0 && self.reaches(next, target, depth - 1)))
    }

    fn check_migrations(&self) -> Result<(), RegistryError> {
        let mut versions: Vec<i64> = self.migrations().iter().map(|m| m.version).collect();
        versions.sort_unstable();
        let twice = versions.windows(2).find_map(|w| match w {
            [a, b] if a == b => Some(*a),
            _ => None,
        });
        twice.map_or(Ok(()), |version| Err(RegistryError::DuplicateMigration(version)))
    }

    fn find(&self, id: &str) -> Option<&dyn Extension> {
        self.extensions.iter().map(AsRef::as_ref).find(|e| e.id() == id)
    }

    /// Whether an extension runs.
    pub fn is_enabled(&self, id: &str) -> bool {
        self.find(id).is_some() && !self.disabled.iter().any(|name| name == id)
    }

    /// Every step of the schema, of disabled extensions too: their tables stay.
    pub fn migrations(&self) -> Vec<Migration> {
        self.extensions.iter().flat_map(|e| e.migrations()).collect()
    }

    /// Every companion table of the ledger.
    pub fn tables(&self) -> Vec<&'static Table> {
        self.extensions.iter().flat_map(|e| e.tables()).collect()
    }

    /// (id, version, enabled) of each extension.
    pub fn list(&self) -> Vec<(&'static str, &'static str, bool)> {
        self.extensions.iter().map(|e| (e.id(), e.version(), self.is_enabled(e.id()))).collect()
    }
}

fn is_id(id: &str) -> bool {
    let mut chars = id.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && (2..=32).contains(&id.len())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Room(&'static str, &'static [&'static str], i64);

    impl Extension for Room {
        fn id(&self) -> &'static str {
            self.0
        }
        fn version(&self) -> &'static str {
            "1"
        }
        fn depends_on(&self) -> &'static [&'static str] {
            self.1
        }
        fn migrations(&self) -> Vec<Migration> {
            vec![Migration { version: self.2, name: "m", sqlite: "", postgres: "" }]
        }
    }

    fn registry(rooms: Vec<Room>, disabled: &[&str]) -> Result<Registry, RegistryError> {
        let rooms = rooms.into_iter().map(|r| Box::new(r) as Box<dyn Extension>).collect();
        Registry::new(rooms, &disabled.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn conflicts_name_both_sides() {
        use RegistryError as E;
        for (rooms, disabled, error) in [
            (vec![Room("Bad", &[], 1)], &[][..], E::BadId("Bad")),
            (vec![Room("aa", &[], 1), Room("aa", &[], 2)], &[], E::Duplicate("aa")),
            (vec![Room("aa", &["bb"], 1)], &[], E::Unknown { from: "aa", to: "bb" }),
            (vec![Room("aa", &["bb"], 1), Room("bb", &["aa"], 2)], &[], E::Circular("aa")),
            (vec![Room("aa", &[], 1), Room("bb", &[], 1)], &[], E::DuplicateMigration(1)),
            (vec![Room("aa", &[], 1)], &["xx"], E::UnknownDisabled("xx".into())),
            (
                vec![Room("aa", &["bb"], 1), Room("bb", &[], 2)],
                &["bb"],
                E::DisabledDependency { from: "aa", to: "bb" },
            ),
        ] {
            assert_eq!(registry(rooms, disabled).unwrap_err(), error);
        }
    }

    #[test]
    fn a_disabled_extension_keeps_its_tables() {
        let registry = registry(vec![Room("aa", &["bb"], 1), Room("bb", &[], 2)], &["aa"]).unwrap();
        assert!(!registry.is_enabled("aa") && registry.is_enabled("bb"));
        assert_eq!(registry.migrations().len(), 2);
    }
}
