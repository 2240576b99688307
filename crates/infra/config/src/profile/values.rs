//! Value types of the profile that YAML has no word for: sizes in bytes and address ranges.

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A number of bytes, written as an integer or as text with a power-of-two unit: `2MiB`, `512 KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Largest integer that JSON carries exactly.
const MAX_BYTES: u64 = (1 << 53) - 1;

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// For limits of in-memory buffers.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(InvalidByteSize)?;
        let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(InvalidByteSize),
        };
        let number: u64 = number.parse().map_err(|_| InvalidByteSize)?;
        number.checked_mul(1 << shift).filter(|bytes| *bytes <= MAX_BYTES).map(Self).ok_or(InvalidByteSize)
    }
}

/// Text that is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a size is a number of bytes or a number with a unit: 2097152, 2MiB, 512 KiB")]
pub struct InvalidByteSize;

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(bytes) if bytes <= MAX_BYTES => Ok(Self(bytes)),
            Form::Number(bytes) => {
                Err(D::Error::invalid_value(Unexpected::Unsigned(bytes), &"at most 2^53-1 bytes"))
            }
            Form::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Bytes, as a number or with a unit: 2097152, 2MiB, 512 KiB",
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": MAX_BYTES },
                { "type": "string", "pattern": "^[0-9]{1,15} ?(B|KiB|MiB|GiB)?$" }
            ]
        })
    }
}

/// A range of addresses, `10.0.0.0/8`; a single address counts as a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(pub IpNet);

impl Cidr {
    /// IPv4-mapped IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self(IpNet::from(address.to_canonical()))),
            Err(_) => text.parse::<IpNet>().map(|net| Self(net.trunc())),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"an address range like 10.0.0.0/8"))
    }
}

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An address or an address range: 10.0.0.0/8, fd00::/8, 192.0.2.7",
            "type": "string",
            "format": "cidr"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_or_powers_of_two() {
        for (text, want) in [
            ("0", Some(0)),
            ("2097152", Some(2 << 20)),
            ("2MiB", Some(2 << 20)),
            ("512 KiB", Some(512 << 10)),
            ("1GiB", Some(1 << 30)),
            ("7B", Some(7)),
            ("2MB", None),
            ("MiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1  MiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(text.parse().ok(), want.map(ByteSize), "{text}");
        }
        assert_eq!(ByteSize::mib(2).to_string(), "2 MiB");
        assert_eq!(ByteSize(1025).to_string(), "1025 B");
    }
}
