//! The texts of a request in the order in which they are judged: system, tools, each message, whatever else the body holds,
//! and what goes upstream or is stored beside it, the query and headers.

use crate::parse::{Index, Span};
use http::{HeaderName, HeaderValue};
use std::borrow::Cow;
use std::fmt::Write as _;
use systemprompt_security::plane::Segment;

/// JSON pointers of the messages, in one piece of memory.
#[derive(Debug)]
pub struct Pointers {
    text: String,
    ends: Vec<usize>,
}

impl Pointers {
    pub fn of(index: &Index) -> Self {
        let mut pointers = Self {
            text: String::with_capacity(index.messages.len() * 13),
            ends: Vec::with_capacity(index.messages.len()),
        };
        for i in 0..index.messages.len() {
            let _ = write!(pointers.text, "/messages/{i}");
            pointers.ends.push(pointers.text.len());
        }
        pointers
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.text.get(start..*end).unwrap_or_default())
    }
}

/// The query and the headers that leave the house or are stored, as plain text of one name or value a line: what is written
/// there is the client's text like any other.
#[derive(Debug, Default)]
pub struct Besides {
    query: String,
    headers: Vec<u8>,
}

impl Besides {
    pub fn of<'h>(
        query: Option<&str>,
        headers: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
    ) -> Self {
        let mut lines = Vec::new();
        for (name, value) in headers {
            // Names count as well: those of a whole family are forwarded, so the client makes them.
            for text in [name.as_str().as_bytes(), value.as_bytes()] {
                lines.extend_from_slice(text);
                lines.push(b'\n');
            }
        }
        Self { query: query.unwrap_or_default().to_owned(), headers: lines }
    }

    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let parts = [("/?", self.query.as_bytes()), ("/headers", self.headers.as_slice())];
        parts
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(pointer, json)| Segment { pointer: Cow::Borrowed(pointer), json })
    }
}

/// The segments of `body`. The model's name is judged as well where the route takes any: then the client chose the text.
pub fn segments<'a>(
    index: &Index,
    body: &'a [u8],
    pointers: &'a Pointers,
    judge_model: bool,
) -> Vec<Segment<'a>> {
    let whole =
        |pointer: &'static str, span: Span| Segment { pointer: Cow::Borrowed(pointer), json: span.of(body) };
    let Some(others) = &index.others else {
        return vec![Segment { pointer: Cow::Borrowed(""), json: body }];
    };
    let mut segments = Vec::with_capacity(index.messages.len() + 4 + 2 * others.len());
    segments.extend(index.system.map(|span| whole("/system", span)));
    segments.extend(index.tools_span.map(|span| whole("/tools", span)));
    match index.messages_span {
        Some(span) if index.messages.is_empty() => segments.push(whole("/messages", span)),
        _ => segments.extend(index.messages.iter().zip(pointers.iter()).map(|(message, pointer)| Segment {
            pointer: Cow::Borrowed(pointer),
            json: message.span.of(body),
        })),
    }
    segments.extend(index.metadata.map(|span| whole("/metadata", span)));
    segments.extend(index.service_tier.map(|span| whole("/service_tier", span)));
    segments.extend(index.speed.map(|span| whole("/speed", span)));
    if judge_model {
        segments.push(whole("/model", index.model_span));
    }
    for member in others {
        // A name of the client's making is text like any other; the pointer does not repeat it.
        segments.push(whole("/*", member.name));
        segments.push(whole("/*", member.value));
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn of(body: &str, judge_model: bool) -> Vec<(String, String)> {
        let index = parse(body.as_bytes()).unwrap();
        let pointers = Pointers::of(&index);
        let segments = segments(&index, body.as_bytes(), &pointers, judge_model);
        let text = |segment: &Segment<'_>| String::from_utf8(segment.json.to_vec()).unwrap();
        segments.iter().map(|segment| (segment.pointer.to_string(), text(segment))).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn everything_that_leaves_the_house_is_judged() {
        let body = r#"{"model":"m","x":{"a":1},"messages":[{"role":"user"},2],"temperature":1,"tools":[3],"system":"s","metadata":{"user_id":"u"}}"#;
        let expected = pairs(&[
            ("/system", "\"s\""),
            ("/tools", "[3]"),
            ("/messages/0", r#"{"role":"user"}"#),
            ("/messages/1", "2"),
            ("/metadata", r#"{"user_id":"u"}"#),
            ("/*", "\"x\""),
            ("/*", r#"{"a":1}"#),
        ]);
        assert_eq!(of(body, false), expected);
        assert!(of(body, true).contains(&("/model".into(), "\"m\"".into())));
    }

    #[test]
    fn odd_shapes_are_judged_whole() {
        assert_eq!(of(r#"{"model":"m","messages":"text"}"#, false), pairs(&[("/messages", "\"text\"")]));
        let many = (0..100).fold(String::new(), |all, i| format!("{all}\"x{i}\":\"\","));
        let body = format!(r#"{{{many}"model":"m"}}"#);
        assert_eq!(of(&body, false), [(String::new(), body.clone())]);
    }
}
