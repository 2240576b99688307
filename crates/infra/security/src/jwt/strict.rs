//! JSON without duplicate members (RFC 8725 section 3.10 warns of readers that disagree on which one counts).

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::fmt;

/// Whether a text is one JSON object in which no object names a member twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Unique,
    Duplicate,
    NoObject,
}

/// Deepest nesting that is looked into.
const MAX_DEPTH: usize = 32;

pub(super) fn shape(json: &[u8]) -> Shape {
    let mut found_duplicate = false;
    let walk = Walk { depth: 0, found_duplicate: &mut found_duplicate };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let is_object = json.trim_ascii_start().first() == Some(&b'{');
    let read = walk.deserialize(&mut reader).and_then(|()| reader.end());
    match (is_object, read, found_duplicate) {
        (true, _, true) => Shape::Duplicate,
        (true, Ok(()), false) => Shape::Unique,
        _ => Shape::NoObject,
    }
}

struct Walk<'f> {
    depth: usize,
    found_duplicate: &'f mut bool,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.depth == MAX_DEPTH {
            return Err(A::Error::custom("nested too deeply"));
        }
        let mut names: Vec<Name<'de>> = Vec::with_capacity(24);
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if names.contains(&name) {
                *self.found_duplicate = true;
                return Err(A::Error::custom("duplicate member"));
            }
            names.push(name);
            map.next_value_seed(Walk { depth: self.depth + 1, found_duplicate: self.found_duplicate })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if self.depth == MAX_DEPTH {
            return Err(A::Error::custom("nested too deeply"));
        }
        loop {
            let walk = Walk { depth: self.depth + 1, found_duplicate: self.found_duplicate };
            if list.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
        }
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
}

/// A member's name after its escapes were resolved; borrowed when it has none.
#[derive(PartialEq, Eq)]
struct Name<'de>(std::borrow::Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// Whether a member is there, whatever its value; for fields with `default`.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_at_any_depth_and_behind_escapes() {
        for (json, want) in [
            (r#"{"a":1,"b":{"a":2},"c":[{"a":1},{"a":2}]}"#, Shape::Unique),
            (r#"{"a":1,"a":1}"#, Shape::Duplicate),
            (r#"{"a":1,"\u0061":1}"#, Shape::Duplicate),
            (r#"{"x":[{"y":{"a":1,"b":null,"a":true}}]}"#, Shape::Duplicate),
            ("[]", Shape::NoObject),
            ("\"text\"", Shape::NoObject),
            (r#"{"a":1} {}"#, Shape::NoObject),
            (r#"{"a":1"#, Shape::NoObject),
            ("", Shape::NoObject),
        ] {
            assert_eq!(shape(json.as_bytes()), want, "{json}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
        assert_eq!(shape(deep.as_bytes()), Shape::NoObject);
    }
}
