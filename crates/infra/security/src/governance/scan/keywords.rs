//! The first pass: which keywords of which rules occur, and where. It is run over raw bytes of whole requests, so it is
//! vectorised (Teddy, of `aho-corasick`) and looks at nothing else.

use aho_corasick::AhoCorasick;
use aho_corasick::packed::{self, MatchKind};
use memchr::memmem::Finder;

/// Longest keyword that a rule may have.
pub(super) const MAX_KEYWORD: usize = 32;
/// Most token characters that a rule may ask for behind its keyword. Together with [`MAX_KEYWORD`] it bounds how far
/// around a disguised character the first pass has to look.
pub(super) const MAX_TAIL: u8 = 24;
/// How far a `probe` character may stand from its keyword.
const PROBE_REACH: usize = 512;
/// Teddy's limit on patterns.
const GROUP: usize = 64;

/// That a keyword belongs to a rule, and what must follow it there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) rule: usize,
    pub(super) len: usize,
    pub(super) tail: u8,
    pub(super) probe: Option<u8>,
}

impl Use {
    /// Whether what follows the keyword at `at` can belong to a match. It holds for raw JSON and for decoded text:
    /// escapes that could hide a character are looked for on their own.
    pub(super) fn plausible(&self, text: &[u8], at: usize) -> bool {
        let rest = text.get(at + self.len..).unwrap_or_default();
        let tail = usize::from(self.tail);
        if rest.len() < tail || !rest.iter().take(tail).all(|b| is_token(*b)) {
            return false;
        }
        self.probe.is_none_or(|probe| reaches(rest, probe))
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'/' | b'=' | b'.' | b'~' | b'%')
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

struct Pattern {
    text: Box<[u8]>,
    /// Its own rules, and those of keywords that it begins with.
    uses: Vec<Use>,
}

enum Search {
    Packed(packed::Searcher),
    /// Where the processor has no vector instructions that Teddy knows.
    Automaton(AhoCorasick),
}

struct Group {
    search: Search,
    patterns: Vec<Pattern>,
}

struct Short {
    finder: Finder<'static>,
    uses: Vec<Use>,
}

/// All keywords of a rule set.
pub(super) struct Keywords {
    groups: Vec<Group>,
    /// Keywords of two and three bytes are searched on their own: in Teddy they would blunt the others.
    short: Vec<Short>,
}

impl Keywords {
    /// None if the keywords are more than an automaton can hold.
    pub(super) fn new(all: &[(&[u8], Use)]) -> Option<Self> {
        let mut texts: Vec<&[u8]> = all.iter().map(|(text, _)| *text).collect();
        texts.sort_unstable();
        texts.dedup();
        let uses =
            |of: &[u8]| all.iter().filter(|(t, _)| of.starts_with(t)).map(|(_, u)| *u).collect::<Vec<_>>();
        let (short, long): (Vec<&[u8]>, Vec<&[u8]>) = texts.into_iter().partition(|t| t.len() < 4);
        let long: Vec<(&[u8], Vec<Use>)> = long.into_iter().map(|t| (t, uses(t))).collect();
        Some(Self {
            groups: long.chunks(GROUP).map(Group::new).collect::<Option<_>>()?,
            short: short
                .into_iter()
                .map(|t| Short { finder: Finder::new(t).into_owned(), uses: uses(t) })
                .collect(),
        })
    }

    /// Calls `found` with each place where a keyword's rule may match; ends early when it returns false.
    pub(super) fn each(&self, text: &[u8], found: &mut dyn FnMut(usize, &Use) -> bool) {
        for group in &self.groups {
            if !group.each(text, found) {
                return;
            }
        }
        for short in &self.short {
            for at in short.finder.find_iter(text) {
                if !plausible(&short.uses, text, at, found) {
                    return;
                }
            }
        }
    }

    /// Whether any keyword occurs, whatever follows it.
    pub(super) fn any(&self, text: &[u8]) -> bool {
        self.groups.iter().any(|g| g.next(text, 0).is_some())
            || self.short.iter().any(|s| s.finder.find(text).is_some())
    }
}

/// Reports the rules whose demands on what follows are met; false when the receiver has enough.
fn plausible(uses: &[Use], text: &[u8], at: usize, found: &mut dyn FnMut(usize, &Use) -> bool) -> bool {
    uses.iter().filter(|u| u.plausible(text, at)).all(|u| found(at, u))
}

impl Group {
    fn new(members: &[(&[u8], Vec<Use>)]) -> Option<Self> {
        let patterns: Vec<Pattern> =
            members.iter().map(|(text, uses)| Pattern { text: (*text).into(), uses: uses.clone() }).collect();
        let texts = || patterns.iter().map(|p| &*p.text);
        let packed =
            packed::Config::new().match_kind(MatchKind::LeftmostLongest).builder().extend(texts()).build();
        let search = if let Some(searcher) = packed {
            Search::Packed(searcher)
        } else {
            let longest = aho_corasick::MatchKind::LeftmostLongest;
            Search::Automaton(AhoCorasick::builder().match_kind(longest).build(texts()).ok()?)
        };
        Some(Self { search, patterns })
    }

    fn next(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let hit = match &self.search {
            Search::Packed(s) => s.find_in(text, aho_corasick::Span { start: from, end: text.len() }),
            Search::Automaton(s) => s.find(aho_corasick::Input::new(text).range(from..)),
        };
        hit.map(|m| (m.start(), m.pattern().as_usize()))
    }

    fn each(&self, text: &[u8], found: &mut dyn FnMut(usize, &Use) -> bool) -> bool {
        let mut from = 0;
        while let Some((at, pattern)) = self.next(text, from) {
            if let Some(pattern) = self.patterns.get(pattern)
                && !plausible(&pattern.uses, text, at, found)
            {
                return false;
            }
            from = at + 1;
        }
        true
    }
}
