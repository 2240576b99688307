//! Where the internal listener is: a Unix socket, or a port on loopback. Nothing else can be written down.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest path of a Unix socket, in bytes (`sun_path`, with the zero at its end).
pub const MAX_SOCKET_PATH: usize = 107;

/// `unix:run/internal.sock` (a relative path counts from the data folder), `127.0.0.1:8081` or `[::1]:8081`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum InternalAddress {
    Unix(PathBuf),
    Loopback(SocketAddr),
}

/// The text is neither of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected unix:<path> or an address and port on loopback")]
pub struct InternalAddressError;

impl InternalAddress {
    /// The path of the socket, if it is one.
    pub fn socket(&self, data_dir: &Path) -> Option<PathBuf> {
        match self {
            Self::Unix(path) => Some(data_dir.join(path)),
            Self::Loopback(_) => None,
        }
    }
}

impl FromStr for InternalAddress {
    type Err = InternalAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits =
                (1..=MAX_SOCKET_PATH).contains(&path.len()) && !path.contains('\0') && !path.ends_with('/');
            return if fits { Ok(Self::Unix(path.into())) } else { Err(InternalAddressError) };
        }
        let address: SocketAddr = text.parse().map_err(|_| InternalAddressError)?;
        if address.ip().is_loopback() { Ok(Self::Loopback(address)) } else { Err(InternalAddressError) }
    }
}

impl fmt::Display for InternalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

impl Serialize for InternalAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InternalAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            let expected = &"unix:<path>, or an address and port on loopback like 127.0.0.1:8081";
            D::Error::invalid_value(Unexpected::Str(&text), expected)
        })
    }
}

impl JsonSchema for InternalAddress {
    fn schema_name() -> Cow<'static, str> {
        "InternalAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "unix:<path>, a relative one from the data folder, or an address and port on loopback: 127.0.0.1:8081",
            "type": "string",
            "pattern": r"^(unix:.{1,107}|127\.[0-9.]{1,11}:[0-9]{1,5}|\[::1\]:[0-9]{1,5})$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_or_loopback_can_be_named() {
        for (text, ok) in [
            ("unix:run/internal.sock", true),
            ("unix:/run/sp/internal.sock", true),
            ("127.0.0.1:8081", true),
            ("127.8.9.1:8081", true),
            ("[::1]:0", true),
            ("unix:", false),
            ("unix:run/", false),
            ("0.0.0.0:8081", false),
            ("[::]:8081", false),
            ("10.0.0.1:8081", false),
            ("localhost:8081", false),
            ("127.0.0.1", false),
            ("", false),
        ] {
            let read = text.parse::<InternalAddress>();
            assert_eq!(read.is_ok(), ok, "{text}");
            if let Ok(address) = read {
                assert_eq!(address.to_string(), text);
            }
        }
        assert!(format!("unix:{}", "x".repeat(108)).parse::<InternalAddress>().is_err());
        let address: InternalAddress = "unix:run/a.sock".parse().unwrap();
        assert_eq!(address.socket(Path::new("/data")), Some("/data/run/a.sock".into()));
    }
}
