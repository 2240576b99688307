//! The forms in which a value is looked for (SCR-60). Every form is text that would appear verbatim if a program encoded
//! the value that way, alone or inside something longer.

use crate::reading::readings;
use crate::scanner::{MIN_DISTINCT, MIN_LENGTH};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// How a value was written where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    Plain,
    Base64,
    Base64Url,
    Hex,
    Percent,
    Json,
    JsonTwice,
    UnicodeEscape,
    HtmlEntity,
    Utf16Le,
    Reversed,
}

impl Form {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Hex => "hex",
            Self::Percent => "percent",
            Self::Json => "json",
            Self::JsonTwice => "json_twice",
            Self::UnicodeEscape => "unicode_escape",
            Self::HtmlEntity => "html_entity",
            Self::Utf16Le => "utf16le",
            Self::Reversed => "reversed",
        }
    }
}

/// One way to write a value.
pub(crate) struct FormText {
    pub form: Form,
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Every form of `value`, without repetitions; the plain one comes first.
pub(crate) fn forms(value: &str) -> Vec<FormText> {
    let mut list = List(Vec::with_capacity(40));
    list.add(Form::Plain, value.as_bytes().to_vec());
    base64(&mut list, value.as_bytes());
    list.add(Form::Hex, hex::encode(value).into_bytes());
    list.add(Form::Hex, hex::encode_upper(value).into_bytes());
    percent(&mut list, value.as_bytes());
    json(&mut list, value);
    unicode_escape(&mut list, value);
    html(&mut list, value);
    list.add(Form::Utf16Le, value.encode_utf16().flat_map(u16::to_le_bytes).collect());
    list.add(Form::Reversed, value.chars().rev().collect::<String>().into_bytes());
    // What a reading of a text holds of a value that has blanks or looks like an escape itself.
    for read in readings(value) {
        if is_matchable(&read) {
            list.add(Form::Plain, read);
        }
    }
    list.0
}

fn is_matchable(bytes: &[u8]) -> bool {
    bytes.len() >= MIN_LENGTH && bytes.iter().collect::<BTreeSet<_>>().len() >= MIN_DISTINCT
}

struct List(Vec<FormText>);

impl List {
    fn add(&mut self, form: Form, bytes: Vec<u8>) {
        let bytes = Zeroizing::new(bytes);
        if self.0.iter().all(|known| known.bytes != bytes) {
            self.0.push(FormText { form, bytes });
        }
    }
}

/// Both alphabets at the three byte alignments: the characters that depend on the value alone (it stands inside longer
/// data), and those up to the end with and without padding (the data ends with it). At alignments 1 and 2 the first
/// character mixes the value's first bits with the byte before and cannot be matched.
fn base64(list: &mut List, value: &[u8]) {
    for (form, engine) in [(Form::Base64, &STANDARD), (Form::Base64Url, &URL_SAFE)] {
        for alignment in 0..3usize {
            let mut data = Zeroizing::new(vec![0u8; alignment]);
            data.extend_from_slice(value);
            let padded = Zeroizing::new(engine.encode(data.as_slice()));
            let from = (8 * alignment).div_ceil(6);
            let inside = 8 * data.len() / 6;
            let unpadded = padded.trim_end_matches('=').len();
            for to in [inside, unpadded, padded.len()] {
                list.add(form, padded.as_bytes().get(from..to).unwrap_or_default().to_vec());
            }
        }
    }
}

fn percent(list: &mut List, value: &[u8]) {
    // RFC 3986 unreserved; what JavaScript's encodeURIComponent keeps beside it; what strict encoders keep.
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let component = |b: u8| unreserved(b) || b"!'()*".contains(&b);
    let alphanumeric = |b: u8| b.is_ascii_alphanumeric();
    let none = |_: u8| false;
    let keeps: [&dyn Fn(u8) -> bool; 4] = [&unreserved, &component, &alphanumeric, &none];
    for keep in keeps {
        for upper in [true, false] {
            let mut out = String::with_capacity(value.len() * 3);
            for &b in value {
                let _ = match (keep(b), upper) {
                    (true, _) => write!(out, "{}", char::from(b)),
                    (false, true) => write!(out, "%{b:02X}"),
                    (false, false) => write!(out, "%{b:02x}"),
                };
            }
            list.add(Form::Percent, out.into_bytes());
        }
    }
}

fn json(list: &mut List, value: &str) {
    let once = json_escaped(value);
    let slashes = once.replace('/', "\\/");
    list.add(Form::JsonTwice, json_escaped(&once).into_bytes());
    list.add(Form::JsonTwice, json_escaped(&slashes).into_bytes());
    list.add(Form::Json, once.into_bytes());
    list.add(Form::Json, slashes.into_bytes());
}

/// `text` as inside the quotes of a JSON string.
fn json_escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

fn unicode_escape(list: &mut List, value: &str) {
    let (mut lower, mut upper) = (String::new(), String::new());
    for unit in value.encode_utf16() {
        let _ = write!(lower, "\\u{unit:04x}");
        let _ = write!(upper, "\\u{unit:04X}");
    }
    list.add(Form::UnicodeEscape, lower.into_bytes());
    list.add(Form::UnicodeEscape, upper.into_bytes());
}

fn html(list: &mut List, value: &str) {
    for apostrophe in ["&#39;", "&#x27;", "&apos;"] {
        let mut named = String::new();
        for c in value.chars() {
            match c {
                '&' => named.push_str("&amp;"),
                '<' => named.push_str("&lt;"),
                '>' => named.push_str("&gt;"),
                '"' => named.push_str("&quot;"),
                '\'' => named.push_str(apostrophe),
                c => named.push(c),
            }
        }
        list.add(Form::HtmlEntity, named.into_bytes());
    }
    let (mut decimal, mut lower, mut upper) = (String::new(), String::new(), String::new());
    for c in value.chars().map(u32::from) {
        let _ = write!(decimal, "&#{c};");
        let _ = write!(lower, "&#x{c:x};");
        let _ = write!(upper, "&#x{c:X};");
    }
    for text in [decimal, lower, upper] {
        list.add(Form::HtmlEntity, text.into_bytes());
    }
}
