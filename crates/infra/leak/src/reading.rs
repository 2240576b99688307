//! A text as it reads: its escapes resolved (percent, JSON and its kin, HTML entities), and everything taken out that is not
//! seen or only breaks it apart: white space, control characters, zero-width characters. A value that was written with some of
//! its characters escaped, or with line breaks inside, stands in such a reading as it is.

use memchr::memchr3;
use std::ops::Range;

/// How many times escapes are resolved: the JSON of a message, text inside it that is JSON again, and one encoding within that.
const MAX_LEVELS: usize = 3;
/// Longest entity that is read, in bytes.
const MAX_ENTITY: usize = 12;
/// Bytes that are looked at together.
const CHUNK: usize = 64;
/// Characters without a break behind which a line break asks for a reading.
const DENSE: usize = 16;

/// What a byte may be the beginning of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Blank,
    Escape,
    /// The first byte of an invisible character, or of another one.
    Wide,
}

const CLASSES: [Class; 256] = {
    let mut table = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::indexing_slicing, reason = "a byte is within the table; constants have no get_mut")]
        {
            table[byte] = match byte {
                0..=0x20 | 0x7F => Class::Blank,
                0x25 | 0x26 | 0x5C => Class::Escape,
                0xC2 | 0xCD | 0xD8 | 0xE1..=0xE3 | 0xEF | 0xF0 | 0xF3 => Class::Wide,
                _ => Class::Plain,
            };
        }
        byte += 1;
    }
    table
};

fn class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Plain)
}

/// A piece of a text and what it reads as.
enum Piece {
    /// Plain bytes and blanks, of which the plain ones stay.
    Run(Range<usize>),
    /// One character or escape, and the bytes that stand for it: none if it is not seen.
    Read(Range<usize>, Bytes),
}

/// Up to four bytes.
#[derive(Clone, Copy, Default)]
struct Bytes {
    bytes: [u8; 4],
    len: usize,
}

impl Bytes {
    fn one(byte: u8) -> Self {
        if class(byte) == Class::Blank { Self::default() } else { Self { bytes: [byte, 0, 0, 0], len: 1 } }
    }

    /// Whether this is a byte of a longer character, which only the next reading can tell.
    fn is_part(self) -> bool {
        matches!(self, Self { bytes: [0x80..=0xFF, ..], len: 1 })
    }

    fn of(point: u32) -> Self {
        match char::from_u32(point) {
            Some(c) if !is_unseen(point) => {
                let mut bytes = [0; 4];
                let len = c.encode_utf8(&mut bytes).len();
                Self { bytes, len }
            }
            _ => Self::default(),
        }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The pieces of a text.
struct Pieces<'a> {
    text: &'a [u8],
    at: usize,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let start = self.at;
        let run = run(rest);
        if run > 0 {
            self.at += run;
            return Some(Piece::Run(start..self.at));
        }
        let (read, len) = escape(rest).unwrap_or_else(|| character(rest));
        self.at += len;
        Some(Piece::Read(start..self.at, read))
    }
}

/// Length of the run of plain bytes and blanks at the beginning of `rest`.
fn run(rest: &[u8]) -> usize {
    let mut length = 0;
    for chunk in rest.chunks(CHUNK) {
        let clean = chunk.is_ascii() && memchr3(b'%', b'\\', b'&', chunk).is_none();
        let end = || chunk.iter().position(|b| matches!(class(*b), Class::Escape | Class::Wide));
        if !clean && let Some(end) = end() {
            return length + end;
        }
        length += chunk.len();
    }
    length
}

/// The text as it reads once its escapes are resolved, and whether single bytes of characters were among them.
fn resolve(text: &[u8]) -> (Vec<u8>, bool) {
    let (mut out, mut parts) = (Vec::with_capacity(text.len()), false);
    for piece in (Pieces { text, at: 0 }) {
        match piece {
            Piece::Run(run) => without_blanks(text.get(run).unwrap_or_default(), &mut out),
            Piece::Read(from, bytes) => {
                parts |= from.len() > 1 && bytes.is_part();
                out.extend_from_slice(bytes.as_slice());
            }
        }
    }
    (out, parts)
}

/// Appends `run` without its blanks. Every byte is written and the end only moves for those that stay: branches on where words
/// end could not be predicted.
fn without_blanks(run: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + run.len(), 0);
    let target = out.get_mut(start..).unwrap_or_default();
    let mut kept = 0;
    for byte in run {
        if let Some(slot) = target.get_mut(kept) {
            *slot = *byte;
        }
        kept += usize::from(*byte > b' ' && *byte != 0x7F);
    }
    out.truncate(start + kept);
}

/// Where ranges of the resolved text stand in `text`.
fn origins(text: &[u8], ranges: &mut [Range<usize>]) {
    let mut ends: Vec<(usize, usize, bool)> = Vec::with_capacity(ranges.len() * 2);
    for (i, range) in ranges.iter().enumerate() {
        ends.push((range.start, i, false));
        ends.push((range.end.saturating_sub(1), i, true));
    }
    ends.sort_unstable();
    let mut wanted = ends.into_iter().peekable();
    let mut read = 0;
    let mut place = |from: Range<usize>, len: usize| {
        while let Some((_, i, is_end)) = wanted.next_if(|(at, ..)| *at < read + len) {
            match (ranges.get_mut(i), is_end) {
                (Some(range), false) => range.start = from.start,
                (Some(range), true) => range.end = from.end,
                (None, _) => {}
            }
        }
        read += len;
    };
    for piece in (Pieces { text, at: 0 }) {
        match piece {
            Piece::Run(run) => {
                for at in run {
                    let seen = text.get(at).is_some_and(|b| class(*b) == Class::Plain);
                    place(at..at + 1, usize::from(seen));
                }
            }
            Piece::Read(from, bytes) => place(from, bytes.len),
        }
    }
}

/// Every reading of `text` that differs from the text itself, each once resolved from the one before.
pub(crate) struct Readings<'a> {
    text: &'a [u8],
    read: Vec<Vec<u8>>,
    parts: bool,
}

impl<'a> Readings<'a> {
    pub(crate) fn of(text: &'a [u8]) -> Self {
        Self { text, read: Vec::new(), parts: false }
    }

    /// The next reading, and none once there is nothing left to resolve.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let more = match self.read.last() {
            None => self.text.iter().any(|b| class(*b) != Class::Plain),
            Some(last) => self.read.len() < MAX_LEVELS && (self.parts || has_escape(last)),
        };
        if !more {
            return None;
        }
        let (next, parts) = resolve(self.read.last().map_or(self.text, Vec::as_slice));
        self.parts = parts;
        self.read.push(next);
        self.read.last().map(Vec::as_slice)
    }

    /// Where ranges of the last reading stand in the text.
    pub(crate) fn origins(&self, ranges: &mut [Range<usize>]) {
        let below = self.read.len().saturating_sub(1);
        for level in self.read.iter().take(below).rev() {
            origins(level, ranges);
        }
        origins(self.text, ranges);
    }
}

/// What a value reads as: with what is not seen taken out, and with what looks like an escape resolved as well.
pub(crate) fn readings(value: &str) -> [Vec<u8>; 2] {
    let seen: String = value.chars().filter(|c| !is_unseen(u32::from(*c))).collect();
    [seen.into_bytes(), resolve(value.as_bytes()).0]
}

/// Whether a raw JSON text may hold something that only a reading shows, beside words that blanks part: an escape that hides a
/// character, an unseen character, or a line break behind a run as encoders and long tokens have it.
pub(crate) fn asks_to_be_read(text: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| memchr3(b'%', b'\\', b'&', rest)) {
        let at = from + at;
        let rest = text.get(at..).unwrap_or_default();
        match rest {
            [b'\\', b'n' | b'r', ..] if !is_dense(text.get(..at).unwrap_or_default()) => {}
            // What JSON must escape in ordinary text.
            [b'\\', b'"' | b'\\' | b't' | b'b' | b'f', ..] => {}
            rest if escape(rest).is_some() => return true,
            _ => {}
        }
        from = at + 1;
    }
    text.chunks(CHUNK).enumerate().any(|(n, chunk)| {
        let wide = |(at, _): (usize, &u8)| text.get(n * CHUNK + at..).is_some_and(begins_unseen);
        !chunk.is_ascii() && chunk.iter().enumerate().filter(|(_, b)| class(**b) == Class::Wide).any(wide)
    })
}

/// Whether a text ends in a run of characters as encoded data and tokens have them.
fn is_dense(text: &[u8]) -> bool {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'=' | b'.');
    text.len() >= DENSE && text.iter().rev().take(DENSE).all(is_token)
}

/// Whether an unseen character begins here. Only its first two bytes are looked at before it is decoded.
fn begins_unseen(rest: &[u8]) -> bool {
    let may_be = match rest {
        [0xC2, second, ..] => matches!(second, 0x80..=0xA0 | 0xAD),
        [0xCD, second, ..] => *second == 0x8F,
        [0xD8, second, ..] => *second == 0x9C,
        [0xE1, second, ..] => matches!(second, 0x85 | 0x9A | 0x9E | 0xA0),
        [0xE2, second, ..] => matches!(second, 0x80 | 0x81),
        [0xE3, second, ..] => matches!(second, 0x80 | 0x85),
        [0xEF, second, ..] => matches!(second, 0xB8 | 0xBB | 0xBE | 0xBF),
        [0xF0, second, ..] => matches!(second, 0x9B | 0x9D),
        [0xF3, second, ..] => *second == 0xA0,
        _ => false,
    };
    may_be && character(rest).0.len == 0
}

fn has_escape(text: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| memchr3(b'%', b'\\', b'&', rest)) {
        if text.get(from + at..).and_then(escape).is_some() {
            return true;
        }
        from += at + 1;
    }
    false
}

/// What the escape at the beginning of `rest` stands for, and its length.
fn escape(rest: &[u8]) -> Option<(Bytes, usize)> {
    match rest {
        [b'%', high, low, ..] => Some((Bytes::one(hex(*high)? << 4 | hex(*low)?), 3)),
        [b'\\', b'u', b'{', digits @ ..] => {
            let len = digits.iter().take(6).take_while(|d| d.is_ascii_hexdigit()).count();
            let closed = len > 0 && digits.get(len) == Some(&b'}');
            closed.then(|| (Bytes::of(number(digits.get(..len).unwrap_or_default(), 16)), len + 4))
        }
        [b'\\', b'u', ..] => unicode(rest),
        [b'\\', b'x', high, low, ..] => Some((Bytes::one(hex(*high)? << 4 | hex(*low)?), 4)),
        [b'\\', b'n' | b'r' | b't' | b'b' | b'f', ..] => Some((Bytes::default(), 2)),
        [b'\\', c @ (b'"' | b'\'' | b'\\' | b'/'), ..] => Some((Bytes::one(*c), 2)),
        [b'&', ..] => entity(rest),
        _ => None,
    }
}

/// `\uXXXX`, with the second half of a surrogate pair if it follows; half a pair is not seen.
fn unicode(rest: &[u8]) -> Option<(Bytes, usize)> {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 4).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
        Some(number(digits, 16))
    };
    let first = unit(2)?;
    let second = rest.get(6..8).filter(|mark| *mark == b"\\u").and_then(|_| unit(8));
    match (first, second) {
        (0xD800..=0xDBFF, Some(second @ 0xDC00..=0xDFFF)) => {
            Some((Bytes::of(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)), 12))
        }
        _ => Some((Bytes::of(first), 6)),
    }
}

fn entity(rest: &[u8]) -> Option<(Bytes, usize)> {
    let len = rest.iter().take(MAX_ENTITY).position(|b| *b == b';')?;
    let name = rest.get(1..len)?;
    let read = match name {
        b"amp" => Bytes::one(b'&'),
        b"lt" => Bytes::one(b'<'),
        b"gt" => Bytes::one(b'>'),
        b"quot" => Bytes::one(b'"'),
        b"apos" => Bytes::one(b'\''),
        b"nbsp" | b"shy" => Bytes::default(),
        [b'#', b'x' | b'X', digits @ ..]
            if !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit) =>
        {
            Bytes::of(number(digits, 16))
        }
        [b'#', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            Bytes::of(number(digits, 10))
        }
        _ => return None,
    };
    Some((read, len + 1))
}

/// The character at the beginning of `rest`, which stays if it is seen, and its length; a byte that begins none is one.
fn character(rest: &[u8]) -> (Bytes, usize) {
    let head = rest.get(..rest.len().min(4)).unwrap_or_default();
    let wide = head.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    match (wide, rest.first()) {
        (Some(c), _) => (Bytes::of(u32::from(c)), c.len_utf8()),
        (None, Some(byte)) => (Bytes { bytes: [*byte, 0, 0, 0], len: 1 }, 1),
        (None, None) => (Bytes::default(), 1),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

/// The number of a few digits that were checked.
fn number(digits: &[u8], radix: u32) -> u32 {
    let value = |d: &u8| char::from(*d).to_digit(radix).unwrap_or_default();
    digits.iter().fold(0_u32, |n, d| n.saturating_mul(radix).saturating_add(value(d)))
}

/// White space, control characters, and what is not shown (Default_Ignorable_Code_Point of Unicode 17, as far as assigned).
fn is_unseen(point: u32) -> bool {
    matches!(point,
        0..=0x20 | 0x7F..=0xA0 | 0xAD | 0x34F | 0x61C | 0x115F..=0x1160 | 0x1680 | 0x17B4..=0x17B5 | 0x180B..=0x180F
        | 0x2000..=0x200F | 0x2028..=0x202F | 0x205F..=0x206F | 0x3000 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
        | 0xFFF0..=0xFFF8 | 0x1_BCA0..=0x1_BCA3 | 0x1_D173..=0x1_D17A | 0xE_0000..=0xE_0FFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let mut readings = Readings::of(text.as_bytes());
        let mut all = Vec::new();
        while let Some(next) = readings.next() {
            all.push(String::from_utf8_lossy(next).into_owned());
        }
        all
    }

    #[test]
    fn a_text_is_read_without_what_is_not_seen_and_with_its_escapes_resolved() {
        for (text, want) in [
            ("plain-text_é日本", vec![]),
            ("a b\r\n\tc\0d\u{7f}e", vec!["abcde"]),
            ("a\u{200b}b\u{ad}c\u{feff}d\u{2028}e\u{e0041}f\u{a0}g", vec!["abcdefg"]),
            ("%41b%2f%7F%zz%4", vec!["Ab/%zz%4"]),
            (r"\u0041\x42\u{43}\n\\d\/\q\u00zz", vec![r"ABC\d/\q\u00zz"]),
            (r"\ud83d\ude00\ud83dx", vec!["\u{1f600}x"]),
            ("&#65;&#x42;&amp;&lt;&nbsp;&bogus;&#;", vec!["AB&<&bogus;&#;"]),
            ("%5cu0041", vec!["\\u0041", "A"]),
            ("%255c%255cu0041%0a", vec!["%5c%5cu0041", "\\\\u0041", "\\u0041"]),
            ("%\u{200b}41", vec!["%41", "A"]),
            (r"a%E2%80%8Bb\xc2\xadc", vec!["a\u{200b}b\u{ad}c", "abc"]),
            ("\\", vec!["\\"]),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
        assert_eq!(resolve(b"a\xff\xe2\x80 \xf0b").0, b"a\xff\xe2\x80\xf0b", "what is no UTF-8 stays");
    }

    #[test]
    fn ordinary_text_does_not_ask_to_be_read() {
        for (text, want) in [
            (r#"{"a":"He said \"no\",\n\tthen 100 % of & none"}"#, false),
            ("\"“quoted” — naïve 日本、語。 Привет\"", false),
            (r"short_line\nand more", false),
            (r"c:\\users\\name", false),
            ("a\u{200b}b", true),
            ("a\u{a0}b", true),
            ("a%41b", true),
            (r"a\u0041b", true),
            ("a&#65;b", true),
            (r"VGhlIHF1aWNrIGJyb3duIGZv\neCBqdW1wcw", true),
        ] {
            assert_eq!(asks_to_be_read(text.as_bytes()), want, "{text}");
        }
        for point in 0x80..=0x10_FFFF_u32 {
            let Some(c) = char::from_u32(point) else { continue };
            assert_eq!(begins_unseen(c.to_string().as_bytes()), is_unseen(point), "U+{point:04X}");
        }
    }

    #[test]
    fn a_range_of_a_reading_leads_back_to_the_text() {
        // Read as `abCde`, then as nothing else.
        let text = "x ab\\u0043\u{200b}d\ne".as_bytes();
        let mut readings = Readings::of(text);
        assert_eq!(readings.next(), Some(&b"xabCde"[..]));
        for (range, want) in [(0..1, 0..1), (1..6, 2..16), (3..4, 4..10), (4..6, 13..16)] {
            let mut ranges = [range.clone()];
            readings.origins(&mut ranges);
            assert_eq!(ranges, [want], "{range:?}");
        }
        let text = b"__%255c%2575%200041__";
        let mut readings = Readings::of(text);
        while readings.next().is_some() {}
        let mut ranges = [2..3, 0..5];
        readings.origins(&mut ranges);
        assert_eq!(ranges, [2..19, 0..21]);
    }
}
