//! Watches how the requests of an HTTP/1 connection are framed (RFC 9112, section 6). hyper drops a `Content-Length` that stands
//! beside a `Transfer-Encoding` before anybody sees it; a proxy in front that goes by the other of the two would then see other
//! requests than we do. This notices such a head while its bytes are read; the request is refused and the connection ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much of a line is kept. What matters of a head is shorter.
const MAX_LINE: usize = 256;
/// First line of an HTTP/2 connection, whose frames have one length.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// Whether a connection's requests can be read in one way only. Clones speak of the same connection.
#[derive(Clone, Debug, Default)]
pub struct Framing(Arc<AtomicBool>);

impl Framing {
    /// Whether some request of the connection could be read in two ways.
    pub fn is_ambiguous(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A stream whose reader is watched.
#[derive(Debug)]
pub struct Framed<S> {
    stream: S,
    watch: Watch,
    framing: Framing,
}

impl<S> Framed<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, watch: Watch::default(), framing: Framing::default() }
    }

    pub fn framing(&self) -> Framing {
        self.framing.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if self.watch.read(fresh).is_err() {
            self.framing.0.store(true, Ordering::Release);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A request that could be read in two ways.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

/// Where in a request the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before or in a request line.
    #[default]
    Start,
    /// In a field of a head.
    Field,
    /// So many bytes of a body are left.
    Body(u64),
    /// In the line that gives a chunk's size.
    ChunkSize,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// In the line end behind a chunk.
    ChunkEnd,
    /// In a field behind the last chunk.
    Trailer,
    /// Nothing more is looked at.
    Off,
}

#[derive(Debug, Default)]
struct Watch {
    place: Place,
    /// The line so far, cut at [`MAX_LINE`].
    line: Vec<u8>,
    length: Option<u64>,
    is_chunked: bool,
}

impl Watch {
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Ambiguous> {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Off => return Ok(()),
                Place::Body(left) => self.skip(bytes, left, Place::Body, Place::Start),
                Place::Chunk(left) => self.skip(bytes, left, Place::Chunk, Place::ChunkEnd),
                _ => self.take_line(bytes)?,
            };
        }
        Ok(())
    }

    fn skip<'b>(&mut self, bytes: &'b [u8], left: u64, here: fn(u64) -> Place, then: Place) -> &'b [u8] {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - taken as u64;
        self.place = if left == 0 { then } else { here(left) };
        bytes.get(taken..).unwrap_or_default()
    }

    /// Takes bytes up to the next line end, and acts on the line when it is whole.
    fn take_line<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Ambiguous> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        let room = MAX_LINE.saturating_sub(self.line.len()).min(part.len());
        self.line.extend_from_slice(part.get(..room).unwrap_or_default());
        let Some(end) = end else { return Ok(&[]) };
        let line = std::mem::take(&mut self.line);
        let whole = line.strip_suffix(b"\r").unwrap_or(&line);
        let acted = self.act(whole);
        if acted.is_err() {
            self.place = Place::Off;
        }
        self.line = line;
        self.line.clear();
        acted?;
        Ok(bytes.get(end + 1..).unwrap_or_default())
    }

    fn act(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        self.place = match self.place {
            // Empty lines before a request are passed over; one behind a trailer ends its request.
            Place::Start | Place::Trailer if line.is_empty() => Place::Start,
            Place::Start if line.starts_with(HTTP2) => Place::Off,
            Place::Start => {
                (self.length, self.is_chunked) = (None, false);
                Place::Field
            }
            Place::Field if line.is_empty() => match (self.is_chunked, self.length) {
                (true, _) => Place::ChunkSize,
                (false, None | Some(0)) => Place::Start,
                (false, Some(length)) => Place::Body(length),
            },
            Place::Field => {
                self.field(line)?;
                Place::Field
            }
            Place::ChunkSize => match chunk_size(line)? {
                0 => Place::Trailer,
                size => Place::Chunk(size),
            },
            Place::ChunkEnd if line.is_empty() => Place::ChunkSize,
            Place::ChunkEnd => return Err(Ambiguous),
            place => place,
        };
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // A second one, or one that is no number or too long to be seen whole, leaves a choice as well.
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let value = std::str::from_utf8(value).ok().filter(|_| line.len() < MAX_LINE);
            let length = value.and_then(|value| value.parse().ok()).ok_or(Ambiguous)?;
            if self.length.replace(length).is_some() {
                return Err(Ambiguous);
            }
        }
        if self.is_chunked && self.length.is_some() { Err(Ambiguous) } else { Ok(()) }
    }
}

/// The size in front of a chunk; an extension may follow behind a `;`.
fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(Ambiguous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two requests with a length, one in chunks, one without a body.
    const PLAIN: &str = "\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 29\r\n\r\ncontent-length: 1\r\nwith: body\
        GET / HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1A\r\ncontent-length: 7\r\nabcdefg\r\n0\r\nx: y\r\n\r\n\
        POST /c HTTP/1.1\nhost: x\ncontent-length: 3\n\nend";

    fn read(texts: &[&str]) -> (Result<(), Ambiguous>, Place) {
        let mut watch = Watch::default();
        let read = texts.iter().try_for_each(|text| watch.read(text.as_bytes()));
        (read, watch.place)
    }

    #[test]
    fn bodies_are_passed_over_and_heads_are_read() {
        assert_eq!(read(&[PLAIN]), (Ok(()), Place::Start));
        assert_eq!(read(&[PLAIN, PLAIN]), (Ok(()), Place::Start));
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_noticed_wherever_it_stands() {
        let te = "Transfer-Encoding: chunked\r\n";
        for fields in [
            &format!("Content-Length: 5\r\n{te}"),
            &format!("{te}Content-Length: 5\r\n"),
            &format!("{te}Host: x\r\ncontent-LENGTH:5\r\n"),
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: -5\r\n",
            &format!("Content-Length: {}5\r\n", " ".repeat(300)),
            &format!("{te}\r\nzz\r\n"),
            &format!("{te}\r\n3\r\nabcdef\r\n"),
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\nhello");
            assert_eq!(read(&[&request]).0, Err(Ambiguous), "{request}");
            assert_eq!(read(&[PLAIN, &request]).0, Err(Ambiguous), "{request}");
        }
    }

    #[test]
    fn http2_is_left_alone() {
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nContent-Length: 1\r\nContent-Length: 2\r\n";
        assert_eq!(read(&[preface]), (Ok(()), Place::Off));
    }

    proptest! {
        #[test]
        fn it_is_no_matter_how_the_bytes_arrive(cuts in proptest::collection::vec(0..400_usize, 0..12), fails: bool) {
            let ambiguous = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n";
            let text = if fails { format!("{PLAIN}{ambiguous}") } else { PLAIN.to_owned() };
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut watch, mut from, mut found) = (Watch::default(), 0, Ok(()));
            for cut in cuts {
                found = found.and(watch.read(&text.as_bytes()[from..cut]));
                from = cut;
            }
            prop_assert_eq!(found.is_err(), fails);
        }
    }
}
