//! Parameters of a request, as forms and queries carry them (ID-1).

use crate::error::{OauthError, OauthResult};
use percent_encoding::percent_decode;
use url::form_urlencoded::Serializer;

/// The parameters that may stand several times.
const REPEATABLE: [&str; 2] = ["resource", "audience"];
/// What comes back to the client as it sent it, whatever it is (ID-36); nothing here reads it.
const ECHOED: [&str; 2] = ["state", "nonce"];
/// Most parameters that are looked at.
const MAX_PARAMETERS: usize = 128;

/// Decoded parameters. An empty value counts as absent; unknown ones are there and mean nothing.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads `application/x-www-form-urlencoded` bytes.
    ///
    /// # Errors
    /// What is no UTF-8, has too many parameters, repeats one, or holds a NUL where it is not for the client alone.
    pub fn parse(text: &[u8]) -> OauthResult<Self> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default());
            let (name, value) = (decode(name)?, decode(value)?);
            // PostgreSQL stores none.
            if name.contains('\0') || (value.contains('\0') && !ECHOED.contains(&name.as_str())) {
                return Err(OauthError::invalid_request("a parameter holds a NUL character"));
            }
            if value.is_empty() {
                continue;
            }
            if pairs.len() >= MAX_PARAMETERS {
                return Err(OauthError::invalid_request("too many parameters"));
            }
            if !REPEATABLE.contains(&name.as_str()) && pairs.iter().any(|(known, _)| *known == name) {
                return Err(OauthError::invalid_request("a parameter is repeated"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that must be there.
    ///
    /// # Errors
    /// `invalid_request` that names it.
    pub fn need(&self, name: &'static str) -> OauthResult<&str> {
        self.get(name).ok_or_else(|| OauthError::invalid_request(format!("{name} is missing")))
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The name of every parameter.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// Every parameter, as (name, value).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The parameters as a query or a form has them.
    pub fn encoded(&self) -> String {
        Serializer::new(String::new()).extend_pairs(self.iter()).finish()
    }

    /// With those of the address of the same request.
    ///
    /// # Errors
    /// One that stands in both with different values.
    pub fn with(mut self, others: Self) -> OauthResult<Self> {
        for (name, value) in others.0 {
            match self.get(&name) {
                None => self.0.push((name, value)),
                Some(known) if *known == value => {}
                Some(_) => return Err(OauthError::invalid_request("a parameter is repeated")),
            }
        }
        Ok(self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn decode(text: &[u8]) -> OauthResult<String> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let decoded = percent_decode(&spaced)
        .decode_utf8()
        .map_err(|_| OauthError::invalid_request("a parameter is no UTF-8"))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_may_not_be_repeated() {
        let read = Parameters::parse(b"a=1%2B2&b=x+y&c=&resource=p&resource=q&%C3%A4=1").unwrap();
        assert_eq!(
            (read.get("a"), read.get("b"), read.get("c"), read.get("ä")),
            (Some("1+2"), Some("x y"), None, Some("1"))
        );
        assert_eq!(read.all("resource").collect::<Vec<_>>(), ["p", "q"]);
        assert_eq!(Parameters::parse(b"state=%00x&nonce=%00").unwrap().get("state"), Some("\0x"));
        for wrong in [&b"a=1&a=2"[..], b"a=%ff", b"a=%00", b"%00=a", b"state%00=a"] {
            assert!(Parameters::parse(wrong).is_err());
        }
    }
}
