//! What a model provider sends to ask whether a request may go on (SEC-95). Its schema may change, so nothing is left out that is
//! not understood: all of the body is judged, in pieces, so that a transcript that is sent again and again is recognised message by
//! message.

use super::facts::Segment;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Members that name the conversation, and the user: the first that is there counts.
const CONVERSATION: [&str; 3] = ["conversation_id", "session_id", "chat_id"];
const USER: [&str; 4] = ["user_id", "account_id", "user_email", "actor_id"];
/// Longest name of a user or a conversation, in bytes.
const MAX_NAME: usize = 512;
/// How far a body is taken apart: to the members of a block in the content of a message in a list.
const DEPTH: usize = 6;
/// Most pieces; a body that would have more is judged as one.
const MAX_SEGMENTS: usize = 50_000;
/// Longest member name that needs no look at itself, if it is made of small letters alone.
const MAX_PLAIN: usize = 32;

/// A body that cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no JSON object")]
pub struct NotAnObject;

/// A request that a provider is about to run.
#[derive(Debug)]
pub struct InferenceRequest<'b> {
    members: Members<'b>,
    body: &'b RawValue,
}

impl<'b> InferenceRequest<'b> {
    /// # Errors
    /// When the body is no JSON object.
    pub fn read(body: &'b [u8]) -> Result<Self, NotAnObject> {
        let body: &RawValue = serde_json::from_slice(body).map_err(|_| NotAnObject)?;
        let members = serde_json::from_str(body.get()).map_err(|_| NotAnObject)?;
        Ok(Self { members, body })
    }

    /// The provider's name of its user.
    pub fn user(&self) -> Option<Cow<'b, str>> {
        self.name(&USER)
    }

    /// The provider's name of the conversation.
    pub fn conversation(&self) -> Option<Cow<'b, str>> {
        self.name(&CONVERSATION)
    }

    fn name(&self, names: &[&str]) -> Option<Cow<'b, str>> {
        let value = |name: &&str| {
            let (_, raw) = self.members.0.iter().find(|(member, _)| member == name)?;
            serde_json::from_str::<Cow<'b, str>>(raw.get()).ok()
        };
        names.iter().filter_map(value).find(|value| !value.is_empty() && value.len() <= MAX_NAME)
    }

    /// Everything in the body.
    pub fn segments(&self) -> Vec<Segment<'b>> {
        let mut segments = Vec::new();
        spread(String::new(), self.body, DEPTH, &mut segments);
        if segments.len() <= MAX_SEGMENTS { segments } else { vec![segment(String::new(), self.body)] }
    }
}

fn segment(pointer: String, value: &RawValue) -> Segment<'_> {
    Segment { pointer: pointer.into(), json: value.get().as_bytes() }
}

/// Takes a value apart. An object with a name that is more than a word stays whole, so that its names are judged too.
fn spread<'b>(pointer: String, value: &'b RawValue, depth: usize, segments: &mut Vec<Segment<'b>>) {
    if depth > 0 && segments.len() <= MAX_SEGMENTS {
        if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
            for (at, item) in list.into_iter().enumerate() {
                spread(format!("{pointer}/{at}"), item, depth - 1, segments);
            }
            return;
        }
        if let Ok(Members(members)) = serde_json::from_str(value.get())
            && members.iter().all(|(name, _)| is_plain(name))
        {
            for (name, item) in members {
                spread(format!("{pointer}/{name}"), item, depth - 1, segments);
            }
            return;
        }
    }
    segments.push(segment(pointer, value));
}

fn is_plain(name: &str) -> bool {
    name.len() <= MAX_PLAIN && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// The members of an object in their order, those too whose name occurs again.
#[derive(Debug)]
struct Members<'b>(Vec<(Cow<'b, str>, &'b RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(body: &str) -> Vec<(String, String)> {
        let request = InferenceRequest::read(body.as_bytes()).unwrap();
        let text = |json: &[u8]| String::from_utf8(json.to_vec()).unwrap();
        request.segments().into_iter().map(|s| (s.pointer.into_owned(), text(s.json))).collect()
    }

    #[test]
    fn nothing_of_a_body_goes_unseen() {
        let seen = segments(
            r#"{"event":"prompt","messages":[{"role":"user","content":"a"},{"content":[{"type":"text","text":"b"}]}],
                "messages":"again","Odd-Name":1}"#,
        );
        // One name that is more than a word, and the object is one piece.
        assert_eq!(seen.len(), 1);
        let seen = segments(
            r#"{"event":"prompt","messages":[{"content":"a"},{"content":[{"text":"b"},{"AKIA":{"x":1}}]}],"messages":"c"}"#,
        );
        let pointers: Vec<(&str, &str)> = seen.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        assert_eq!(
            pointers,
            [
                ("/event", "\"prompt\""),
                ("/messages/0/content", "\"a\""),
                ("/messages/1/content/0/text", "\"b\""),
                ("/messages/1/content/1", r#"{"AKIA":{"x":1}}"#),
                ("/messages", "\"c\""),
            ]
        );
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
        assert_eq!(segments(&deep)[0].1, format!("{}{}", "[".repeat(35), "]".repeat(35)));
        let many = format!("{{\"a\":[{}]}}", vec!["1"; MAX_SEGMENTS + 1].join(","));
        assert_eq!(segments(&many).len(), 1);
    }

    #[test]
    fn user_and_conversation_are_told_by_their_usual_names() {
        let read = |body: &'static str| {
            let request = InferenceRequest::read(body.as_bytes()).unwrap();
            (request.user().map(Cow::into_owned), request.conversation().map(Cow::into_owned))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(r#"{"user_id":"u","session_id":"s\u0031"}"#), (some("u"), some("s1")));
        assert_eq!(read(r#"{"user_id":"","account_id":"a","chat_id":7}"#), (some("a"), None));
        for body in ["", "[]", "1", "{", "{}{}"] {
            assert_eq!(InferenceRequest::read(body.as_bytes()).err(), Some(NotAnObject), "{body}");
        }
    }
}
