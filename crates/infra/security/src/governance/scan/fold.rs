//! Disguised characters: those that NFKC turns into ASCII (full width, mathematical, superscript ...) and those that are
//! invisible: zero-width and control characters, and U+FFFD, which half a surrogate pair is read as. Text that holds none of
//! them reads the same folded, and most text holds none.

use super::mapped::Mapped;
use std::ops::Range;
use unicode_normalization::UnicodeNormalization;

/// What folding does to a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    Keep,
    /// NFKC gives text with ASCII in it.
    Ascii,
    /// Not shown: taken away.
    Drop,
}

/// Beyond the basic plane, only these ranges hold characters that NFKC turns into ASCII (a test looks at all others).
const ASTRAL: [Range<u32>; 5] =
    [0x1_0780..0x1_07C0, 0x1_CCD0..0x1_CD00, 0x1_D400..0x1_D800, 0x1_F100..0x1_F200, 0x1_FBF0..0x1_FBFA];

/// A set of code points as bits: the basic plane, then [`ASTRAL`].
pub(super) struct Folding {
    disguised: Box<[u64]>,
}

impl Folding {
    pub(super) fn new() -> Self {
        let astral: usize = ASTRAL.iter().map(ExactSizeIterator::len).sum();
        let mut disguised = vec![0u64; (0x1_0000 + astral).div_ceil(64)];
        for point in (0..0x1_0000).chain(ASTRAL.iter().cloned().flatten()) {
            let Some(c) = char::from_u32(point) else { continue };
            if (is_invisible(point) || !c.is_ascii() && c.nfkc().any(|n| n.is_ascii()))
                && let Some((word, bit)) = slot(point)
                && let Some(word) = disguised.get_mut(word)
            {
                *word |= bit;
            }
        }
        Self { disguised: disguised.into_boxed_slice() }
    }

    pub(super) fn of(&self, point: u32) -> Fold {
        let set =
            || slot(point).and_then(|(word, bit)| Some(self.disguised.get(word)? & bit != 0)) == Some(true);
        if point < 0x1_0000 && !set() {
            Fold::Keep
        } else if is_invisible(point) {
            Fold::Drop
        } else if set() {
            Fold::Ascii
        } else {
            Fold::Keep
        }
    }

    /// The first disguised character at or after `from`.
    pub(super) fn next(&self, text: &[u8], mut from: usize) -> Option<Range<usize>> {
        while let Some(at) = next_candidate(text, from) {
            let (point, len) = decode(text, at);
            if self.of(point) != Fold::Keep {
                return Some(at..at + len);
            }
            from = at + len;
        }
        None
    }

    /// The text with its disguised characters folded; none if it holds no such character.
    pub(super) fn fold(&self, text: &[u8]) -> Option<Mapped> {
        let mut found = self.next(text, 0)?;
        let mut folded = Mapped::default();
        folded.text.reserve(text.len());
        let mut kept = 0;
        loop {
            folded.copy(text.get(kept..found.start).unwrap_or_default(), kept);
            let (point, _) = decode(text, found.start);
            if self.of(point) == Fold::Ascii {
                let plain: String = char::from_u32(point).into_iter().nfkc().collect();
                folded.replace(plain.as_bytes(), found.clone());
            }
            kept = found.end;
            match self.next(text, kept) {
                Some(next) => found = next,
                None => break,
            }
        }
        folded.copy(text.get(kept..).unwrap_or_default(), kept);
        Some(folded)
    }
}

/// Word and bit of a code point in the set.
fn slot(point: u32) -> Option<(usize, u64)> {
    let mut index = point as usize;
    if point >= 0x1_0000 {
        let mut base = 0x1_0000;
        index = ASTRAL.iter().find_map(|range| {
            let hit = range.contains(&point).then(|| base + (point - range.start) as usize);
            base += range.len();
            hit
        })?;
    }
    Some((index / 64, 1 << (index % 64)))
}

/// Default_Ignorable_Code_Point of Unicode 17, as far as it is assigned; control characters but tab and line ends, which part
/// words; the replacement character.
fn is_invisible(point: u32) -> bool {
    matches!(point,
        0..=0x08 | 0x0B..=0x0C | 0x0E..=0x1F | 0x7F..=0x9F | 0xFFFD | 0xAD | 0x34F | 0x61C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
        | 0x202A..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFF8
        | 0x1_BCA0..=0x1_BCA3 | 0x1_D173..=0x1_D17A | 0xE_0000..=0xE_0FFF)
}

/// The first byte at or after `from` that is a control character or not ASCII.
fn next_candidate(text: &[u8], from: usize) -> Option<usize> {
    // Tab and line ends are told apart in the second look alone, so that the first one is a single comparison a byte.
    let suspect = |b: &u8| b.wrapping_sub(0x20) >= 0x5F;
    let candidate = |b: &u8| suspect(b) && !matches!(b, b'\t' | b'\n' | b'\r');
    let mut at = from;
    for chunk in text.get(from..)?.chunks(64) {
        if chunk.iter().fold(false, |any, b| any | suspect(b))
            && let Some(found) = chunk.iter().position(candidate)
        {
            return Some(at + found);
        }
        at += chunk.len();
    }
    None
}

/// Code point and length of the UTF-8 sequence at `at`; a byte that begins none is no code point.
fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let byte = |i: usize| text.get(at + i).map_or(0, |b| u32::from(*b));
    let follows = |i: usize| byte(i) & 0xC0 == 0x80;
    let tail = |i: usize| byte(i) & 0x3F;
    match byte(0) {
        b @ 0..0x80 => (b, 1),
        b @ 0xC2..=0xDF if follows(1) => ((b & 0x1F) << 6 | tail(1), 2),
        b @ 0xE0..=0xEF if follows(1) && follows(2) => ((b & 0x0F) << 12 | tail(1) << 6 | tail(2), 3),
        b @ 0xF0..=0xF4 if follows(1) && follows(2) && follows(3) => {
            ((b & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4)
        }
        _ => (u32::MAX, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_that_nfkc_turns_into_ascii_is_in_the_set() {
        let folding = Folding::new();
        let missing: Vec<String> = ('\u{80}'..=char::MAX)
            .filter(|c| c.nfkc().any(|n| n.is_ascii()) && folding.of(u32::from(*c)) == Fold::Keep)
            .map(|c| format!("U+{:04X}", u32::from(c)))
            .collect();
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn folding_reads_disguised_text_plainly_and_leads_back() {
        let folding = Folding::new();
        for (text, want) in [
            ("plain caf\u{e9} \u{4e2d}\u{6587} \u{1f600}", None),
            ("g\u{200b}hp\u{feff}_", Some("ghp_")),
            ("\u{ff27}\u{ff28}\u{ff30}", Some("GHP")),
            ("x\u{1d5a0}\u{2026}y", Some("xA...y")),
            ("g\0h\u{7f}p\u{1}_\u{85}\u{fffd}", Some("ghp_")),
            ("\ttabs and\r\nlines\n", None),
        ] {
            let folded = folding.fold(text.as_bytes()).map(|m| String::from_utf8(m.text).unwrap());
            assert_eq!(folded.as_deref(), want, "{text}");
        }
        let text = "ab\u{200b}cd";
        assert_eq!(folding.fold(text.as_bytes()).unwrap().origin(1..3), 1..6);
    }

    #[test]
    fn broken_utf8_is_passed_over() {
        let folding = Folding::new();
        for text in [&b"\xff\xfe\x80"[..], b"a\xe2\x80", b"\xf0\x9f", b"\xc0\x80"] {
            assert!(folding.fold(text).is_none(), "{text:?}");
        }
    }
}
