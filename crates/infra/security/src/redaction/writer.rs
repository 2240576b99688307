//! The writer under a log layer. A layer hands over each event as one buffer, with the fields of its spans in it.

use super::Redactor;
use std::io::{self, Write};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Makes writers that redact what they are given.
#[derive(Clone)]
pub struct RedactingWriter<M> {
    redactor: Redactor,
    inner: M,
}

impl<M> RedactingWriter<M> {
    pub(super) fn new(redactor: Redactor, inner: M) -> Self {
        Self { redactor, inner }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for RedactingWriter<M> {
    type Writer = RedactingLine<'a, M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingLine { redactor: &self.redactor, inner: self.inner.make_writer() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        RedactingLine { redactor: &self.redactor, inner: self.inner.make_writer_for(meta) }
    }
}

/// Writes one event.
pub struct RedactingLine<'a, W> {
    redactor: &'a Redactor,
    inner: W,
}

impl<W: Write> Write for RedactingLine<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(buffer);
        self.inner.write_all(self.redactor.line(&text).as_bytes())?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
