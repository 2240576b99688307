//! Secrets in text and JSON (SEC-85 to SEC-87). The scanner says where a secret stands and by which rule, never what it
//! is: the match is not kept, only a keyed digest of it.
//!
//! A segment is first looked at as raw bytes (`prefilter`); only where something could be is the JSON walked and a
//! string decoded. Longer segments that were judged before are recognised (`cache`).

mod cache;
mod checksum;
mod decode;
mod engine;
mod entropy;
mod fold;
mod keywords;
mod mapped;
mod prefilter;
mod redact;
mod rules;
mod stream;
mod walk;

#[cfg(test)]
mod tests;

pub use rules::RuleError;
pub use stream::{OVERLAP, StreamScanner};
pub use walk::{MAX_DEPTH, MAX_NODES, TooComplex};

use crate::governance::facts::Segment;
use aws_lc_rs::{hmac, rand};
use engine::{Engine, Hit};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use systemprompt_audit::payload::Redact;
use walk::{Frame, Stop, Token};

/// Most findings that one segment gives; further ones are not looked for.
pub const MAX_FINDINGS: usize = 256;
/// Longest object key that is spelled out in a pointer, in bytes.
const MAX_KEY: usize = 128;

/// How much a rule knows: specific rules know a provider's format, generic ones only what secrets look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingClass {
    Specific,
    Generic,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// It looks like a secret.
    Low,
    /// It has the format of one.
    Medium,
    /// Its checksum is right.
    High,
}

/// A secret that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub rule_id: Arc<str>,
    pub class: FindingClass,
    /// JSON pointer (RFC 6901) to the string, or to the member whose key it is. A key that holds a secret is masked.
    pub pointer: Arc<str>,
    /// Where it begins in the string's text, in bytes; of an encoded secret, where the encoded text begins.
    pub offset: usize,
    /// Its length there, in bytes.
    pub length: usize,
    pub confidence: Confidence,
    /// Hex of a keyed digest of the secret: equal secrets are told by it, and nothing else.
    pub hmac: Box<str>,
    /// The entry of the allow list that lets it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<Arc<str>>,
    /// Which segment of the call holds it.
    #[serde(skip)]
    pub segment: Option<usize>,
    /// Whether it is why the call is refused.
    #[serde(skip)]
    pub blocks: bool,
}

impl Finding {
    /// What a redacted secret is replaced by: the same for the same secret and key.
    pub fn marker(&self) -> String {
        marker(&self.rule_id, &self.hmac)
    }
}

fn marker(rule: &str, hmac: &str) -> String {
    format!("[secret:{rule}:{}]", hmac.get(..8).unwrap_or_default())
}

/// Is given a string and what makes its pointer.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(&str, &dyn Fn() -> Arc<str>);

/// The key of the digests of found secrets.
struct FindingKey(hmac::Key);

impl FindingKey {
    fn digest(&self, secret: &[u8]) -> Box<str> {
        let tag = hmac::sign(&self.0, secret);
        hex::encode(tag.as_ref().get(..16).unwrap_or_default()).into()
    }
}

/// The secret rules, compiled, with the verdicts of text that was judged before. Share it in an `Arc`.
pub struct SecretScanner {
    rules: Arc<rules::RuleSet>,
    folding: Arc<fold::Folding>,
    key: FindingKey,
    generic: Arc<str>,
    cache: cache::VerdictCache,
}

impl SecretScanner {
    /// The scanner of the built-in rules. Digests of findings are under a key of this process.
    pub fn builtin() -> Result<Self, RuleError> {
        let mut key = [0; 32];
        rand::fill(&mut key).map_err(|_| RuleError::Random)?;
        Self::builtin_with_key(&key)
    }

    /// The scanner of the built-in rules, with a key for digests of findings that outlives the process: markers of
    /// redacted secrets then stay the same after a restart and on every node.
    pub fn builtin_with_key(key: &[u8]) -> Result<Self, RuleError> {
        let rules = rules::RuleSet::parse(&rules::BUILTIN)?;
        let cache = cache::VerdictCache::new(&rules.version)?;
        Ok(Self {
            rules: Arc::new(rules),
            folding: Arc::new(fold::Folding::new()),
            key: FindingKey(hmac::Key::new(hmac::HMAC_SHA256, key)),
            generic: entropy::GENERIC.into(),
            cache,
        })
    }

    /// The same rules with another key for digests of findings, without compiling them again.
    ///
    /// # Errors
    /// When the random generator of the operating system failed.
    pub fn with_key(&self, key: &[u8]) -> Result<Self, RuleError> {
        Ok(Self {
            rules: Arc::clone(&self.rules),
            folding: Arc::clone(&self.folding),
            key: FindingKey(hmac::Key::new(hmac::HMAC_SHA256, key)),
            generic: Arc::clone(&self.generic),
            cache: cache::VerdictCache::new(&self.rules.version)?,
        })
    }

    /// Digest of the rule set, 32 hex digits.
    pub fn version(&self) -> &str {
        &self.rules.version
    }

    /// Ids and providers of all rules, the generic one excepted.
    pub fn rules(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rules.rules.iter().map(|r| (&*r.id, &*r.provider))
    }

    /// Whether `id` names a rule.
    pub fn knows(&self, id: &str) -> bool {
        id == entropy::GENERIC || self.rules().any(|(rule, _)| rule == id)
    }

    /// The secrets of a segment. What is not JSON is read as text.
    pub fn scan_segment(&self, segment: &Segment<'_>) -> Result<Vec<Finding>, TooComplex> {
        let digest = self.cache.digest(segment.json);
        if let Some(known) = digest.as_ref().and_then(|d| self.cache.get(d)) {
            return Ok(known.iter().map(|f| below(&segment.pointer, f)).collect());
        }
        let findings = self.look(segment.json)?;
        if let Some(digest) = digest {
            self.cache.put(digest, &findings);
        }
        Ok(findings.iter().map(|f| below(&segment.pointer, f)).collect())
    }

    /// The secrets of plain text; pointers are empty.
    pub fn scan_text(&self, text: &str) -> Vec<Finding> {
        let root: Arc<str> = "".into();
        self.hits_in_text(text.as_bytes()).into_iter().map(|hit| finding(hit, &root)).collect()
    }

    fn hits_in_text(&self, text: &[u8]) -> Vec<Hit> {
        if prefilter::places(&self.rules, &self.folding, text).is_empty() {
            return Vec::new();
        }
        self.engine().scan(text)
    }

    /// Whether text holds anything that a specific rule knows.
    pub fn has_secret(&self, text: &str) -> bool {
        self.scan_text(text).iter().any(|f| f.class == FindingClass::Specific)
    }

    /// Text with every secret that a specific rule knows replaced by its marker.
    pub fn redact_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.replace(text, |hit| marker(&hit.rule, &hit.hmac))
    }

    /// Text with every secret that a specific rule knows replaced by `mask`.
    pub fn mask_text<'t>(&self, text: &'t str, mask: &str) -> Cow<'t, str> {
        self.replace(text, |_| mask.to_owned())
    }

    fn replace<'t>(&self, text: &'t str, by: impl Fn(&Hit) -> String) -> Cow<'t, str> {
        if prefilter::places(&self.rules, &self.folding, text.as_bytes()).is_empty() {
            return Cow::Borrowed(text);
        }
        redact::text(text, &self.engine().scan(text.as_bytes()), by)
    }

    /// JSON with every secret that a specific rule knows replaced by its marker, in strings and in keys; all other
    /// bytes stay. What is not JSON is treated as text.
    pub fn redact_json<'j>(&self, json: &'j [u8]) -> Result<Cow<'j, [u8]>, TooComplex> {
        self.redact_json_where(json, &|finding| finding.class == FindingClass::Specific)
    }

    /// JSON with every secret replaced by its marker whose finding `replaced` names; pointers begin at `json`.
    pub fn redact_json_where<'j>(
        &self,
        json: &'j [u8],
        replaced: &dyn Fn(&Finding) -> bool,
    ) -> Result<Cow<'j, [u8]>, TooComplex> {
        let root: Arc<str> = "".into();
        redact::json(json, true, &mut |text, keys| {
            let mut hits = self.member(keys.own().as_deref().map(str::as_bytes), text.as_bytes());
            hits.retain(|hit| replaced(&finding(hit.clone(), &root)));
            match redact::spans(text, &hits, |hit| marker(&hit.rule, &hit.hmac)) {
                Cow::Borrowed(_) => None,
                Cow::Owned(changed) => Some(changed),
            }
        })
    }

    /// The secrets of a string, with those that only its name in an object tells.
    fn member(&self, key: Option<&[u8]>, value: &[u8]) -> Vec<Hit> {
        let mut hits = self.engine().scan(value);
        let Some(key) = key.filter(|key| self.rules.keywords.any(key)) else { return hits };
        let mut text = Vec::with_capacity(key.len() + value.len() + 3);
        text.extend_from_slice(key);
        text.extend_from_slice(b"=\"");
        let start = text.len();
        text.extend_from_slice(value);
        text.push(b'"');
        let within = self.engine().scan(&text).into_iter();
        let within = within.filter(|hit| hit.span.start >= start && hit.span.end <= start + value.len());
        hits.extend(within.map(|hit| Hit { span: hit.span.start - start..hit.span.end - start, ..hit }));
        engine::once(hits)
    }

    /// JSON with the strings and keys replaced for which `edit`, given the text and the keys above it, returns a new
    /// text.
    pub(crate) fn edit_json<'j>(json: &'j [u8], edit: redact::Edit<'_>) -> Result<Cow<'j, [u8]>, TooComplex> {
        redact::json(json, false, edit)
    }

    /// Calls `visit` with every string and key of a segment, decoded, and what gives its pointer within it. What is not JSON is one
    /// text.
    pub(crate) fn strings(&self, json: &[u8], visit: Visit<'_>) -> Result<(), TooComplex> {
        let walked = walk::walk(json, &mut |token| {
            if token.is_number {
                return;
            }
            let text = string(json, &token.span);
            visit(&String::from_utf8_lossy(&text), &|| self.pointer(json, token.path));
        });
        match walked {
            Ok(()) => {}
            Err(Stop::TooComplex(why)) => return Err(why),
            Err(Stop::NotJson) => visit(&String::from_utf8_lossy(json), &|| "".into()),
        }
        Ok(())
    }

    /// Calls `visit` with every number of a segment as it is written, and what gives its pointer. What is not JSON has none.
    pub(crate) fn numbers(&self, json: &[u8], visit: Visit<'_>) {
        // What ends the walk early is told by whoever walks the strings.
        let _ = walk::walk(json, &mut |token| {
            if token.is_number {
                visit(&String::from_utf8_lossy(json.get(token.span.clone()).unwrap_or_default()), &|| {
                    self.pointer(json, token.path)
                });
            }
        });
    }

    /// The text without disguise and invisible characters, and what leads a place in it back; none if it has none of these.
    pub(crate) fn plain_text(&self, text: &str) -> Option<(String, impl Fn(Range<usize>) -> Range<usize>)> {
        let mut folded = self.folding.fold(text.as_bytes())?;
        let plain = String::from_utf8(std::mem::take(&mut folded.text)).ok()?;
        Some((plain, move |span| folded.origin(span)))
    }

    /// A finding of another policy, with the digest that the same text has everywhere.
    pub(crate) fn finding_of(
        &self,
        rule: &str,
        (text, span): (&str, Range<usize>),
        pointer: Arc<str>,
        confidence: Confidence,
    ) -> Finding {
        Finding {
            rule_id: rule.into(),
            class: FindingClass::Generic,
            pointer,
            offset: span.start,
            length: span.len(),
            confidence,
            hmac: self.key.digest(text.get(span).unwrap_or_default().as_bytes()),
            allowed_by: None,
            segment: None,
            blocks: false,
        }
    }

    /// A digest of a block of a conversation, the same on every node of the deployment.
    pub fn block_digest(&self, json: &[u8]) -> String {
        self.key.digest(json).into()
    }

    fn engine(&self) -> Engine<'_> {
        Engine { rules: &self.rules, folding: &self.folding, key: &self.key, generic: &self.generic }
    }

    /// Findings with pointers that begin at the segment.
    fn look(&self, json: &[u8]) -> Result<Vec<Finding>, TooComplex> {
        let places = prefilter::places(&self.rules, &self.folding, json);
        if places.is_empty() {
            walk::check(json)?;
            return Ok(Vec::new());
        }
        self.full(json, &|token| places.touch(&token.span))
    }

    /// The walk, over the strings that `wanted` names.
    fn full(&self, json: &[u8], wanted: &dyn Fn(&Token<'_>) -> bool) -> Result<Vec<Finding>, TooComplex> {
        let mut findings = Vec::new();
        let walked = walk::walk(json, &mut |token| {
            if findings.len() >= MAX_FINDINGS {
                return;
            }
            let key = match token.path.last() {
                Some(Frame::Object(key)) if !token.is_key => Some(key.clone()),
                _ => None,
            };
            let key = key.filter(|key| {
                wanted(&Token { span: key.clone(), is_key: true, is_number: false, path: token.path })
            });
            if key.is_none() && !wanted(token) {
                return;
            }
            let key = key.map(|span| string(json, &span));
            let hits = self.member(key.as_deref(), &string(json, &token.span));
            if !hits.is_empty() {
                let pointer = self.pointer(json, token.path);
                findings.extend(hits.into_iter().map(|hit| finding(hit, &pointer)));
            }
        });
        match walked {
            Ok(()) => {}
            Err(Stop::TooComplex(why)) => return Err(why),
            Err(Stop::NotJson) => {
                let root: Arc<str> = "".into();
                findings = self.engine().scan(json).into_iter().map(|hit| finding(hit, &root)).collect();
            }
        }
        findings.truncate(MAX_FINDINGS);
        Ok(findings)
    }

    /// JSON pointer of a path. Keys that hold a secret are masked, long ones cut.
    fn pointer(&self, json: &[u8], path: &[Frame]) -> Arc<str> {
        let mut pointer = String::new();
        for frame in path {
            pointer.push('/');
            match frame {
                Frame::Array(index) => {
                    let _ = write!(pointer, "{index}");
                }
                Frame::Object(key) => {
                    let key = decode::unescape(json.get(key.clone()).unwrap_or_default()).text;
                    let key = String::from_utf8_lossy(&key);
                    let key =
                        redact::text(&key, &self.engine().scan(key.as_bytes()), |h| marker(&h.rule, &h.hmac));
                    pointer.push_str(&cut(&key).replace('~', "~0").replace('/', "~1"));
                }
            }
        }
        pointer.into()
    }
}

/// Payloads are redacted by the same rules, whatever the policies do with a finding. Text that was judged before is recognised.
impl Redact for SecretScanner {
    fn redact<'b>(&self, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let found = self.scan_segment(&Segment { pointer: Cow::Borrowed(""), json: body }).ok()?;
        if found.is_empty() { Some(Cow::Borrowed(body)) } else { self.redact_json(body).ok() }
    }
}

/// The text of a string, its escapes resolved.
fn string<'j>(json: &'j [u8], span: &Range<usize>) -> Cow<'j, [u8]> {
    let raw = json.get(span.clone()).unwrap_or_default();
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(decode::unescape(raw).text)
}

fn cut(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_KEY {
        return Cow::Borrowed(key);
    }
    Cow::Owned(format!("{}\u{2026}", key.get(..key.floor_char_boundary(MAX_KEY)).unwrap_or_default()))
}

fn finding(hit: Hit, pointer: &Arc<str>) -> Finding {
    Finding {
        rule_id: hit.rule,
        class: hit.class,
        pointer: pointer.clone(),
        offset: hit.span.start,
        length: hit.span.len(),
        confidence: hit.confidence,
        hmac: hit.hmac,
        allowed_by: None,
        segment: None,
        blocks: false,
    }
}

/// A finding of a segment as one of the body that the segment stands in.
pub(super) fn below(segment: &str, finding: &Finding) -> Finding {
    let pointer = if segment.is_empty() {
        finding.pointer.clone()
    } else {
        format!("{segment}{}", finding.pointer).into()
    };
    Finding { pointer, ..finding.clone() }
}
