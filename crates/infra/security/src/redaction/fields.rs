//! Fields of text output: names are known here, so a value is replaced as a whole however it looks.

use super::{REDACTED, Redactor, is_secret_name};
use std::fmt::{self, Debug};
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// Formats fields as the default formatter does, secrets redacted.
#[derive(Clone)]
pub struct RedactingFields {
    redactor: Redactor,
}

impl RedactingFields {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self { redactor }
    }
}

impl<'w> FormatFields<'w> for RedactingFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Redacting { redactor: &self.redactor, inner: DefaultVisitor::new(writer, true) };
        fields.record(&mut visitor);
        visitor.inner.finish()
    }
}

struct Redacting<'r, 'w> {
    redactor: &'r Redactor,
    inner: DefaultVisitor<'w>,
}

/// Text that is its own debug form.
struct Plain<'t>(&'t str);

impl Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Redacting<'_, '_> {
    fn text(&mut self, field: &Field, text: &str) {
        self.inner.record_debug(field, &Plain(&self.redactor.text(text)));
    }
}

impl Visit for Redacting<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.text(field, value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.record_debug(field, &Plain(&text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if is_secret_name(field.name()) {
            self.inner.record_debug(field, &Plain(REDACTED));
        } else {
            self.text(field, &format!("{value:?}"));
        }
    }
}
