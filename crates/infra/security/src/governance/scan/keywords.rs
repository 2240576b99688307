//! The first pass: which keywords of which rules occur, and where. It is run over raw bytes of whole requests: keywords that
//! are prefixes of tokens are searched in vectors (Teddy, of `aho-corasick`); names of providers, which are written in any
//! case, by one automaton, and those of two and three bytes, which would blunt Teddy, by another.

use aho_corasick::packed::{self, MatchKind};
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use std::ops::Range;

/// Longest keyword that a rule may have.
pub(super) const MAX_KEYWORD: usize = 32;
/// Most token characters that a rule may ask for behind its keyword. Together with [`MAX_KEYWORD`] it bounds how far
/// around a disguised character the first pass has to look.
pub(super) const MAX_TAIL: u8 = 24;
/// A run that is looked at for a digit is not followed further.
const MAX_RUN: usize = 128;
/// How far a `probe` character may stand from its keyword.
const PROBE_REACH: usize = 512;
/// Text is gone through in blocks of this size, each by all groups, so that a long one stays in the cache.
const BLOCK: usize = 64 * 1024;
/// Teddy's limit on patterns.
const GROUP: usize = 64;
/// Line breaks within a token that are read over: it was wrapped by a terminal, a mail or an editor.
pub(super) const MAX_BREAKS: usize = 3;

/// That a keyword belongs to a rule, and what must follow it there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) rule: usize,
    pub(super) len: usize,
    pub(super) tail: u8,
    /// The token may stand so many bytes behind the keyword, and then holds a digit; right behind it if this is zero.
    pub(super) near: usize,
    pub(super) probe: Option<u8>,
}

impl Use {
    /// Whether what follows the keyword at `at` can belong to a match. It holds for raw JSON and for decoded text:
    /// escapes that could hide a character are looked for on their own.
    pub(super) fn plausible(&self, text: &[u8], at: usize) -> bool {
        let rest = text.get(at + self.len..).unwrap_or_default();
        let tail = usize::from(self.tail);
        let follows = if self.near > 0 { stands_near(rest, self.near, tail) } else { follows(rest, tail) };
        follows && self.probe.is_none_or(|probe| reaches(rest, probe))
    }
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'/' | b'=' | b'.' | b'~' | b'%')
}

/// Whether `wanted` token characters come next, line breaks between them apart.
fn follows(rest: &[u8], wanted: usize) -> bool {
    let (mut seen, mut at, mut breaks) = (0, 0, 0);
    while seen < wanted {
        match rest.get(at) {
            Some(byte) if is_token(*byte) => {
                seen += 1;
                at += 1;
            }
            Some(b'\n' | b'\r' | b'\\') if breaks < MAX_BREAKS => {
                breaks += 1;
                at += break_len(rest.get(at..).unwrap_or_default());
            }
            _ => return false,
        }
    }
    true
}

/// Length of the line break that text begins with, and of the blanks behind it; escapes of JSON count as what they stand for.
pub(super) fn break_len(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += match text.get(at..) {
            Some([b'\n' | b'\r' | b' ' | b'\t', ..]) => 1,
            Some([b'\\', b'u', ..]) => 6,
            Some([b'\\', ..]) => 2,
            _ => return at,
        };
    }
}

/// Whether a run of `wanted` characters with a digit among them begins within `reach` bytes. What may be folded into such a
/// character, or be an escape of one, counts as one.
fn stands_near(rest: &[u8], reach: usize, wanted: usize) -> bool {
    let (mut run, mut digit) = (0, false);
    for (at, byte) in rest.iter().enumerate() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'-')
            || *byte >= 0x80
            || byte.is_ascii_control()
        {
            run += 1;
            digit |= byte.is_ascii_digit() || *byte >= 0x80;
            if run >= wanted && digit {
                return true;
            }
        } else if *byte != b'\\' {
            if at >= reach {
                return false;
            }
            (run, digit) = (0, false);
        }
        if at >= reach + 2 * MAX_RUN {
            return false;
        }
    }
    false
}

/// Whether `probe` (or a character that may be folded into it) comes before the word ends.
fn reaches(rest: &[u8], probe: u8) -> bool {
    for byte in rest.iter().take(PROBE_REACH) {
        match *byte {
            b if b == probe || b >= 0x80 || b == b'\\' => return true,
            b'/' | b'"' | b'\'' | b'<' | b'>' | b'?' | b'#' => return false,
            b if b.is_ascii_whitespace() => return false,
            _ => {}
        }
    }
    false
}

enum Search {
    Packed(packed::Searcher),
    /// Where the processor has no vector instructions that Teddy knows.
    Automaton(AhoCorasick),
}

struct Group {
    search: Search,
    /// By pattern: its own rules, and those of keywords that it begins with.
    uses: Vec<Vec<Use>>,
}

/// A keyword with the rules that it belongs to.
pub(super) struct Keyword<'k> {
    pub(super) text: &'k [u8],
    /// Whether it is found in any case; its text is then in lower case.
    pub(super) any_case: bool,
    pub(super) found: Use,
}

/// All keywords of a rule set.
pub(super) struct Keywords {
    groups: Vec<Group>,
}

impl Keywords {
    /// None if the keywords are more than an automaton can hold.
    pub(super) fn new(all: &[Keyword<'_>]) -> Option<Self> {
        let of = |any_case: bool| {
            let mut texts: Vec<&[u8]> =
                all.iter().filter(|k| k.any_case == any_case).map(|k| k.text).collect();
            texts.sort_unstable();
            texts.dedup();
            texts.into_iter().map(move |text| {
                let begun = all.iter().filter(|k| k.any_case == any_case && text.starts_with(k.text));
                (text, begun.map(|k| k.found).collect::<Vec<Use>>())
            })
        };
        let (short, long): (Vec<_>, Vec<_>) = of(false).partition(|(text, _)| text.len() < 4);
        let mut groups: Vec<Group> = long.chunks(GROUP).map(Group::new).collect::<Option<_>>()?;
        let any_case: Vec<_> = of(true).collect();
        if !any_case.is_empty() {
            groups.push(Group::automaton(&any_case, true)?);
        }
        if !short.is_empty() {
            groups.push(Group::automaton(&short, false)?);
        }
        Some(Self { groups })
    }

    /// Calls `found` with each place where a keyword's rule may match; ends early when it returns false.
    pub(super) fn each(&self, text: &[u8], found: &mut dyn FnMut(usize, &Use) -> bool) {
        for start in (0..text.len()).step_by(BLOCK) {
            let block = start..text.len().min(start + BLOCK);
            if !self.groups.iter().all(|group| group.each(text, block.clone(), found)) {
                return;
            }
        }
    }

    /// Whether any keyword occurs, whatever follows it.
    pub(super) fn any(&self, text: &[u8]) -> bool {
        self.groups.iter().any(|g| g.next(text, 0..text.len()).is_some())
    }
}

/// Reports the rules whose demands on what follows are met; false when the receiver has enough.
fn plausible(uses: &[Use], text: &[u8], at: usize, found: &mut dyn FnMut(usize, &Use) -> bool) -> bool {
    uses.iter().filter(|u| u.plausible(text, at)).all(|u| found(at, u))
}

impl Group {
    fn new(members: &[(&[u8], Vec<Use>)]) -> Option<Self> {
        let texts = || members.iter().map(|(text, _)| *text);
        let packed =
            packed::Config::new().match_kind(MatchKind::LeftmostLongest).builder().extend(texts()).build();
        let search = match packed {
            Some(searcher) => Search::Packed(searcher),
            None => Search::Automaton(automaton(texts(), false)?),
        };
        Some(Self { search, uses: members.iter().map(|(_, uses)| uses.clone()).collect() })
    }

    fn automaton(members: &[(&[u8], Vec<Use>)], any_case: bool) -> Option<Self> {
        let search = Search::Automaton(automaton(members.iter().map(|(text, _)| *text), any_case)?);
        Some(Self { search, uses: members.iter().map(|(_, uses)| uses.clone()).collect() })
    }

    fn next(&self, text: &[u8], within: Range<usize>) -> Option<(usize, usize)> {
        let hit = match &self.search {
            Search::Packed(s) => s.find_in(text, within.into()),
            Search::Automaton(s) => s.find(aho_corasick::Input::new(text).range(within)),
        };
        hit.map(|m| (m.start(), m.pattern().as_usize()))
    }

    /// The keywords that begin within `block`.
    fn each(&self, text: &[u8], block: Range<usize>, found: &mut dyn FnMut(usize, &Use) -> bool) -> bool {
        let end = text.len().min(block.end + MAX_KEYWORD - 1);
        let mut from = block.start;
        while let Some((at, pattern)) = self.next(text, from..end).filter(|(at, _)| *at < block.end) {
            if let Some(uses) = self.uses.get(pattern)
                && !plausible(uses, text, at, found)
            {
                return false;
            }
            from = at + 1;
        }
        true
    }
}

fn automaton<'t>(texts: impl Iterator<Item = &'t [u8]>, any_case: bool) -> Option<AhoCorasick> {
    AhoCorasick::builder()
        .match_kind(aho_corasick::MatchKind::LeftmostLongest)
        .ascii_case_insensitive(any_case)
        .kind(Some(AhoCorasickKind::DFA))
        .build(texts)
        .ok()
}
