//! Which conversation a call belongs to (GW-31). The id is bound to the principal, so that nobody joins another's.

use crate::parse::{self, Index, Role};
use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderMap;
use systemprompt_models::Principal;
use systemprompt_models::ids::{ContextId, GatewayConversationId};
use uuid::Uuid;

/// Namespace of the context ids that are made from conversation ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x7d0f_5a3e_91c4_4b6a_8e27_3f6b_1c58_d094);
/// Headers that may name the conversation, the first that does wins.
const HEADERS: [&str; 2] = ["x-claude-code-session-id", "x-gateway-conversation-id"];
const MAX_BYTES: usize = 256;

/// Whether a header may name the conversation, and is thus stored.
pub fn is_name(header: &str) -> bool {
    HEADERS.contains(&header)
}

/// The conversation of a request.
pub fn conversation_id(
    principal: &Principal,
    headers: &HeaderMap,
    index: &Index,
    body: &[u8],
) -> GatewayConversationId {
    let named = HEADERS.iter().find_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?.trim();
        usable(value).then(|| value.to_owned())
    });
    let value = named.or_else(|| session_of_user_id(index, body)).unwrap_or_else(|| {
        let first = index.messages.iter().find(|message| message.role == Role::User);
        let parts = [index.system, first.map(|message| message.span)];
        let mut hash = Context::new(&SHA256);
        hash.update(principal.user_id.as_str().as_bytes());
        for part in parts {
            let bytes = part.map_or(&b""[..], |span| span.of(body));
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        hex::encode(hash.finish())
    });
    GatewayConversationId::new(format!("{}:{value}", principal.user_id))
}

/// The context of a conversation: UUID v5 of its id.
pub fn context_id(conversation: &GatewayConversationId) -> ContextId {
    ContextId::from_uuid(Uuid::new_v5(&NAMESPACE, conversation.as_str().as_bytes()))
}

fn usable(value: &str) -> bool {
    !value.is_empty() && value.len() <= MAX_BYTES && value.bytes().all(|b| b.is_ascii_graphic())
}

/// The session that coding clients put into `metadata.user_id`: `user_…_session_<id>`, or a JSON object with `session_id`.
fn session_of_user_id(index: &Index, body: &[u8]) -> Option<String> {
    let user_id = parse::text(index.user_id?.of(body))?;
    let session = match serde_json::from_str::<serde_json::Value>(&user_id) {
        Ok(value) => value.get("session_id")?.as_str()?.to_owned(),
        Err(_) => user_id.rsplit_once("_session_")?.1.to_owned(),
    };
    usable(&session).then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use systemprompt_models::ids::UserId;

    fn id(user: &str, headers: &[(&'static str, &'static str)], body: &str) -> String {
        let principal = Principal { user_id: UserId::new(user), ..Principal::anonymous() };
        let headers = headers.iter().map(|(n, v)| ((*n).parse().unwrap(), (*v).parse().unwrap())).collect();
        let index = parse(body.as_bytes()).unwrap();
        conversation_id(&principal, &headers, &index, body.as_bytes()).to_string()
    }

    const PLAIN: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

    #[test]
    fn the_first_name_that_is_given_wins() {
        let with_user_id = r#"{"model":"m","metadata":{"user_id":"user_1_account__session_abc-1"}}"#;
        let with_json =
            r#"{"model":"m","metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"s-9\"}"}}"#;
        let both = [("x-gateway-conversation-id", "g"), ("x-claude-code-session-id", "c")];
        assert_eq!(id("u", &both, with_user_id), "u:c");
        assert_eq!(id("u", &both[..1], with_user_id), "u:g");
        assert_eq!(id("u", &[], with_user_id), "u:abc-1");
        assert_eq!(id("u", &[], with_json), "u:s-9");
        assert_eq!(id("u", &[("x-claude-code-session-id", "not usable")], with_user_id), "u:abc-1");
        assert_eq!(id("u", &[("x-context-id", "x")], PLAIN), id("u", &[], PLAIN));
    }

    #[test]
    fn without_a_name_the_beginning_of_the_conversation_counts() {
        let later = PLAIN
            .replace("]}", r#",{"role":"assistant","content":"yes"},{"role":"user","content":"go on"}]}"#);
        assert_eq!(id("u", &[], PLAIN), id("u", &[], &later));
        let other = PLAIN.replace("hi", "hello");
        assert_ne!(id("u", &[], PLAIN), id("u", &[], &other));
        assert_eq!(id("u", &[], PLAIN).len(), 2 + 64);
    }

    #[test]
    fn two_principals_never_share_a_context() {
        let same = [("x-claude-code-session-id", "same")];
        let of = |user| context_id(&GatewayConversationId::new(id(user, &same, PLAIN)));
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
        assert_eq!(of("a").uuid().unwrap().get_version_num(), 5);
    }
}
