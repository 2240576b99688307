//! A walk over raw JSON: each string and each key, with where it stands, without building a tree. It visits members that
//! a parser would drop (a key that occurs twice), and it refuses what is nested or split beyond the limits.

use std::ops::Range;

/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// Most values.
pub const MAX_NODES: usize = 100_000;

/// Input that is too deep or has too many parts to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooComplex {
    #[error("arguments are nested deeper than {MAX_DEPTH} levels")]
    Depth,
    #[error("arguments have more than {MAX_NODES} values")]
    Nodes,
}

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    NotJson,
    TooComplex(TooComplex),
}

/// An array or an object that the walk is inside of.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    Array(usize),
    /// Range of the current key, without its quotes.
    Object(Range<usize>),
}

/// One string or number of the JSON text.
pub(super) struct Token<'w> {
    /// Where it stands, without its quotes.
    pub(super) span: Range<usize>,
    pub(super) is_key: bool,
    pub(super) is_number: bool,
    pub(super) path: &'w [Frame],
}

/// Calls `visit` with every string, key and number of `json`.
pub(super) fn walk(json: &[u8], visit: &mut dyn FnMut(&Token<'_>)) -> Result<(), Stop> {
    Walk { json, at: 0, nodes: 0, path: Vec::new() }.run(visit)
}

/// Checks the limits without looking at any string; what is not JSON has no depth.
pub(super) fn check(json: &[u8]) -> Result<(), TooComplex> {
    let deep = || memchr::memchr2_iter(b'[', b'{', json).nth(MAX_DEPTH).is_some();
    if json.len() / 2 < MAX_NODES && !deep() {
        return Ok(());
    }
    match walk(json, &mut |_| {}) {
        Err(Stop::TooComplex(why)) => Err(why),
        Ok(()) | Err(Stop::NotJson) => Ok(()),
    }
}

struct Walk<'a> {
    json: &'a [u8],
    at: usize,
    nodes: usize,
    path: Vec<Frame>,
}

impl Walk<'_> {
    fn run(mut self, visit: &mut dyn FnMut(&Token<'_>)) -> Result<(), Stop> {
        loop {
            self.value(visit)?;
            // Back out of everything that ends here, up to the next value.
            loop {
                let next = self.token();
                match (self.path.last_mut(), next) {
                    (None, None) => return Ok(()),
                    (Some(Frame::Array(index)), Some(b',')) => {
                        *index += 1;
                        break;
                    }
                    (Some(Frame::Object(_)), Some(b',')) => {
                        self.key(visit)?;
                        break;
                    }
                    (Some(Frame::Array(_)), Some(b']')) | (Some(Frame::Object(_)), Some(b'}')) => {
                        self.path.pop();
                    }
                    _ => return Err(Stop::NotJson),
                }
            }
        }
    }

    /// One scalar, or the beginnings of containers down to the first scalar or empty container.
    fn value(&mut self, visit: &mut dyn FnMut(&Token<'_>)) -> Result<(), Stop> {
        loop {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return Err(Stop::TooComplex(TooComplex::Nodes));
            }
            match self.token().ok_or(Stop::NotJson)? {
                b'"' => {
                    let span = self.string()?;
                    visit(&Token { span, is_key: false, is_number: false, path: &self.path });
                    return Ok(());
                }
                b'[' => {
                    if self.empty(b']') {
                        return Ok(());
                    }
                    self.enter(Frame::Array(0))?;
                }
                b'{' => {
                    if self.empty(b'}') {
                        return Ok(());
                    }
                    self.enter(Frame::Object(0..0))?;
                    self.key(visit)?;
                }
                b't' => return self.literal(b"rue"),
                b'f' => return self.literal(b"alse"),
                b'n' => return self.literal(b"ull"),
                b'-' | b'0'..=b'9' => {
                    let rest = self.json.get(self.at..).unwrap_or_default();
                    let number = |b: &&u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                    let start = self.at.saturating_sub(1);
                    self.at += rest.iter().take_while(number).count();
                    visit(&Token { span: start..self.at, is_key: false, is_number: true, path: &self.path });
                    return Ok(());
                }
                _ => return Err(Stop::NotJson),
            }
        }
    }

    fn enter(&mut self, frame: Frame) -> Result<(), Stop> {
        if self.path.len() == MAX_DEPTH {
            return Err(Stop::TooComplex(TooComplex::Depth));
        }
        self.path.push(frame);
        Ok(())
    }

    fn key(&mut self, visit: &mut dyn FnMut(&Token<'_>)) -> Result<(), Stop> {
        if self.token() != Some(b'"') {
            return Err(Stop::NotJson);
        }
        let span = self.string()?;
        if let Some(frame) = self.path.last_mut() {
            *frame = Frame::Object(span.clone());
        }
        visit(&Token { span, is_key: true, is_number: false, path: &self.path });
        if self.token() == Some(b':') { Ok(()) } else { Err(Stop::NotJson) }
    }

    /// The rest of a string whose opening quote was read; gives what stands between the quotes.
    fn string(&mut self) -> Result<Range<usize>, Stop> {
        let start = self.at;
        loop {
            let rest = self.json.get(self.at..).unwrap_or_default();
            let hit = memchr::memchr2(b'"', b'\\', rest).ok_or(Stop::NotJson)?;
            let end = self.at + hit;
            if rest.get(hit) == Some(&b'"') {
                self.at = end + 1;
                return Ok(start..end);
            }
            self.at = end + 2;
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Result<(), Stop> {
        if !self.json.get(self.at..).is_some_and(|r| r.starts_with(rest)) {
            return Err(Stop::NotJson);
        }
        self.at += rest.len();
        Ok(())
    }

    /// Takes `close` if it comes next.
    fn empty(&mut self, close: u8) -> bool {
        let before = self.at;
        let empty = self.token() == Some(close);
        if !empty {
            self.at = before;
        }
        empty
    }

    /// The next byte that is not white space.
    fn token(&mut self) -> Option<u8> {
        while let Some(byte) = self.json.get(self.at) {
            self.at += 1;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(json: &str) -> Result<Vec<String>, Stop> {
        let mut seen = Vec::new();
        walk(json.as_bytes(), &mut |t| {
            let kind = if t.is_key { "key " } else { "" };
            let kind = if t.is_number { "number " } else { kind };
            seen.push(format!("{kind}{}@{}", &json[t.span.clone()], t.path.len()));
        })?;
        Ok(seen)
    }

    #[test]
    fn every_string_and_key_is_visited_and_broken_text_is_none() {
        for (json, want) in [
            (r#""a""#, Ok(vec!["a@0"])),
            (
                r#" { "a" : [ "b", 1, true, null, {"c":"d\"e"} ], "a":"f" } "#,
                Ok(vec!["key a@1", "b@2", "number 1@2", "key c@3", r#"d\"e@3"#, "key a@1", "f@1"]),
            ),
            ("[[],{},-1.5e+3,[[]]]", Ok(vec!["number -1.5e+3@1"])),
            ("", Err(Stop::NotJson)),
            ("word", Err(Stop::NotJson)),
            (r#"{"a":"b""#, Err(Stop::NotJson)),
            (r#"{"a" "b"}"#, Err(Stop::NotJson)),
            (r#"["a",]"#, Err(Stop::NotJson)),
            (r#"["a"}"#, Err(Stop::NotJson)),
            (r#""a" "b""#, Err(Stop::NotJson)),
            (r#""a\"#, Err(Stop::NotJson)),
            ("[truely]", Err(Stop::NotJson)),
        ] {
            let got = strings(json);
            let want = want.map(|w: Vec<&str>| w.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(got, want, "{json}");
        }
    }

    #[test]
    fn depth_and_number_of_values_are_limited() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let wide = |n: usize| format!("[{}]", vec!["1"; n].join(","));
        for (json, want) in [
            (nested(MAX_DEPTH), Ok(())),
            (nested(MAX_DEPTH + 2), Err(TooComplex::Depth)),
            (r#"{"a":"#.repeat(MAX_DEPTH + 1), Err(TooComplex::Depth)),
            (wide(MAX_NODES - 1), Ok(())),
            (wide(MAX_NODES), Err(TooComplex::Nodes)),
        ] {
            assert_eq!(check(json.as_bytes()), want, "{}", &json[..20]);
        }
    }
}
