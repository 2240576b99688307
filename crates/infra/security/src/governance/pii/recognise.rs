//! The recognisers of personal data: a pattern, a check that tells whether what fits it is real, and words that stand near it.

use crate::governance::scan::Confidence;
use regex::Regex;
use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

const PHONE_ID: &str = "pii-phone";
pub(super) const CARD_ID: &str = "pii-payment-card";
const IBAN_ID: &str = "pii-iban";
/// A run of letters and digits of this length is base64 or the like: nothing that is looked for stands in one.
const LONG_WORD: usize = 256;
/// Digits of the shortest group that cards are written in.
const SHORTEST_GROUP: usize = 3;
/// How far a word may stand from what it explains, in bytes.
const CONTEXT: usize = 48;

/// What the check of a recogniser says of a match.
enum Check {
    /// Its check digits, or the form itself, vouch for it.
    Valid,
    /// It has the form; a word near it must explain it.
    Plausible,
    /// It is none.
    No,
}

pub(super) struct Recogniser {
    id: &'static str,
    pattern: &'static LazyLock<Option<Regex>>,
    check: fn(&str) -> Check,
    words: &'static [&'static str],
    /// Where a match that is too long may end.
    cuts: &'static [char],
}

macro_rules! pattern {
    ($name:ident, $text:literal) => {
        // A test compiles all of them.
        static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());
    };
}

pattern!(
    EMAIL,
    r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}"
);
pattern!(CARD, r"[1-6](?:[ .-]?[0-9]){11,18}");
pattern!(IBAN, r"[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}");
pattern!(IPV4, r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:/[0-9]{1,2})?");
pattern!(
    IPV6,
    r"[0-9A-Fa-f:]{0,39}:(?:[0-9A-Fa-f:.]{0,40}[0-9A-Fa-f:])?(?:%[0-9A-Za-z]{1,16})?(?:/[0-9]{1,3})?"
);
pattern!(SSN, r"[0-9]{3}[- .][0-9]{2}[- .][0-9]{4}|[0-9]{9}|[0-9]{5}-[0-9]{4}|[0-9]{3}-[0-9]{6}");
pattern!(PHONE, r"(?:\+[0-9]{1,3}[ .-]?)?(?:\([0-9]{1,5}\)[ .-]?)?[0-9]{1,12}(?:[ .-][0-9]{1,8}){0,6}");

const GROUPS: &[char] = &[' ', '-', '.'];

pub(super) static RECOGNISERS: [Recogniser; 7] = [
    Recogniser { id: "pii-email", pattern: &EMAIL, check: email, words: &[], cuts: GROUPS },
    Recogniser { id: CARD_ID, pattern: &CARD, check: card, words: &[], cuts: GROUPS },
    Recogniser { id: IBAN_ID, pattern: &IBAN, check: iban, words: &["iban", "account"], cuts: GROUPS },
    Recogniser {
        id: "pii-ipv4",
        pattern: &IPV4,
        check: ipv4,
        words: &["ip", "address", "ipv4"],
        cuts: &['/'],
    },
    Recogniser {
        id: "pii-ipv6",
        pattern: &IPV6,
        check: ipv6,
        words: &["ip", "address", "ipv6"],
        cuts: &['/', '%'],
    },
    Recogniser {
        id: "pii-us-ssn",
        pattern: &SSN,
        check: ssn,
        words: &["ssn", "ssns", "social", "security", "ssid"],
        cuts: GROUPS,
    },
    Recogniser {
        id: PHONE_ID,
        pattern: &PHONE,
        check: phone,
        words: &["phone", "telephone", "number", "mobile", "cell", "cellphone", "call", "tel", "fax"],
        cuts: GROUPS,
    },
];

/// Whether bytes can hold any: an at sign, a colon between hexadecimal digits, or seven digits.
pub(super) fn may_hold(text: &[u8]) -> bool {
    memchr::memchr2(b'@', b':', text).is_some() || text.iter().filter(|b| b.is_ascii_digit()).nth(3).is_some()
}

impl Recogniser {
    pub(super) fn id(&self) -> &'static str {
        self.id
    }

    pub(super) fn find(&self, text: &str, found: &mut dyn FnMut(Range<usize>, Confidence)) {
        let Some(pattern) = self.pattern.as_ref() else { return };
        let mut from = 0;
        while let Some(hit) = pattern.find_at(text, from) {
            let mut before = text.get(..hit.start()).unwrap_or_default().chars().rev();
            let mut after = text.get(hit.end()..).unwrap_or_default().chars();
            // A pattern takes as much as it can; what is too long by a group may still begin with one that is right.
            let span = match (joins(&mut before), joins(&mut after)) {
                (true, _) => None,
                (false, true) => self.shorter(text, &hit.range()),
                (false, false) => Some(hit.range()),
            };
            let Some((span, check)) = span.and_then(|span| self.longest(text, span)) else {
                from = self.next(text, &hit.range());
                continue;
            };
            from = span.end.max(hit.start() + 1);
            let confidence = match check {
                // One sum in ten is right by chance, and groups of an account number are many.
                Check::Valid if self.id == CARD_ID && follows_account_head(text, span.start) => {
                    Confidence::Low
                }
                Check::Valid => Confidence::High,
                _ if self.explained(text, &span) => Confidence::Medium,
                _ => Confidence::Low,
            };
            // Numbers in groups are everywhere.
            let is_bare =
                self.id == PHONE_ID && !text.get(span.clone()).is_some_and(|t| t.starts_with(['+', '(']));
            if !(is_bare && confidence == Confidence::Low) {
                found(span, confidence);
            }
        }
    }

    /// The longest part from the match's start that the check lets stand and that ends where a group ends.
    fn longest(&self, text: &str, mut span: Range<usize>) -> Option<(Range<usize>, Check)> {
        loop {
            match (self.check)(text.get(span.clone())?) {
                Check::No => span = self.shorter(text, &span)?,
                check => return Some((span, check)),
            }
        }
    }

    /// The match without its last group.
    fn shorter(&self, text: &str, span: &Range<usize>) -> Option<Range<usize>> {
        let part = text.get(span.clone())?;
        // The groups of any long number look like a telephone's; only what is parted in another way than its own groups is another.
        let cut = if self.id == PHONE_ID && !part.starts_with(['+', '(']) {
            part.rfind(' ').filter(|cut| part.find(' ') == Some(*cut))
        } else {
            part.rfind(self.cuts)
        };
        let cut = cut.filter(|cut| *cut > 0)?;
        Some(span.start..span.start + cut)
    }

    /// Where to look on behind a match that is none: words that look like the beginning of an account number, and numbers too short
    /// for a card's group, must not take along what stands behind them.
    fn next(&self, text: &str, span: &Range<usize>) -> usize {
        let part = text.get(span.clone()).unwrap_or_default();
        let mut groups = part.split(self.cuts);
        let first = groups.next().unwrap_or_default().len() + 1;
        let skipped = match self.id {
            IBAN_ID => first,
            CARD_ID if first <= SHORTEST_GROUP => {
                first + groups.map(|g| g.len() + 1).take_while(|g| *g <= SHORTEST_GROUP).sum::<usize>()
            }
            _ => part.len(),
        };
        span.start + skipped.min(part.len())
    }

    fn explained(&self, text: &str, span: &Range<usize>) -> bool {
        let start = text.floor_char_boundary(span.start.saturating_sub(CONTEXT));
        let end = text.ceil_char_boundary((span.end + CONTEXT).min(text.len()));
        let near = text.get(start..end).unwrap_or_default().to_lowercase();
        near.split(|c: char| !c.is_alphanumeric()).any(|word| self.words.contains(&word))
    }
}

/// Whether the characters beside a match, the nearest first, make it part of something longer.
fn joins(beside: &mut dyn Iterator<Item = char>) -> bool {
    match beside.next() {
        Some('.') => beside.next().is_some_and(|c| c.is_ascii_digit()),
        beside => beside.is_some_and(char::is_alphanumeric),
    }
}

/// Whether the group before is the head of an account number: two letters and two digits.
fn follows_account_head(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let word =
        before.strip_suffix([' ', '-']).unwrap_or_default().rsplit(|c: char| !c.is_alphanumeric()).next();
    let Some(&[a, b, c, d]) = word.map(str::as_bytes) else { return false };
    a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && c.is_ascii_digit() && d.is_ascii_digit()
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> + '_ {
    text.chars().filter_map(|c| c.to_digit(10))
}

fn email(text: &str) -> Check {
    let (local, domain) = text.rsplit_once('@').unwrap_or_default();
    if local.contains("..") || local.ends_with('.') || domain.contains("..") {
        Check::No
    } else {
        Check::Valid
    }
}

/// As many digits as the issuers that begin with the first one give out, with a valid Luhn sum, not all the same.
fn card(text: &str) -> Check {
    let count = digits(text).count();
    let Some(first) = digits(text).next() else { return Check::No };
    let is_issued = match first {
        1 => count == 15,
        2 => count == 16,
        3 => (14..=16).contains(&count),
        4 => matches!(count, 13 | 16 | 19),
        5 | 6 => (12..=19).contains(&count),
        _ => false,
    };
    if !is_issued || digits(text).all(|digit| digit == first) || !groups_are_even(text) {
        return Check::No;
    }
    let sum: u32 = digits(text)
        .rev()
        .zip([false, true].into_iter().cycle())
        .map(|(digit, double)| match (double, digit * 2) {
            (false, _) => digit,
            (true, twice) if twice > 9 => twice - 9,
            (true, twice) => twice,
        })
        .sum();
    if sum.is_multiple_of(10) { Check::Valid } else { Check::No }
}

/// Cards are written in groups of three digits and more.
fn groups_are_even(text: &str) -> bool {
    // A point parts the digits of a fraction, too: with points it is four digits first, and three groups at least.
    let pointed = text.contains('.');
    let mut groups = text.split([' ', '-', '.']);
    let four = groups.clone().next().is_some_and(|group| group.len() == 4);
    (!pointed || four && groups.clone().count() >= 3) && groups.all(|group| group.len() >= SHORTEST_GROUP)
}

/// Whether a JSON number is a card's. Points in time and ids are numbers as well, and one in ten has a valid sum: here the beginning
/// and the length have to be those of an issuer.
pub(super) fn is_card_number(number: &str) -> bool {
    let begins = |from: usize, to: usize| {
        let head = number.get(..to.to_string().len()).and_then(|head| head.parse().ok());
        head.is_some_and(|head: usize| (from..=to).contains(&head))
    };
    let is_issued = match number.len() {
        14 => begins(300, 305) || begins(36, 36) || begins(38, 39),
        15 => begins(34, 34) || begins(37, 37),
        16 => {
            begins(4, 4)
                || begins(51, 55)
                || begins(2221, 2720)
                || begins(6011, 6011)
                || begins(644, 659)
                || begins(3528, 3589)
        }
        _ => false,
    };
    is_issued && number.bytes().all(|b| b.is_ascii_digit()) && matches!(card(number), Check::Valid)
}

/// The text with its long runs of letters and digits blanked out, at the same length.
pub(super) fn without_long_words(text: &str) -> Cow<'_, str> {
    if text.len() < LONG_WORD {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut kept = 0;
    let mut at = 0;
    for word in text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_'))) {
        let end = at + word.len();
        if word.len() > LONG_WORD && word.bytes().any(|b| b.is_ascii_alphabetic()) {
            let run = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
            out.push_str(text.get(kept..at).unwrap_or_default());
            out.extend(std::iter::repeat_n('x', run));
            kept = at + run;
        }
        at = end;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

/// ISO 13616: the country's letters and check digits moved behind, letters as numbers, modulo 97 is one. The number is as long as its
/// country's are; of a country that is not in the registry it is an IBAN only if a word says so.
fn iban(text: &str) -> Check {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let is_lower = plain.bytes().any(|b| b.is_ascii_lowercase());
    if !(15..=34).contains(&plain.len()) || is_lower && plain.bytes().any(|b| b.is_ascii_uppercase()) {
        return Check::No;
    }
    let country = plain.get(..2).unwrap_or_default().to_ascii_uppercase();
    let length = IBAN_LENGTHS.iter().find(|(_, of)| of.split(' ').any(|c| c == country));
    let (head, tail) = plain.split_at(4);
    let rest = tail.chars().chain(head.chars()).filter_map(|c| c.to_digit(36));
    let sum = rest
        .fold(0u32, |sum, value| if value > 9 { (sum * 100 + value) % 97 } else { (sum * 10 + value) % 97 });
    match length {
        Some((length, _)) if *length == plain.len() && sum == 1 => Check::Valid,
        // In lower case much else looks like one.
        None if sum == 1 && !is_lower => Check::Plausible,
        _ => Check::No,
    }
}

/// Lengths of the IBAN registry, with their countries.
const IBAN_LENGTHS: [(usize, &str); 18] = [
    (15, "NO"),
    (16, "BE"),
    (18, "DK FI FO GL NL SD FK"),
    (19, "MK SI"),
    (20, "AT BA EE KZ LT LU XK MN"),
    (21, "CH HR LI LV"),
    (22, "BG BH CR DE GB GE IE ME RS VA"),
    (23, "AE GI IL IQ OM TL SO"),
    (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
    (25, "LY PT ST"),
    (26, "IS TR"),
    (27, "FR GR IT MC MR SM BI DJ"),
    (28, "AL AZ BY CY DO GT HN HU LB NI PL SV"),
    (29, "BR EG PS QA UA"),
    (30, "JO KW MU YE"),
    (31, "MT SC"),
    (32, "LC"),
    (33, "RU"),
];

fn ipv4(text: &str) -> Check {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let told: Result<Ipv4Addr, _> = address.parse();
    match (told, prefix.parse::<u8>()) {
        (Ok(_), Ok(..=32)) => Check::Valid,
        _ => Check::No,
    }
}

fn ipv6(text: &str) -> Check {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "128"));
    let (address, _zone) = address.split_once('%').unwrap_or((address, ""));
    if address.parse::<Ipv6Addr>().is_err() || !prefix.parse::<u8>().is_ok_and(|bits| bits <= 128) {
        return Check::No;
    }
    // Times and names of modules (`12:30:00`, `a::b`) look like it; three groups, a whole one with a digit, or the form of the other
    // version within do not.
    let mut groups = address.split(':').filter(|g| !g.is_empty());
    let is_whole = |group: &str| group.len() == 4 && group.bytes().any(|b| b.is_ascii_digit());
    if groups.clone().count() >= 3 || address == "::1" || address.contains('.') {
        Check::Valid
    } else if address == "::" || groups.any(is_whole) {
        Check::Plausible
    } else {
        Check::No
    }
}

/// Numbers that are given out: no area 000, 666 or 9xx, no zero group.
fn ssn(text: &str) -> Check {
    let all: String = digits(text).filter_map(|d| char::from_digit(d, 10)).collect();
    let part = |range: Range<usize>| all.get(range).unwrap_or_default();
    let mut separators = text.chars().filter(|c| !c.is_ascii_digit());
    let first = separators.next();
    let (area, group, serial) = (part(0..3), part(3..5), part(5..9));
    let wrong = all.len() != 9
        || matches!(area, "000" | "666")
        || area.starts_with('9')
        || group == "00"
        || serial == "0000"
        || matches!(&*all, "123456789" | "078051120" | "987654320")
        || separators.any(|c| Some(c) != first);
    if wrong { Check::No } else { Check::Plausible }
}

/// Seven to fifteen digits that are written as a number is: a country's code, brackets, or two separators.
fn phone(text: &str) -> Check {
    let count = digits(text).count();
    let groups = text.split([' ', '-', '.', '(', ')']).filter(|g| !g.is_empty()).count();
    let looks =
        text.starts_with('+') || text.contains('(') || (groups >= 2 && text.contains(['-', ' ', '.']));
    let is_date = groups == 3 && text.split(['-', '.']).next().is_some_and(|y| y.len() == 4);
    if !(7..=15).contains(&count) || !looks || is_date || Ipv4Addr::parses(text) {
        return Check::No;
    }
    Check::Plausible
}

trait Parses {
    fn parses(text: &str) -> bool;
}

impl Parses for Ipv4Addr {
    fn parses(text: &str) -> bool {
        text.parse::<Self>().is_ok()
    }
}
