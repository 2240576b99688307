//! One pass over a document that refuses what two parsers could read differently.

use super::{MAX_DEPTH, WireError};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// Checks that `body` is one JSON object without duplicate members and not deeper than [`MAX_DEPTH`].
pub(super) fn check(body: &[u8]) -> Result<(), WireError> {
    let found = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let outcome = Node { depth: 0, found: &found }.deserialize(&mut reader).and_then(|()| reader.end());
    match (outcome, found.into_inner()) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(WireError::Syntax { line: error.line(), column: error.column() }),
        (Ok(()), None) if body.trim_ascii_start().first() != Some(&b'{') => Err(WireError::NotAnObject),
        (Ok(()), None) => Ok(()),
    }
}

#[derive(Clone, Copy)]
struct Node<'e> {
    depth: usize,
    found: &'e RefCell<Option<WireError>>,
}

impl Node<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            self.found.replace(Some(WireError::TooDeep));
            return Err(E::custom("too deep"));
        }
        Ok(Self { depth: self.depth + 1, found: self.found })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(inner)?;
            if let Some(name) = names.replace(name) {
                let shown = name.chars().take(64).collect();
                self.found.replace(Some(WireError::Duplicate(shown)));
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(())
    }
}
