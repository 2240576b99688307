//! The encodings that text is read through: JSON escapes, percent signs, base64. Each decoder works on
//! bytes, bounded, and finds its candidates by itself, so that nothing is decoded that cannot be encoded text.

use super::mapped::Mapped;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::ops::Range;

/// Shortest base64 run that is decoded: 18 bytes, below which no rule has a secret.
pub(super) const MIN_RUN: usize = 24;
/// Most encoded characters that are decoded at a time.
pub(super) const MAX_ENCODED: usize = 64 * 1024;
/// From this length on a run is decoded even if what it holds does not look like text.
const LONG_RUN: usize = 256;
/// Shortest line of wrapped base64.
const MIN_LINE: usize = 60;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

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

/// Gives each part of a text that reads differently decoded, until `found` returns false: the whole text without its escapes,
/// percent-encoded words, base64.
pub(super) fn each(text: &[u8], found: &mut dyn FnMut(&Mapped) -> bool) {
    if memchr::memchr(b'\\', text).is_some() && !found(&unescape(text)) {
        return;
    }
    let mut from = 0;
    while let Some(word) = next_percent_word(text, from) {
        from = word.end;
        if !found(&percent_decode(text, word)) {
            return;
        }
    }
    from = 0;
    while let Some(run) = next_run(text, from) {
        from = run.end;
        if let Some(decoded) = decode_run(text, run)
            && !found(&decoded)
        {
            return;
        }
    }
}

/// The next word at or after `from` in which a percent-encoded character may hide something.
pub(super) fn next_percent_word(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut seek = from;
    loop {
        let at = seek + memchr::memchr(b'%', text.get(seek..)?)?;
        if percent_byte(text, at).is_none_or(|b| b < 0x80 && !may_be_keyword(b) && !is_control(b)) {
            seek = at + 1;
            continue;
        }
        let floor = from.max(at.saturating_sub(MAX_ENCODED));
        let head = text.get(floor..at).unwrap_or_default();
        let start = at - head.iter().rev().take_while(|b| is_word(**b)).count();
        let tail = text.get(at..text.len().min(at + MAX_ENCODED)).unwrap_or_default();
        return Some(start..at + tail.iter().take_while(|b| is_word(**b)).count());
    }
}

/// Whether a byte is a control character that parts no words.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r')
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

/// A percent-encoded word, decoded once (RFC 3986 section 2.1).
pub(super) fn percent_decode(text: &[u8], word: Range<usize>) -> Mapped {
    let bytes = text.get(word.clone()).unwrap_or_default();
    Mapped::whole(percent_encoding::percent_decode(bytes).collect(), word)
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

/// What a run of base64 characters decodes to, with the lines that continue it; none if it is not encoded text.
pub(super) fn decode_run(text: &[u8], run: Range<usize>) -> Option<Mapped> {
    let line = text.get(run.clone())?;
    let texty = looks_like_text(line);
    if !texty && line.len() < LONG_RUN {
        return None;
    }
    let mut body = line.get(..line.len().min(MAX_ENCODED))?.to_vec();
    let mut end = run.end;
    if texty && may_wrap(line) {
        end = join_lines(text, end, line.len(), &mut body);
    }
    let padding = text.get(end..).unwrap_or_default().iter().take(2).take_while(|b| **b == b'=').count();
    let plain = |special: [u8; 2]| !body.iter().any(|b| special.contains(b));
    let engine = if plain([b'-', b'_']) {
        STANDARD
    } else if plain([b'+', b'/']) {
        URL_SAFE
    } else {
        return None;
    };
    body.truncate(if body.len() % 4 == 1 { body.len() - 1 } else { body.len() });
    let decoded = engine.decode(&body).ok()?;
    Some(Mapped::whole(decoded, run.start..end + padding))
}

/// Whether more lines of the same encoding may follow a line.
pub(super) fn may_wrap(line: &[u8]) -> bool {
    line.len() >= MIN_LINE && line.len().is_multiple_of(4)
}

/// Whether the run begins as the encoding of ASCII text does: then the first of each four characters stands for a
/// value below 32, hence is `A` to `Z` or `a` to `f`. One of the first six may be something else.
pub(super) fn looks_like_text(run: &[u8]) -> bool {
    let good = run.iter().take(MIN_RUN).step_by(4).filter(|b| matches!(b, b'A'..=b'Z' | b'a'..=b'f')).count();
    good >= 5
}

/// Appends the lines that follow `end`, each of `width` characters but the last; gives the new end.
fn join_lines(text: &[u8], mut end: usize, width: usize, body: &mut Vec<u8>) -> usize {
    while body.len() < MAX_ENCODED {
        let rest = text.get(end..).unwrap_or_default();
        let feed = match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => break,
        };
        let line = rest.get(feed..).unwrap_or_default();
        let len = line.iter().take(width).take_while(|b| is_base64(**b)).count();
        if len == 0 {
            break;
        }
        body.extend_from_slice(line.get(..len).unwrap_or_default());
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
    fn percent_words_are_cut_at_white_space_and_quotes() {
        for (raw, want) in [
            ("50% of 100 % x", None),
            ("a%20b", Some("a b")),
            ("see k=sk%2Dant, y", Some("k=sk-ant,")),
            ("<a href=\"x%3Ay\">", Some("x:y")),
            ("%E2%80%8B", Some("\u{200b}")),
        ] {
            let got = next_percent_word(raw.as_bytes(), 0).map(|w| text(percent_decode(raw.as_bytes(), w)));
            assert_eq!(got.as_deref(), want, "{raw}");
        }
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
            let got = next_run(raw.as_bytes(), 0).and_then(|r| decode_run(raw.as_bytes(), r)).map(text);
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
