//! Names of fields that hold credentials, and the shapes of text in which a name and its value stand.

use super::REDACTED;
use regex::{Captures, Regex};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Names of secret fields, in lower case and without separators.
const NAMES: [&str; 20] = [
    "password",
    "passwd",
    "secret",
    "token",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "authorization",
    "authtoken",
    "cookie",
    "setcookie",
    "apikey",
    "xapikey",
    "clientsecret",
    "privatekey",
    "code",
    "codeverifier",
    "webhooksignature",
    "xmcpproxyauth",
    "proxyauthorization",
];

/// The same as a regex, any case, with `-`, `_` or nothing between the words.
const NAME: &str = "password|passwd|secret|(?:access|refresh|id|auth)[-_]?token|token|(?:proxy[-_]?)?authorization\
    |(?:set[-_]?)?cookie|(?:x[-_]?)?api[-_]?key|client[-_]?secret|private[-_]?key|code[-_]?verifier|code\
    |webhook[-_]?signature|x[-_]?mcp[-_]?proxy[-_]?auth";

/// Whether a field of this name is a secret; of a dotted name (`http.request.header.cookie`) the last part counts.
pub fn is_secret_name(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let squeezed = last.bytes().filter(|b| !matches!(b, b'-' | b'_')).map(|b| b.to_ascii_lowercase());
    NAMES.iter().any(|n| n.bytes().eq(squeezed.clone()))
}

/// Colour codes of a terminal, which stand between name and value there.
const ANSI: &str = r"(?:\x1b\[[0-9;]*m)*";

/// `name=value`, and `name: value` where the value is quoted or the name can mean nothing else. Header lines of
/// credentials go to their end.
static PAIRS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // What is masked already is taken whole, or its closing bracket would be left over.
    let value = r#"\[REDACTED\][^\s,;&"'<>)\]}]*|"(?:[^"\\]|\\.)*"?|'[^']*'?|(?:Bearer|Basic|Digest)\s+[^\s,;"']+|[^\s,;&"'<>)\]}]+"#;
    let quoted = r#"\\?"(?:[^"\\]|\\[^"])*(?:\\?")?|'[^']*'?"#;
    Regex::new(&format!(
        r#"(?i)(^|[^\w-]|\x1b\[[0-9;]*m)((?:{NAME})\\?["']?{ANSI}={ANSI})(?:{value})|(^|[^\w-])((?:{NAME})\\?["']?\s*:\s*)(?:{quoted})|(^|[^\w-])((?:(?:proxy[-_]?)?authorization|(?:set[-_]?)?cookie):\s*)[^\r\n"]+|(^|[^\w-])((?:password|passwd|(?:access|refresh|id|auth)[-_]?token|(?:x[-_]?)?api[-_]?key|client[-_]?secret|private[-_]?key|code[-_]?verifier|webhook[-_]?signature|x[-_]?mcp[-_]?proxy[-_]?auth):\s*)[^\s,;"'<>)\]}}]+"#
    ))
    .ok()
});

/// Numbers and the like under a secret name in JSON, which no string edit reaches.
static NUMBERS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!(r#"(?i)("(?:[a-z0-9_.-]*\.)?(?:{NAME})"\s*:\s*)-?[0-9][0-9.eE+-]*"#)).ok()
});

/// Tokens by their shape alone: JWTs and our own API keys, also cut ones.
static TOKENS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_.-]*|sp-live-[A-Za-z0-9_-]{4,}").ok()
});

pub(super) fn mask_pairs(text: &str) -> Cow<'_, str> {
    replace(PAIRS.as_ref(), text, |found| {
        let part = |at: usize| found.get(at).map_or("", |m| m.as_str());
        let head: String = (1..=8).map(part).collect();
        format!("{head}{REDACTED}")
    })
}

pub(super) fn mask_numbers(json: &str) -> Cow<'_, str> {
    replace(NUMBERS.as_ref(), json, |found| {
        format!("{}\"{REDACTED}\"", found.get(1).map_or("", |m| m.as_str()))
    })
}

pub(super) fn mask_tokens(text: &str) -> Cow<'_, str> {
    replace(TOKENS.as_ref(), text, |_| REDACTED.to_owned())
}

/// Without the regex nothing may be written.
fn replace<'t>(regex: Option<&Regex>, text: &'t str, by: impl Fn(&Captures<'_>) -> String) -> Cow<'t, str> {
    match regex {
        Some(regex) => regex.replace_all(text, by),
        None => Cow::Borrowed(REDACTED),
    }
}
