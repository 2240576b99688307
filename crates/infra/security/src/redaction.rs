//! Log redaction (SEC-104), the last line of defence: fields whose name says that they hold a credential, and values
//! that a specific secret rule knows, are replaced by `[REDACTED]` before a line is written.
//!
//! [`Redactor::writer`] sits between a `tracing-subscriber` layer and its output and sees whole lines, events and
//! spans alike, as JSON or as text. [`Redactor::fields`] replaces the values of text output while their names are
//! still known exactly. What leaves otherwise (span export, `bugreport`) goes through [`Redactor::line`] and
//! [`Redactor::field`].
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use systemprompt_security::governance::SecretScanner;
//! use systemprompt_security::redaction::Redactor;
//!
//! let redactor = Redactor::new(Arc::new(SecretScanner::builtin()?));
//! let line = redactor.line("signed in with token=abc, user=ada");
//! assert_eq!(line, "signed in with token=[REDACTED], user=ada");
//! # Ok(()) }
//! ```

mod fields;
mod names;
mod writer;

#[cfg(test)]
mod tests;

pub use fields::RedactingFields;
pub use names::is_secret_name;
pub use writer::{RedactingLine, RedactingWriter};

use crate::governance::SecretScanner;
use std::borrow::Cow;
use std::sync::Arc;

/// What stands in place of a secret.
pub const REDACTED: &str = "[REDACTED]";

/// Takes secrets out of what is about to be written.
#[derive(Clone)]
pub struct Redactor {
    scanner: Arc<SecretScanner>,
}

impl Redactor {
    pub fn new(scanner: Arc<SecretScanner>) -> Self {
        Self { scanner }
    }

    /// For `fmt::Layer::fmt_fields` of a text layer.
    pub fn fields(&self) -> RedactingFields {
        RedactingFields::new(self.clone())
    }

    /// For `fmt::Layer::with_writer` of any layer.
    pub fn writer<M>(&self, inner: M) -> RedactingWriter<M> {
        RedactingWriter::new(self.clone(), inner)
    }

    /// A whole line, JSON or text.
    pub fn line<'t>(&self, line: &'t str) -> Cow<'t, str> {
        if !line.trim_start().starts_with('{') {
            return self.text(line);
        }
        let edited = SecretScanner::edit_json(line.as_bytes(), &mut |text, keys| {
            if keys.any(is_secret_name) {
                return Some(REDACTED.to_owned());
            }
            match self.text(text) {
                Cow::Borrowed(_) => None,
                Cow::Owned(changed) => Some(changed),
            }
        });
        match edited {
            Ok(Cow::Owned(bytes)) => {
                names::mask_numbers(&String::from_utf8_lossy(&bytes)).into_owned().into()
            }
            Ok(Cow::Borrowed(_)) => names::mask_numbers(line),
            Err(_) => Cow::Borrowed(REDACTED),
        }
    }

    /// The value of a named field.
    pub fn field<'t>(&self, name: &str, value: &'t str) -> Cow<'t, str> {
        if is_secret_name(name) { Cow::Borrowed(REDACTED) } else { self.text(value) }
    }

    /// Free text: pairs of a secret name and its value, and values that are secrets wherever they stand.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let named = names::mask_pairs(text);
        let masked = match self.scanner.mask_text(&named, REDACTED) {
            Cow::Borrowed(_) => named,
            Cow::Owned(changed) => Cow::Owned(changed),
        };
        match names::mask_tokens(&masked) {
            Cow::Borrowed(_) => masked,
            Cow::Owned(changed) => Cow::Owned(changed),
        }
    }
}
