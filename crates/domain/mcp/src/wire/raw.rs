//! JSON objects whose members keep their bytes and their order.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// An object whose members were not read further.
#[derive(Clone, Debug, Default)]
pub struct RawObject<'a>(Vec<(String, &'a RawValue)>);

impl<'a> RawObject<'a> {
    /// Reads `text` if it is an object.
    pub fn read(text: &'a RawValue) -> Option<Self> {
        serde_json::from_str(text.get()).ok()
    }

    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// The member as a string, if it is one.
    pub fn string(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|value| serde_json::from_str(value.get()).ok())
    }

    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(n, _)| n != name);
        self
    }

    /// Sets a member in its place, or at the end.
    pub fn with(mut self, name: &str, value: &'a RawValue) -> Self {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(member) => member.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
        self
    }

    /// The object as text: order and bytes of the members as they were.
    pub fn to_raw(&self) -> Box<RawValue> {
        let mut out = String::from("{");
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&quoted(name));
            out.push(':');
            out.push_str(value.get());
        }
        out.push('}');
        raw(out)
    }
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// Text that was put together from JSON.
pub fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The raw form of a value.
pub fn to_raw(value: &impl serde::Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::with_capacity(members.size_hint().unwrap_or(8).min(64));
                while let Some(member) = members.next_entry::<String, &'de RawValue>()? {
                    list.push(member);
                }
                Ok(RawObject(list))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_bytes_and_their_order() {
        let text = raw(r#"{"z": 1.50,"a":{"b" : [ 1 ]},"\u006b":"\u00e9"}"#.to_owned());
        let object = RawObject::read(&text).unwrap();
        let two = raw("2".to_owned());
        let changed = object.clone().with("a", &two).without("z").with("new", &two);
        assert_eq!(object.to_raw().get(), r#"{"z":1.50,"a":{"b" : [ 1 ]},"k":"\u00e9"}"#);
        assert_eq!(changed.to_raw().get(), r#"{"a":2,"k":"\u00e9","new":2}"#);
        assert_eq!(object.string("k").as_deref(), Some("é"));
    }
}
