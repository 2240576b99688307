//! Edits of a request body (GW-20): byte-range splices on its index. All bytes outside the spliced ranges stay.

use crate::parse::Index;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use std::borrow::Cow;
use std::ops::Range;

/// An edit that was made, as it stands in `ai_requests.edits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edit {
    pub kind: &'static str,
    /// JSON pointer of the value that was replaced.
    pub path: Cow<'static, str>,
    pub reason: &'static str,
}

/// The upstream knows the model under another name (GW-42).
pub const MODEL_ALIAS: Edit = Edit {
    kind: "model_alias",
    path: Cow::Borrowed("/model"),
    reason: "the route's target names another model",
};

/// The bytes to forward: the client's own, unless `upstream_model` is another model than it asked for.
pub fn forwarded(body: &Bytes, index: &Index, upstream_model: Option<&str>) -> (Bytes, Option<Edit>) {
    match upstream_model.filter(|model| **model != *index.model) {
        None => (body.clone(), None),
        Some(model) => (with_model(body, index, model), Some(MODEL_ALIAS)),
    }
}

fn with_model(body: &Bytes, index: &Index, model: &str) -> Bytes {
    splice(body, vec![model_splice(index, model)])
}

/// New bytes for a part of the body.
pub type Splice = (Range<usize>, Vec<u8>);

/// The splice that gives the request another model.
pub fn model_splice(index: &Index, model: &str) -> Splice {
    (index.model_span.range(), serde_json::Value::from(model).to_string().into_bytes())
}

/// The body with parts replaced. Parts that overlap another one that begins earlier are left to that one.
pub fn splice(body: &Bytes, mut splices: Vec<Splice>) -> Bytes {
    splices.sort_by_key(|(part, _)| part.start);
    let mut out =
        BytesMut::with_capacity(body.len() + splices.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut kept = 0;
    for (part, new) in splices {
        if part.start < kept {
            continue;
        }
        out.put_slice(body.get(kept..part.start).unwrap_or_default());
        out.put_slice(&new);
        kept = part.end;
    }
    out.put_slice(body.get(kept..).unwrap_or_default());
    out.freeze()
}

/// Where `part`, which is a piece of `body`, stands in it; none if it is no piece of it.
pub fn place_in(body: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    let end = start.checked_add(part.len()).filter(|end| *end <= body.len())?;
    Some(start..end)
}

/// Secrets in a part of the body were replaced by their marks.
pub fn redaction(pointer: &str) -> Edit {
    Edit {
        kind: "secret_redaction",
        path: Cow::Owned(pointer.to_owned()),
        reason: "a policy replaces secrets by marks",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use proptest::prelude::*;

    const BODY: &str = r#" {"x":1.0e0, "mod\u0065l" :  "cl\u0061ude" ,"messages":[{"role":"user","content":"é\n"}],"y":[1e3]} "#;

    #[test]
    fn the_same_model_leaves_the_body_as_it_is() {
        let body = Bytes::from_static(BODY.as_bytes());
        let index = parse(&body).unwrap();
        for model in [None, Some("claude")] {
            let (out, edit) = forwarded(&body, &index, model);
            assert_eq!((out.as_ptr(), out.len(), edit), (body.as_ptr(), body.len(), None));
        }
    }

    #[test]
    fn only_the_model_value_changes() {
        let body = Bytes::from_static(BODY.as_bytes());
        let (out, edit) = forwarded(&body, &parse(&body).unwrap(), Some("claude-3"));
        assert_eq!(out, BODY.replace(r#""cl\u0061ude""#, r#""claude-3""#));
        assert_eq!(edit, Some(MODEL_ALIAS));
    }

    proptest! {
        #[test]
        fn every_other_span_survives(model in any::<String>(), name in any::<String>(), text in any::<String>(), space in "[ \n\t]{0,3}") {
            let quoted = |s: &str| serde_json::Value::from(s).to_string();
            prop_assume!(name.chars().count() <= 256 && model.chars().count() <= 256 && name != model);
            let body = format!(
                r#"{{{space}"messages":[{{"role":"user","content":{}}}]{space},"model":{space}{}{space},"system":{},"tools":[{{"n":1.50}}]}}"#,
                quoted(&text), quoted(&name), quoted(&text)
            );
            let body = Bytes::from(body);
            let before = parse(&body).unwrap();
            let (out, edit) = forwarded(&body, &before, Some(&model));
            let after = parse(&out).unwrap();
            prop_assert!(edit.is_some());
            prop_assert_eq!(&*after.model, &*model);
            let spans = |index: &Index, body: &Bytes| {
                let spans = [index.system, index.messages_span, index.tools_span, index.messages[0].content];
                spans.into_iter().flatten().map(|span| span.of(body).to_vec()).collect::<Vec<_>>()
            };
            prop_assert_eq!(spans(&before, &body), spans(&after, &out));
            let (a, b) = (before.model_span.range(), after.model_span.range());
            prop_assert_eq!(&body[..a.start], &out[..b.start]);
            prop_assert_eq!(&body[a.end..], &out[b.end..]);
        }
    }
}
