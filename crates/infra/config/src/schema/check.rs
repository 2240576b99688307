//! Checks a document against its schema and turns every violation into a finding with place, allowed values and suggestion.

use crate::diagnostic::Diagnostic;
use crate::document::{Document, Step};
use crate::schema::{FORMATS, keys, places_of_key, schema_of};
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::paths::LocationSegment;
use jsonschema::{ValidationError, Validator};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::marker::PhantomData;

/// Most findings of one file; a file that is something else entirely should not fill the screen.
const MAX_FINDINGS: usize = 50;

/// The checker of one kind of file.
pub(crate) struct Checker<T> {
    pub(crate) schema: Value,
    validator: Option<Validator>,
    /// Keys that are refused with a sentence of their own.
    refused: &'static [(&'static str, &'static str)],
    kind: PhantomData<fn() -> T>,
}

impl<T: JsonSchema + DeserializeOwned> Checker<T> {
    pub(crate) fn new(title: &str) -> Self {
        let schema = schema_of::<T>(title);
        let options =
            FORMATS.iter().fold(jsonschema::options().should_validate_formats(true), |options, format| {
                options.with_format(format.name, format.test)
            });
        let validator = options.build(&schema).ok();
        Self { schema, validator, refused: &[], kind: PhantomData }
    }

    pub(crate) fn refusing(mut self, refused: &'static [(&'static str, &'static str)]) -> Self {
        self.refused = refused;
        self
    }

    /// The typed form of a document, or everything that is wrong with it.
    pub(crate) fn read(&self, document: &Document) -> Result<T, Vec<Diagnostic>> {
        let value = document.root.to_json();
        let Some(validator) = &self.validator else {
            return Err(vec![Diagnostic::error("internal", "the built-in schema does not compile")]);
        };
        let mut findings = Vec::new();
        for error in validator.iter_errors(&value).take(MAX_FINDINGS) {
            self.render(document, &error, &mut findings);
        }
        if !findings.is_empty() {
            findings.truncate(MAX_FINDINGS);
            return Err(findings);
        }
        serde_json::from_value(value).map_err(|error| {
            vec![Diagnostic::error("invalid_value", error.to_string()).in_file(document.file())]
        })
    }

    fn render(&self, document: &Document, error: &ValidationError<'_>, findings: &mut Vec<Diagnostic>) {
        let path = steps(error);
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => {
                for key in unexpected {
                    let at: Vec<Step> = path.iter().cloned().chain([Step::Key(key.clone())]).collect();
                    findings.push(document.locate_key(self.unknown_key(key, error), &at));
                }
            }
            Kind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let finding = Diagnostic::error("missing_key", format!("the key `{key}` is missing here"));
                findings.push(document.locate_key(finding, &path));
            }
            Kind::PropertyNames { error: inner } => {
                let key = inner.instance().as_str().unwrap_or_default().to_owned();
                let at: Vec<Step> = path.iter().cloned().chain([Step::Key(key.clone())]).collect();
                let finding =
                    Diagnostic::error("invalid_key", format!("`{}` is not a valid name here", clip(&key)));
                findings.push(document.locate_key(
                    match inner.kind() {
                        Kind::Pattern { pattern } => finding.with_remedy(format!("names match {pattern}")),
                        _ => finding,
                    },
                    &at,
                ));
            }
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => match choose(context, error) {
                Choice::Inside(branch) => {
                    for inner in branch {
                        self.render(document, inner, findings);
                    }
                }
                Choice::Words(words) => findings.push(document.locate(word(error.instance(), words), &path)),
                Choice::Types(types) => {
                    findings.push(document.locate(mistyped(error.instance(), &types), &path));
                }
            },
            kind => findings.push(document.locate(simple(kind, error.instance()), &path)),
        }
    }

    fn unknown_key(&self, key: &str, error: &ValidationError<'_>) -> Diagnostic {
        if let Some((_, why)) = self.refused.iter().find(|(name, _)| *name == key) {
            return Diagnostic::error("refused_key", *why);
        }
        let finding = Diagnostic::error("unknown_key", format!("unknown key `{}`", clip(key)));
        let parent = error.schema_path().as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        let known = self.schema.pointer(parent).map_or_else(Vec::new, |s| keys(&self.schema, s));
        let finding = finding.suggesting(key, known.iter().copied());
        if finding.suggestion.is_some() {
            return finding.with_allowed(known);
        }
        let elsewhere = places_of_key(&self.schema, key);
        let finding = finding.with_allowed(known);
        match elsewhere.first() {
            Some(place) if elsewhere.len() <= 3 => finding.with_remedy(format!("it belongs to `{place}`")),
            _ => finding,
        }
    }
}

fn steps(error: &ValidationError<'_>) -> Vec<Step> {
    error
        .instance_path()
        .segments()
        .map(|segment| match segment {
            LocationSegment::Property(key) => Step::Key(key.into_owned()),
            LocationSegment::Index(index) => Step::Index(index),
        })
        .collect()
}

/// Which alternative of `anyOf`/`oneOf` the user meant.
enum Choice<'e> {
    Inside(&'e [ValidationError<'static>]),
    Words(Vec<String>),
    Types(Vec<String>),
}

fn choose<'e>(context: &'e [Vec<ValidationError<'static>>], outer: &ValidationError<'_>) -> Choice<'e> {
    let here = |e: &&ValidationError<'static>| e.instance_path() == outer.instance_path();
    let (mut words, mut types) = (Vec::new(), Vec::new());
    for branch in context {
        let mut mismatch = false;
        for error in branch.iter().filter(here) {
            match error.kind() {
                Kind::Type { kind } => {
                    mismatch = true;
                    types.extend(names(kind));
                }
                Kind::Constant { expected_value } => {
                    mismatch = true;
                    words.extend(expected_value.as_str().map(str::to_owned));
                }
                Kind::Enum { options } => {
                    mismatch = true;
                    words.extend(strings(options));
                }
                Kind::OneOfNotValid { context } | Kind::AnyOf { context } => {
                    if let Choice::Words(inner) = choose(context, error) {
                        mismatch = true;
                        words.extend(inner);
                    }
                }
                _ => {}
            }
        }
        if !mismatch && !branch.is_empty() {
            return Choice::Inside(branch);
        }
    }
    types.retain(|t| t != "null");
    if words.is_empty() { Choice::Types(types) } else { Choice::Words(words) }
}

fn strings(options: &Value) -> Vec<String> {
    options.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn names(kind: &TypeKind) -> Vec<String> {
    match kind {
        TypeKind::Single(one) => vec![one.to_string()],
        TypeKind::Multiple(several) => {
            several.iter().map(|t| t.to_string()).filter(|t| t != "null").collect()
        }
    }
}

fn word(found: &Value, words: Vec<String>) -> Diagnostic {
    let text = found.as_str().map_or_else(|| brief(found), str::to_owned);
    Diagnostic::error("invalid_value", format!("`{}` is not one of the allowed values", clip(&text)))
        .suggesting(&text, words.iter().map(String::as_str))
        .with_allowed(words.iter().map(String::as_str))
}

fn mistyped(found: &Value, types: &[String]) -> Diagnostic {
    let wanted: Vec<&str> = types.iter().map(|t| noun(t)).collect();
    let finding = Diagnostic::error(
        "invalid_type",
        format!("expected {}, found {}", wanted.join(" or "), noun(type_of(found))),
    );
    match found {
        Value::Null => finding.with_remedy("give it a value or remove the key"),
        Value::Bool(_) | Value::Number(_) if types.iter().any(|t| t == "string") => {
            finding.with_remedy("put the value in quotes")
        }
        _ => finding,
    }
}

fn simple(kind: &Kind, found: &Value) -> Diagnostic {
    let invalid = |what: String| Diagnostic::error("invalid_value", what);
    let shown = clip(&found.as_str().map_or_else(|| brief(found), str::to_owned));
    match kind {
        Kind::Type { kind } => mistyped(found, &names(kind)),
        Kind::Enum { options } => word(found, strings(options)),
        Kind::Constant { expected_value } => {
            word(found, expected_value.as_str().map(str::to_owned).into_iter().collect())
        }
        Kind::Minimum { limit } => invalid(format!("{shown} is too small: at least {limit}")),
        Kind::Maximum { limit } => invalid(format!("{shown} is too large: at most {limit}")),
        Kind::ExclusiveMinimum { limit } => invalid(format!("{shown} is too small: more than {limit}")),
        Kind::ExclusiveMaximum { limit } => invalid(format!("{shown} is too large: less than {limit}")),
        Kind::MinLength { limit } => invalid(format!("too short: at least {limit} characters")),
        Kind::MaxLength { limit } => invalid(format!("too long: at most {limit} characters")),
        Kind::MinItems { limit } => invalid(format!("too few entries: at least {limit}")),
        Kind::MaxItems { limit } => invalid(format!("too many entries: at most {limit}")),
        Kind::Pattern { pattern } => invalid(format!("`{shown}` does not have the right form"))
            .with_remedy(format!("it must match {pattern}")),
        Kind::Format { format } => {
            let wanted = FORMATS.iter().find(|f| f.name == format).map_or(format.as_str(), |f| f.wanted);
            invalid(format!("`{shown}` is not {wanted}"))
        }
        other => invalid(format!("the value breaks the rule `{}`", other.keyword())),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The word for a JSON type that someone who writes YAML knows.
fn noun(kind: &str) -> &str {
    match kind {
        "null" => "nothing",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a mapping",
        other => other,
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => noun(type_of(value)).to_owned(),
        other => other.to_string(),
    }
}

fn clip(text: &str) -> String {
    if text.chars().count() <= 64 {
        return text.to_owned();
    }
    text.chars().take(63).chain(['…']).collect()
}
