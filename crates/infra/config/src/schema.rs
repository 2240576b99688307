//! The JSON Schema (2020-12) of the profile and of the services files: what `config schema` prints, what the first line of a
//! generated profile names, and what every file is checked against before its types are built.

pub(crate) mod check;

use crate::profile::Profile;
use crate::profile::values::Cidr;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::Value;
use std::net::IpAddr;

/// The schema of `profile.yaml`.
pub fn profile_schema() -> Value {
    schema_of::<Profile>("systemprompt profile")
}

pub(crate) fn schema_of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .with_transform(IntegerBounds)
        .into_generator()
        .into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

/// Gives integers the bounds of their Rust type, so that the schema refuses what the type would.
#[derive(Clone)]
struct IntegerBounds;

impl Transform for IntegerBounds {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let bound = match schema.get("format").and_then(Value::as_str) {
            Some("uint8") => u64::from(u8::MAX),
            Some("uint16") => u64::from(u16::MAX),
            Some("uint32") => u64::from(u32::MAX),
            Some("uint64") => (1 << 53) - 1,
            _ => return,
        };
        schema.remove("format");
        if schema.get("maximum").is_none() {
            schema.insert("maximum".to_owned(), bound.into());
        }
    }
}

/// A schema format beyond the standard ones.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) test: fn(&str) -> bool,
    /// What a value of the format is, in words.
    pub(crate) wanted: &'static str,
}

pub(crate) const FORMATS: [Format; 3] = [
    Format { name: "cidr", test: is_cidr, wanted: "an address or a range like 10.0.0.0/8" },
    Format { name: "ip", test: is_ip, wanted: "an IP address like 127.0.0.1 or ::" },
    Format {
        name: "http-url",
        test: is_http_url,
        wanted: "an absolute http or https URL without user info, query and fragment",
    },
];

fn is_cidr(text: &str) -> bool {
    text.parse::<Cidr>().is_ok()
}

fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_http_url(text: &str) -> bool {
    HttpUrl::parse(text).is_some()
}

/// The parts of an http address that settings are judged by.
pub(crate) struct HttpUrl {
    pub(crate) secure: bool,
    pub(crate) host: String,
    pub(crate) path: String,
}

impl HttpUrl {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.contains('#') || text.len() > 2048 {
            return None;
        }
        let uri: http::Uri = text.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host();
        if host.is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return None;
        }
        Some(Self { secure, host: host.to_ascii_lowercase(), path: uri.path().to_owned() })
    }

    pub(crate) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost"
            || bare.ends_with(".localhost")
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

/// The part of `schema` that describes the value at a path of keys, references followed; `None` if no such key is known.
pub(crate) fn at<'s>(root: &'s Value, keys: &[&str]) -> Option<&'s Value> {
    keys.iter().try_fold(root, |schema, key| {
        let object = object_form(root, schema)?;
        object
            .get("properties")
            .and_then(|p| p.get(*key))
            .or_else(|| object.get("additionalProperties").filter(|a| a.is_object()))
    })
}

/// Keys that an object described by `schema` may have.
pub(crate) fn keys<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s str> {
    object_form(root, schema)
        .and_then(|s| s.get("properties"))
        .and_then(Value::as_object)
        .map_or_else(Vec::new, |p| p.keys().map(String::as_str).collect())
}

fn object_form<'s>(root: &'s Value, schema: &'s Value) -> Option<&'s Value> {
    forms(root, schema)
        .into_iter()
        .find(|form| form.get("properties").is_some() || form.get("additionalProperties").is_some())
}

/// JSON types that a value described by `schema` may have.
pub(crate) fn types<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s str> {
    let mut types = Vec::new();
    for form in forms(root, schema) {
        match form.get("type") {
            Some(Value::String(one)) => types.push(one.as_str()),
            Some(Value::Array(several)) => types.extend(several.iter().filter_map(Value::as_str)),
            _ if form.get("const").is_some() || form.get("enum").is_some() => types.push("string"),
            _ => {}
        }
    }
    types
}

/// A schema, or the alternatives that it is made of, references followed.
fn forms<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = target.strip_prefix('#').unwrap_or(target);
        return root.pointer(pointer).map_or_else(Vec::new, |s| forms(root, s));
    }
    let alternatives = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
    match alternatives {
        Some(several) => several.iter().flat_map(|s| forms(root, s)).collect(),
        None => vec![schema],
    }
}

/// Where in the schema a key of this name exists, as dotted paths. Helps one who put a key in the wrong place.
pub(crate) fn places_of_key(root: &Value, wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), root, 0_u8)];
    while let Some((prefix, schema, depth)) = open.pop() {
        let properties =
            object_form(root, schema).and_then(|s| s.get("properties")).and_then(Value::as_object);
        for (key, child) in properties.into_iter().flatten() {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            if key == wanted {
                found.push(path.clone());
            }
            if depth < 4 {
                open.push((path, child, depth + 1));
            }
        }
    }
    found.sort();
    found
}
