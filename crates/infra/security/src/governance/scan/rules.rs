//! The secret rules: read from `rules/*.yaml` and checked. Which rules stand there is data; what a field means is said at the
//! head of `secrets.yaml`. A regex is compiled when text first makes a candidate of its rule: most of the rules are never asked
//! in the life of a process. A test compiles all of them.

use super::checksum::Checksum;
use super::decode::may_be_keyword;
use super::keywords::{Keyword, Keywords, MAX_KEYWORD, MAX_TAIL, Use};
use super::{Confidence, FindingClass};
use regex_automata::meta::{self, Regex};
use regex_automata::util::syntax;
use serde::Deserialize;
use std::sync::{Arc, OnceLock};

/// The rule files that are built in: our own, and those made from a published rule set.
pub(super) const BUILTIN: [&str; 2] =
    [include_str!("../../../rules/secrets.yaml"), include_str!("../../../rules/providers.yaml")];
/// What stands between a name and its value, as `<assign>` in a regex.
const ASSIGN: &str = r#"[ \t\w.-]{0,20}[\s'"]{0,3}(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=]{0,16}"#;
/// What stands behind a value, as `<end>` in a regex.
const END: &str = "(?:[^A-Za-z0-9_-]|$)";
/// How far from its name the value of a rule with `<assign>` may begin in raw JSON, where each quote may be escaped twice.
const NEAR: usize = 160;

/// Raised when the meaning of the rule file or of the walk changes, so that cached verdicts of older code do not count.
const ENGINE: &str = "scan-4";

/// Why a rule file was refused.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("the secret rules are not readable: {0}")]
    Unreadable(#[source] Box<serde_saphyr::Error>),
    #[error("secret rule `{rule}`: the regex does not compile: {source}")]
    Regex { rule: String, source: Box<meta::BuildError> },
    #[error("secret rule `{rule}`: {what}")]
    Invalid { rule: String, what: &'static str },
    #[error("the secret rules have more keywords than can be searched at once")]
    TooManyKeywords,
    #[error("the random generator of the operating system failed")]
    Random,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<Source>,
}

/// One rule as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) id: String,
    provider: String,
    #[serde(default = "specific")]
    class: FindingClass,
    keywords: Vec<String>,
    regex: String,
    #[serde(default)]
    any_case: bool,
    #[serde(default)]
    group: usize,
    #[serde(default)]
    before: usize,
    #[serde(default = "reach")]
    after: usize,
    #[serde(default)]
    tail: u8,
    #[serde(default)]
    probe: Option<char>,
    #[serde(default)]
    min_entropy: Option<f64>,
    #[serde(default)]
    checksum: Option<Checksum>,
    #[serde(default)]
    except: Option<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are checked by a test"))]
    pub(super) positive: Vec<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are checked by a test"))]
    pub(super) negative: Vec<String>,
}

impl Source {
    /// Whether the token stands behind a name and a sign of assignment.
    fn stands_near(&self) -> bool {
        self.regex.contains("<assign>")
    }
}

fn specific() -> FindingClass {
    FindingClass::Specific
}

fn reach() -> usize {
    512
}

/// One compiled rule.
pub(super) struct Rule {
    pub(super) id: Arc<str>,
    pub(super) provider: Box<str>,
    pub(super) class: FindingClass,
    pattern: Box<str>,
    regex: OnceLock<Option<Regex>>,
    pub(super) group: usize,
    pub(super) before: usize,
    pub(super) after: usize,
    /// Whether its token is read on behind a line break.
    pub(super) wraps: bool,
    min_entropy: Option<f64>,
    checksum: Option<Checksum>,
    except: Option<Regex>,
}

impl Rule {
    fn new(source: &Source) -> Result<Self, RuleError> {
        let invalid = |what| RuleError::Invalid { rule: source.id.clone(), what };
        if source.keywords.is_empty() {
            return Err(invalid("it has no keyword"));
        }
        if source.tail > MAX_TAIL {
            return Err(invalid("`tail` is at most 24"));
        }
        for keyword in &source.keywords {
            if !(2..=MAX_KEYWORD).contains(&keyword.len()) || !keyword.bytes().all(may_be_keyword) {
                return Err(invalid("a keyword is 2 to 32 printable ASCII characters, none of `\"'&<>\\`"));
            }
            if source.any_case && keyword.bytes().any(|b| b.is_ascii_uppercase()) {
                return Err(invalid("the keywords of a rule with `any_case` are written in lower case"));
            }
        }
        Ok(Self {
            id: source.id.as_str().into(),
            provider: source.provider.as_str().into(),
            class: source.class,
            pattern: source.regex.replace("<assign>", ASSIGN).replace("<end>", END).into(),
            regex: OnceLock::new(),
            group: source.group,
            before: source.before,
            after: source.after,
            wraps: source.tail > 0 && source.before <= 1 && !source.stands_near(),
            min_entropy: source.min_entropy,
            checksum: source.checksum,
            except: source.except.as_deref().map(|e| compile(&source.id, e)).transpose()?,
        })
    }

    /// The compiled regex. None of a built-in rule fails, which a test holds; if one did, each of its candidates would count as
    /// a hit.
    pub(super) fn regex(&self) -> Option<&Regex> {
        self.regex
            .get_or_init(|| match compile(&self.id, &self.pattern) {
                Ok(regex) => Some(regex),
                Err(error) => {
                    tracing::error!(%error, "a secret rule is held to match whatever its keyword stands in");
                    None
                }
            })
            .as_ref()
    }

    /// Compiles the rule now.
    #[cfg(test)]
    pub(super) fn check(&self) -> Result<(), RuleError> {
        let regex = compile(&self.id, &self.pattern)?;
        if self.group >= regex.group_info().group_len(regex_automata::PatternID::ZERO) {
            let what = "`group` names a capture that the regex does not have";
            return Err(RuleError::Invalid { rule: self.id.to_string(), what });
        }
        Ok(())
    }

    /// How sure a match with this secret is; none if it is a placeholder.
    pub(super) fn judge(&self, secret: &[u8]) -> Option<Confidence> {
        if self.except.as_ref().is_some_and(|e| e.is_match(secret)) {
            return None;
        }
        if self.min_entropy.is_some_and(|least| super::entropy::bits(secret) < least) {
            return None;
        }
        Some(match (self.class, self.checksum) {
            (FindingClass::Generic, _) => Confidence::Low,
            (FindingClass::Specific, Some(sum)) if sum.holds(secret) => Confidence::High,
            (FindingClass::Specific, _) => Confidence::Medium,
        })
    }
}

/// ASCII rules over bytes: no Unicode classes, which are what makes a regex slow to compile.
fn compile(rule: &str, pattern: &str) -> Result<Regex, RuleError> {
    Regex::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .configure(meta::Config::new().utf8_empty(false).onepass(false))
        .build(pattern)
        .map_err(|source| RuleError::Regex { rule: rule.to_owned(), source: Box::new(source) })
}

/// All rules with the keywords that find their candidates.
pub(super) struct RuleSet {
    pub(super) rules: Vec<Rule>,
    pub(super) keywords: Keywords,
    /// Hex digest over the rule file and the engine's version.
    pub(super) version: Box<str>,
}

impl RuleSet {
    pub(super) fn parse(files: &[&str]) -> Result<Self, RuleError> {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        digest.update(ENGINE.as_bytes());
        let mut sources = Vec::new();
        for file in files {
            digest.update(file.as_bytes());
            sources.extend(self::sources(file)?);
        }
        let mut rules = Vec::with_capacity(sources.len());
        let mut ids = std::collections::HashSet::with_capacity(sources.len());
        let mut keywords = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            if !ids.insert(source.id.as_str()) {
                return Err(RuleError::Invalid { rule: source.id.clone(), what: "the id occurs twice" });
            }
            rules.push(Rule::new(source)?);
            let probe = source.probe.and_then(|c| u8::try_from(c).ok());
            let near = if source.stands_near() { NEAR } else { 0 };
            for text in &source.keywords {
                let found = Use { rule: index, len: text.len(), tail: source.tail, near, probe };
                keywords.push(Keyword { text: text.as_bytes(), any_case: source.any_case, found });
            }
        }
        let digest = hex::encode(digest.finish());
        let version = digest.get(..32).unwrap_or(&digest).into();
        let keywords = Keywords::new(&keywords).ok_or(RuleError::TooManyKeywords)?;
        Ok(Self { rules, keywords, version })
    }
}

/// The rules as written, with their examples.
pub(super) fn sources(text: &str) -> Result<Vec<Source>, RuleError> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| RuleError::Unreadable(Box::new(e)))?;
    Ok(file.rules)
}
