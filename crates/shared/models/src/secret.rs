//! A value that must not be printed, logged, serialised or compared in the clear.

use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroize;

/// A secret. It has no `Debug`, `Display`, `Serialize` or `PartialEq`, and its memory is wiped when it is dropped.
///
/// ```compile_fail
/// let s = systemprompt_models::Secret::new(String::from("x"));
/// println!("{s:?}");
/// ```
///
/// ```compile_fail
/// let s = systemprompt_models::Secret::new(String::from("x"));
/// let _ = serde_json::to_string(&s);
/// ```
pub struct Secret<T: Zeroize>(SecretBox<T>);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(SecretBox::new(Box::new(value)))
    }

    /// The value itself. Called only where it is used; invariant 5 of the architecture page lists the places.
    pub fn expose(&self) -> &T {
        self.0.expose_secret()
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self::new(self.expose().clone())
    }
}

impl From<String> for Secret<String> {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}

impl<'de> serde::Deserialize<'de> for Secret<String> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
