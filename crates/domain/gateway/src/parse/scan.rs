//! The scanner below the index: RFC 8259 grammar over bytes that are known to be UTF-8, without recursion for values that
//! are only skipped.

use super::{Fault, MAX_DEPTH, ParseError, Span};

pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    within: &'static str,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, within: "body" }
    }

    /// Names the member in which a fault from here on stands.
    pub(super) fn within(&mut self, member: &'static str) {
        self.within = member;
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn fault(&self, fault: Fault) -> ParseError {
        ParseError { member: self.within, offset: self.at, fault }
    }

    pub(super) fn span_from(&self, start: usize) -> Span {
        Span { start: start as u32, end: self.at as u32 }
    }

    pub(super) fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), ParseError> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.fault(Fault::Json)) }
    }

    /// Walks an object; `member` gets the raw name and must consume the value. `around` containers are open already.
    pub(super) fn object(
        &mut self,
        around: u32,
        mut member: impl FnMut(&mut Self, Span) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        self.enter(b'{', around)?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.name()?;
            member(self, name)?;
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
            self.space();
        }
    }

    /// Walks an array; `item` must consume one value.
    pub(super) fn array(
        &mut self,
        around: u32,
        mut item: impl FnMut(&mut Self) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        self.enter(b'[', around)?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
            self.space();
        }
    }

    /// Validates and skips one value of any kind.
    pub(super) fn skip(&mut self, around: u32) -> Result<Span, ParseError> {
        let start = self.at;
        // The open containers, innermost in the lowest bit: 1 is an object, 0 an array. MAX_DEPTH is their number of bits.
        let mut kinds = 0_u128;
        let mut open = 0_u32;
        loop {
            match self.peek() {
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                Some(b'{') => {
                    self.enter(b'{', around + open)?;
                    if !self.take(b'}') {
                        kinds = kinds << 1 | 1;
                        open += 1;
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(b'[', around + open)?;
                    if !self.take(b']') {
                        kinds <<= 1;
                        open += 1;
                        continue;
                    }
                }
                _ => return Err(self.fault(Fault::Json)),
            }
            loop {
                if open == 0 {
                    return Ok(self.span_from(start));
                }
                self.space();
                let in_object = kinds & 1 == 1;
                if self.take(b',') {
                    self.space();
                    if in_object {
                        self.name()?;
                    }
                    break;
                }
                self.expect(if in_object { b'}' } else { b']' })?;
                kinds >>= 1;
                open -= 1;
            }
        }
    }

    fn enter(&mut self, bracket: u8, around: u32) -> Result<(), ParseError> {
        if around >= MAX_DEPTH {
            return Err(self.fault(Fault::TooDeep));
        }
        self.expect(bracket)?;
        self.space();
        Ok(())
    }

    fn take(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.at += usize::from(hit);
        hit
    }

    fn expect(&mut self, byte: u8) -> Result<(), ParseError> {
        if self.take(byte) { Ok(()) } else { Err(self.fault(Fault::Json)) }
    }

    /// A member's name and the colon after it.
    fn name(&mut self) -> Result<Span, ParseError> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.fault(Fault::Json));
        }
        self.string()?;
        let name = self.span_from(start);
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(name)
    }

    fn string(&mut self) -> Result<(), ParseError> {
        self.at += 1;
        loop {
            self.at += plain(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(self.fault(Fault::Json)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ParseError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u')
                if self
                    .bytes
                    .get(self.at + 2..self.at + 6)
                    .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                self.at += 6;
                Ok(())
            }
            _ => Err(self.fault(Fault::Json)),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), ParseError> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.fault(Fault::Json))
        }
    }

    fn number(&mut self) -> Result<(), ParseError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.fault(Fault::Json)) } else { Ok(()) }
    }
}

/// How many bytes at the front of `bytes` stand for themselves inside a string. The first loop is written so that the
/// compiler makes vector instructions of it.
fn plain(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((block, tail)) = rest.split_first_chunk::<32>() {
        if block.iter().fold(false, |hit, b| hit | special(*b)) {
            break;
        }
        rest = tail;
    }
    let done = bytes.len() - rest.len();
    done + rest.iter().position(|b| special(*b)).unwrap_or(rest.len())
}

#[expect(
    clippy::needless_bitwise_bool,
    reason = "without branches the loop above becomes vector instructions"
)]
fn special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}
