//! The strict reading of JSON text: one pass that refuses what two parsers could read differently. Of a name that stands twice in
//! an object one parser takes the first value and another the last (RFC 8259 section 4, RFC 8725 section 3.10), so one value
//! could be judged and the other carried out.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// Objects of more names are told apart by hash.
const FEW: usize = 24;
/// Longest name that an error repeats, in characters.
const MAX_SHOWN: usize = 64;

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    #[error("not JSON (line {line}, column {column})")]
    Syntax { line: usize, column: usize },
    #[error("not one JSON object")]
    NotAnObject,
    #[error("the member `{0}` occurs twice in one object")]
    Duplicate(String),
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
}

/// Checks that `text` is one JSON object, that no object in it names a member twice, and that it is nested `max_depth` levels
/// deep at most.
///
/// ```
/// use systemprompt_models::json::{JsonFault, check_object};
/// assert_eq!(check_object(br#"{"a": [{"b": 1}]}"#, 8), Ok(()));
/// assert_eq!(check_object(br#"{"a": 1, "\u0061": 2}"#, 8), Err(JsonFault::Duplicate("a".into())));
/// ```
///
/// # Errors
/// The first thing that is wrong.
pub fn check_object(text: &[u8], max_depth: usize) -> Result<(), JsonFault> {
    let mut fault = None;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let walk = Walk { depth: 0, max_depth, fault: &mut fault };
    let read = walk.deserialize(&mut reader).and_then(|()| reader.end());
    match (read, fault) {
        (_, Some(fault)) => Err(fault),
        (Err(error), None) => Err(JsonFault::Syntax { line: error.line(), column: error.column() }),
        (Ok(()), None) if text.trim_ascii_start().first() != Some(&b'{') => Err(JsonFault::NotAnObject),
        (Ok(()), None) => Ok(()),
    }
}

struct Walk<'f> {
    depth: usize,
    max_depth: usize,
    fault: &'f mut Option<JsonFault>,
}

impl Walk<'_> {
    fn fail<E: serde::de::Error>(&mut self, fault: JsonFault) -> E {
        let error = E::custom(&fault);
        *self.fault = Some(fault);
        error
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth == self.max_depth {
            return Err(self.fail(JsonFault::TooDeep(self.max_depth)));
        }
        Ok(())
    }

    fn inner(&mut self) -> Walk<'_> {
        Walk { depth: self.depth + 1, max_depth: self.max_depth, fault: &mut *self.fault }
    }
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

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.enter()?;
        let mut names = Names::default();
        while let Some(name) = members.next_key::<Name<'de>>()? {
            if let Some(name) = names.add(name.0) {
                let shown = name.chars().take(MAX_SHOWN).collect();
                return Err(self.fail(JsonFault::Duplicate(shown)));
            }
            members.next_value_seed(self.inner())?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.enter()?;
        while items.next_element_seed(self.inner())?.is_some() {}
        Ok(())
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

/// The names of one object.
#[derive(Default)]
struct Names<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Names<'de> {
    /// Gives the name back if it was there already.
    fn add(&mut self, name: Cow<'de, str>) -> Option<Cow<'de, str>> {
        if self.few.len() < FEW {
            if self.few.contains(&name) {
                return Some(name);
            }
            self.few.push(name);
            return None;
        }
        if self.few.contains(&name) { Some(name) } else { self.many.replace(name) }
    }
}

/// A member's name after its escapes were resolved; borrowed when it has none.
struct Name<'de>(Cow<'de, str>);

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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), JsonFault> {
        check_object(text.as_bytes(), 8)
    }

    #[test]
    fn names_that_stand_twice_are_found_at_any_depth_and_behind_escapes() {
        for (text, name) in [
            (r#"{"a":1,"b":{"a":2},"c":[{"a":1},{"a":2}]}"#, None),
            (r#"{"a":1,"a":1}"#, Some("a")),
            (r#"{"a":1,"\u0061":1}"#, Some("a")),
            (r#"{"x":[{"y":{"a":1,"b":null,"a":true}}]}"#, Some("a")),
            (r#"{"a":1,"a":1"#, Some("a")),
        ] {
            assert_eq!(check(text).err(), name.map(|name| JsonFault::Duplicate(name.into())), "{text}");
        }
        for count in [FEW - 1, FEW, 3 * FEW] {
            let members: Vec<String> = (0..count).map(|n| format!("\"n{n}\":{n}")).collect();
            let members = members.join(",");
            assert_eq!(check(&format!("{{{members}}}")), Ok(()), "{count}");
            for twice in [0, count - 1] {
                let text = format!("{{{members},\"n{twice}\":0}}");
                assert_eq!(check(&text), Err(JsonFault::Duplicate(format!("n{twice}"))), "{count} {twice}");
            }
        }
    }

    #[test]
    fn what_is_no_object_or_too_deep_is_told() {
        assert_eq!(check("[]"), Err(JsonFault::NotAnObject));
        assert_eq!(check(" \"text\""), Err(JsonFault::NotAnObject));
        for text in ["", "{\"a\":1", "{\"a\":1} {}", "{\"a\":\"\u{1}\"}", "{a:1}"] {
            assert!(matches!(check(text), Err(JsonFault::Syntax { .. })), "{text}");
        }
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert_eq!(check(&nested(8)), Ok(()));
        assert_eq!(check(&nested(9)), Err(JsonFault::TooDeep(8)));
    }
}
