//! Replacing what was found, in text and in JSON; all bytes around stay as they are.

use super::FindingClass;
use super::decode;
use super::engine::Hit;
use super::walk::{self, Frame, Stop, TooComplex};
use std::borrow::Cow;
use std::ops::Range;

/// `text` with each specific hit replaced.
pub(super) fn text<'t>(text: &'t str, hits: &[Hit], marker: impl Fn(&Hit) -> String) -> Cow<'t, str> {
    let hits: Vec<Hit> = hits.iter().filter(|h| h.class == FindingClass::Specific).cloned().collect();
    spans(text, &hits, marker)
}

/// `text` with each hit replaced. A hit that ends within a character takes all of it.
pub(super) fn spans<'t>(text: &'t str, hits: &[Hit], marker: impl Fn(&Hit) -> String) -> Cow<'t, str> {
    let mut out = String::new();
    let mut kept = 0;
    for hit in hits {
        let span = text.floor_char_boundary(hit.span.start)..text.ceil_char_boundary(hit.span.end);
        if span.start >= kept && !span.is_empty() {
            out.push_str(text.get(kept..span.start).unwrap_or_default());
            out.push_str(&marker(hit));
        }
        kept = kept.max(span.end);
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

/// The object keys that a string of JSON text stands under.
pub(crate) struct Keys<'k> {
    json: &'k [u8],
    path: &'k [Frame],
    is_value: bool,
}

impl Keys<'_> {
    /// The key whose value the string is.
    pub(crate) fn own(&self) -> Option<Cow<'_, str>> {
        match (self.is_value, self.path.last()) {
            (true, Some(Frame::Object(key))) => Some(unescaped(self.json, key)),
            _ => None,
        }
    }

    /// Whether one of them is `wanted`.
    pub(crate) fn any(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.path.iter().any(|frame| match frame {
            Frame::Object(key) => wanted(&unescaped(self.json, key)),
            Frame::Array(_) => false,
        })
    }
}

/// Given a string and its keys, the text to put in its place.
pub(crate) type Edit<'e> = &'e mut dyn FnMut(&str, &Keys<'_>) -> Option<String>;

/// `json` with each string and key for which `edit` gives a new text replaced by it. What is not JSON is given to
/// `edit` as one text. With `numbers`, they are given too, and what stands for one is a string.
pub(super) fn json<'j>(json: &'j [u8], numbers: bool, edit: Edit<'_>) -> Result<Cow<'j, [u8]>, TooComplex> {
    let mut edits: Vec<(Range<usize>, bool, String)> = Vec::new();
    let walked = walk::walk(json, &mut |token| {
        if token.is_number && !numbers {
            return;
        }
        let above = token.path.len() - usize::from(token.is_key);
        let path = token.path.get(..above).unwrap_or_default();
        let keys = Keys { json, path, is_value: !token.is_key };
        if let Some(text) = edit(&unescaped(json, &token.span), &keys) {
            edits.push((token.span.clone(), token.is_number, text));
        }
    });
    match walked {
        Ok(()) => {}
        Err(Stop::TooComplex(why)) => return Err(why),
        Err(Stop::NotJson) => {
            let changed = edit(&String::from_utf8_lossy(json), &Keys { json, path: &[], is_value: false });
            return Ok(changed.map_or(Cow::Borrowed(json), |t| Cow::Owned(t.into_bytes())));
        }
    }
    if edits.is_empty() {
        return Ok(Cow::Borrowed(json));
    }
    let mut out = Vec::with_capacity(json.len());
    let mut kept = 0;
    for (span, is_number, text) in edits {
        out.extend_from_slice(json.get(kept..span.start).unwrap_or_default());
        let quoted = serde_json::Value::from(text).to_string();
        let bare = quoted.get(1..quoted.len() - 1).unwrap_or_default();
        // A number has no quotes of its own.
        out.extend_from_slice(if is_number { quoted.as_bytes() } else { bare.as_bytes() });
        kept = span.end;
    }
    out.extend_from_slice(json.get(kept..).unwrap_or_default());
    Ok(Cow::Owned(out))
}

fn unescaped<'j>(json: &'j [u8], span: &Range<usize>) -> Cow<'j, str> {
    let raw = json.get(span.clone()).unwrap_or_default();
    if memchr::memchr(b'\\', raw).is_none() {
        return String::from_utf8_lossy(raw);
    }
    Cow::Owned(String::from_utf8_lossy(&decode::unescape(raw).text).into_owned())
}
