//! The encodings that text is read through: JSON escapes, percent signs, base64. Each decoder works on
//! bytes, bounded, and finds its candidates by itself, so that nothing is decoded that cannot be encoded text.

use super::mapped::Mapped;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::ops::Range;

/// Shortest base64 run that is decoded: 18 bytes, below which no rule has a secret.
pub(super) const MIN_RUN: usize = 24;
/// So much of a long base64 run is decoded whatever it holds; what follows, where it looks like text.
const MAX_ENCODED: usize = 64 * 1024;
/// From this length on a run is decoded even if what it holds does not look like text.
const LONG_RUN: usize = 256;
/// So many groups of four characters in a row that stand for ASCII are text: less than any secret is long, and random data has
/// one such row in some thousand groups.
const STREAK: usize = 4;
/// Characters around such a row that are decoded with it.
const MARGIN: usize = 128;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Values of the characters of both base64 alphabets; 64 for all other bytes.
const VALUES: [u8; 256] = {
    let mut table = [64u8; 256];
    let mut byte = 0u8;
    while byte < 128 {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => 64,
        };
        #[expect(
            clippy::indexing_slicing,
            reason = "a byte below 128 is within the table; constants have no get_mut"
        )]
        {
            table[byte as usize] = value;
        }
        byte += 1;
    }
    table
};

const IS_BASE64: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        let is = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
        #[expect(
            clippy::indexing_slicing,
            reason = "a byte below 128 is within the table; constants have no get_mut"
        )]
        {
            table[byte as usize] = is;
        }
        byte += 1;
    }
    table
};

/// Whether a byte belongs to one of the two base64 alphabets.
pub(super) fn is_base64(byte: u8) -> bool {
    IS_BASE64.get(usize::from(byte)).copied().unwrap_or(false)
}

/// JSON string escapes resolved. What is no escape stays as it is; a lone surrogate becomes U+FFFD.
pub(super) fn unescape(text: &[u8]) -> Mapped {
    let mut out = Mapped::default();
    out.text.reserve(text.len());
    let mut kept = 0;
    while let Some(at) = memchr::memchr(b'\\', text.get(kept..).unwrap_or_default()).map(|p| p + kept) {
        out.copy(text.get(kept..at).unwrap_or_default(), kept);
        let (plain, len) = escape(text, at);
        let mut utf8 = [0; 4];
        out.replace(plain.encode_utf8(&mut utf8).as_bytes(), at..at + len);
        kept = at + len;
    }
    out.copy(text.get(kept..).unwrap_or_default(), kept);
    out
}

/// The character that the backslash at `at` begins, and the length of its spelling.
pub(super) fn escape(text: &[u8], at: usize) -> (char, usize) {
    let simple = match text.get(at + 1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(c @ (b'"' | b'\\' | b'/')) => char::from(*c),
        Some(b'u') => return unicode(text, at).unwrap_or(('\\', 1)),
        _ => return ('\\', 1),
    };
    (simple, 2)
}

fn unicode(text: &[u8], at: usize) -> Option<(char, usize)> {
    let high = hex4(text.get(at + 2..at + 6)?)?;
    if let Some(c) = char::from_u32(high) {
        return Some((c, 6));
    }
    let low = text.get(at + 6..at + 8).filter(|m| *m == b"\\u").and(text.get(at + 8..at + 12)).and_then(hex4);
    match low {
        Some(low @ 0xDC00..=0xDFFF) if high < 0xDC00 => {
            let point = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            Some((char::from_u32(point)?, 12))
        }
        _ => Some(('\u{fffd}', 6)),
    }
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |n, d| Some(n << 4 | char::from(*d).to_digit(16)?))
}

/// Gives each part of a text that reads differently decoded, until `found` returns false: the whole text without its escapes, the
/// whole text without its percent signs, base64.
pub(super) fn each(text: &[u8], found: &mut dyn FnMut(&Mapped) -> bool) {
    if memchr::memchr(b'\\', text).is_some() && !found(&unescape(text)) {
        return;
    }
    if let Some(decoded) = percent_decode(text, false)
        && !found(&decoded)
    {
        return;
    }
    if is_form(text)
        && let Some(decoded) = percent_decode(text, true)
        && !found(&decoded)
    {
        return;
    }
    let mut from = 0;
    while let Some(run) = next_run(text, from) {
        let mut go_on = true;
        from = decode_run(text, run, &mut |decoded| {
            go_on = found(decoded);
            go_on
        });
        if !go_on {
            return;
        }
    }
}

/// The next percent-encoded character at or after `from`.
pub(super) fn next_percent(text: &[u8], from: usize) -> Option<usize> {
    let mut seek = from;
    loop {
        let at = seek + memchr::memchr(b'%', text.get(seek..)?)?;
        if percent_byte(text, at).is_some() {
            return Some(at);
        }
        seek = at + 1;
    }
}

/// Where the word begins that `at` stands in, `floor` at the least.
pub(super) fn word_start(text: &[u8], floor: usize, at: usize) -> usize {
    let head = text.get(floor..at).unwrap_or_default();
    at - head.iter().rev().take_while(|b| is_word(**b)).count()
}

/// Where the word ends that `at` stands in.
pub(super) fn word_end(text: &[u8], at: usize) -> usize {
    at + text.get(at..).unwrap_or_default().iter().take_while(|b| is_word(**b)).count()
}

/// Whether a plus stands in one word with a percent-encoded character, as forms write a space.
pub(super) fn is_form(text: &[u8]) -> bool {
    if memchr::memchr(b'+', text).is_none() {
        return false;
    }
    let mut end = 0;
    while let Some(at) = next_percent(text, end) {
        let start = word_start(text, end, at);
        end = word_end(text, at);
        if memchr::memchr(b'+', text.get(start..end).unwrap_or_default()).is_some() {
            return true;
        }
    }
    false
}

fn percent_byte(text: &[u8], at: usize) -> Option<u8> {
    let digit = |i: usize| char::from(*text.get(at + i)?).to_digit(16);
    u8::try_from(digit(1)? << 4 | digit(2)?).ok()
}

/// Whether a character can be part of a keyword or of the characters that must follow one.
pub(super) fn may_be_keyword(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | b'\'')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'>')
}

/// A text, percent-decoded once (RFC 3986 section 2.1), with each plus read as a space if `plus` says so; none if nothing in it is
/// encoded.
pub(super) fn percent_decode(text: &[u8], plus: bool) -> Option<Mapped> {
    next_percent(text, 0)?;
    let mut out = Mapped::default();
    out.text.reserve(text.len());
    let second = if plus { b'+' } else { b'%' };
    let (mut kept, mut seek) = (0, 0);
    while let Some(hit) = memchr::memchr2(b'%', second, text.get(seek..).unwrap_or_default()) {
        let at = seek + hit;
        let (byte, len) = match percent_byte(text, at) {
            _ if text.get(at) == Some(&b'+') => (b' ', 1),
            Some(byte) => (byte, 3),
            None => {
                seek = at + 1;
                continue;
            }
        };
        out.copy(text.get(kept..at).unwrap_or_default(), kept);
        out.replace(&[byte], at..at + len);
        kept = at + len;
        seek = kept;
    }
    out.copy(text.get(kept..).unwrap_or_default(), kept);
    Some(out)
}

/// The next run of at least [`MIN_RUN`] base64 characters; `from` must not lie within one. It looks at the last
/// character of each window first, so that ordinary prose costs a few looks per window.
pub(super) fn next_run(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut start = from;
    loop {
        let window = text.get(start..start + MIN_RUN)?;
        if let Some(gap) = window.iter().rposition(|b| !is_base64(*b)) {
            start += gap + 1;
            continue;
        }
        let rest = text.get(start + MIN_RUN..).unwrap_or_default();
        let more = rest.iter().position(|b| !is_base64(*b)).unwrap_or(rest.len());
        return Some(start..start + MIN_RUN + more);
    }
}

/// Gives what a run of base64 characters decodes to, with the lines that continue it, until `found` returns false; gives where the
/// encoding ends. A short run is decoded if any of it looks like text. Of a long one the beginning is, whatever it holds, and of
/// what follows all that looks like text: so a picture costs a look at each fourth character.
pub(super) fn decode_run(text: &[u8], run: Range<usize>, found: &mut dyn FnMut(&Mapped) -> bool) -> usize {
    let Some(line) = text.get(run.clone()) else { return run.end };
    let mut end = run.end;
    let mut joined = Vec::new();
    if matches!(text.get(end), Some(b'\n' | b'\r')) {
        end = join_lines(text, end, line, &mut joined);
    }
    let body = if joined.is_empty() { line } else { joined.as_slice() };
    let head = body.get(..body.len().min(MAX_ENCODED)).unwrap_or_default();
    let is_decoded = body.len() >= LONG_RUN || holds_text(head);
    if !is_decoded {
        return end;
    }
    let plain = |special: [u8; 2]| !body.iter().any(|b| special.contains(b));
    let engine = if plain([b'-', b'_']) {
        STANDARD
    } else if plain([b'+', b'/']) {
        URL_SAFE
    } else {
        return end;
    };
    let padding = text.get(end..).unwrap_or_default().iter().take(2).take_while(|b| **b == b'=').count();
    let mut part = |range: Range<usize>| {
        let part = body.get(range).unwrap_or_default();
        let even = if part.len() % 4 == 1 { part.len() - 1 } else { part.len() };
        let decoded = engine.decode(part.get(..even).unwrap_or_default());
        decoded.map_or(true, |decoded| found(&Mapped::whole(decoded, run.start..end + padding)))
    };
    if part(0..head.len()) && body.len() > head.len() {
        stretches(body, &mut |stretch| stretch.end <= head.len() || part(stretch));
    }
    end
}

/// Whether any part of a run of base64 looks like the encoding of ASCII text.
pub(super) fn holds_text(run: &[u8]) -> bool {
    let mut streak = 0;
    run.chunks(4).any(|group| {
        streak = if is_ascii(group) { streak + 1 } else { 0 };
        streak >= STREAK
    })
}

/// The parts of a run that look like text, with what is around them, until `found` returns false.
fn stretches(run: &[u8], found: &mut dyn FnMut(Range<usize>) -> bool) {
    let mut open: Option<Range<usize>> = None;
    let mut streak = 0;
    for (index, group) in run.chunks(4).enumerate() {
        streak = if is_ascii(group) { streak + 1 } else { 0 };
        if streak < STREAK {
            continue;
        }
        let start = ((index + 1 - streak) * 4).saturating_sub(MARGIN);
        let end = run.len().min((index + 1) * 4 + MARGIN);
        open = match open {
            Some(known) if start <= known.end => Some(known.start..end),
            Some(known) => {
                if !found(known) {
                    return;
                }
                Some(start..end)
            }
            None => Some(start..end),
        };
    }
    if let Some(known) = open {
        found(known);
    }
}

/// Whether four characters of base64 stand for three bytes below 128: the highest bit of each is one of the first three characters.
fn is_ascii(group: &[u8]) -> bool {
    let bit = |at: usize, mask: u8| {
        group.get(at).is_none_or(|b| VALUES.get(usize::from(*b)).is_none_or(|value| value & mask == 0))
    };
    bit(0, 0x20) && bit(1, 0x08) && bit(2, 0x02)
}

/// Joins the lines that follow `end` to the first one: all are as long as it but the last. Gives the new end; nothing is joined if
/// none follows.
fn join_lines(text: &[u8], mut end: usize, first: &[u8], joined: &mut Vec<u8>) -> usize {
    let width = first.len();
    loop {
        let rest = text.get(end..).unwrap_or_default();
        let feed = match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => break,
        };
        let line = rest.get(feed..).unwrap_or_default();
        let len = line.iter().take(width + 1).take_while(|b| is_base64(**b)).count();
        if len == 0 || len > width {
            break;
        }
        if joined.is_empty() {
            joined.extend_from_slice(first);
        }
        joined.extend_from_slice(line.get(..len).unwrap_or_default());
        end += feed + len;
        if len < width {
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(mapped: Mapped) -> String {
        String::from_utf8(mapped.text).unwrap()
    }

    #[test]
    fn escapes_are_resolved_once_and_what_is_none_stays() {
        for (raw, want) in [
            (r"plain", "plain"),
            (r#"a\"b\\n\/c\n"#, "a\"b\\n/c\n"),
            (r"\u0067hp\u005f", "ghp_"),
            (r"\ud83d\ude00 \ud83d x", "\u{1f600} \u{fffd} x"),
            (r"\u12 \x \", r"\u12 \x \"),
        ] {
            assert_eq!(text(unescape(raw.as_bytes())), want, "{raw}");
        }
    }

    #[test]
    fn percent_signs_are_resolved_in_the_whole_text() {
        for (raw, want) in [
            ("50% of 100 % x", None),
            ("a%20b", Some("a b")),
            ("see k=sk%2Dant, y", Some("see k=sk-ant, y")),
            ("<a href=\"x%3Ay\">", Some("<a href=\"x:y\">")),
            ("%E2%80%8B", Some("\u{200b}")),
        ] {
            let got = percent_decode(raw.as_bytes(), false).map(text);
            assert_eq!(got.as_deref(), want, "{raw}");
        }
        for (raw, want) in [("a+b c", false), ("a+b c%20d", false), ("c a+b%20d", true)] {
            assert_eq!(is_form(raw.as_bytes()), want, "{raw}");
        }
        assert_eq!(text(percent_decode(b"a+b%2Bc%0A", true).unwrap()), "a b+c\n");
    }

    #[test]
    fn base64_of_text_is_decoded_and_names_are_not() {
        let wrapped = "VGhlIHF1aWNrIGJyb3duIGZveCBqdW1wcyBvdmVyIHRoZSBsYXp5IGRvZyBhbmQg\nc28gb24gYW5kIG9u";
        for (raw, want) in [
            ("VGhlIHF1aWNrIGJyb3duIGZveA==", Some("The quick brown fox")),
            ("x: VGhlIHF1aWNrIGJyb3duIGZveA.", Some("The quick brown fox")),
            ("c3ViamVjdHM_X2lkPj4-YW5kX3NvX29u", Some("subjects?_id>>>and_so_on")),
            (wrapped, Some("The quick brown fox jumps over the lazy dog and so on and on")),
            ("/usr/share/doc/python3-minimal/copyright", None),
            ("018f3c2e7d4b7c1a9a552f6f0e1b8c77", None),
            ("VGhlIHF1aWNrIGJyb3du", None),
        ] {
            let mut got = None;
            if let Some(run) = next_run(raw.as_bytes(), 0) {
                decode_run(raw.as_bytes(), run, &mut |decoded| {
                    got = Some(text(decoded.clone()));
                    true
                });
            }
            assert_eq!(got.as_deref(), want, "{raw}");
        }
    }

    #[test]
    fn a_run_is_found_wherever_it_stands() {
        for before in 0..60 {
            for len in [MIN_RUN - 1, MIN_RUN, MIN_RUN + 1, 100] {
                let text = format!("{}.{}", " ".repeat(before), "A".repeat(len));
                let want = (len >= MIN_RUN).then(|| before + 1..before + 1 + len);
                assert_eq!(next_run(text.as_bytes(), 0), want);
                assert_eq!(next_run(format!("{text} x").as_bytes(), 0), want);
            }
        }
    }
}
