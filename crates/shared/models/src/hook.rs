//! Denials in the forms of coding agents' hooks (SEC-93), and the name of an event that is read while its body passes by, so that
//! a refusal has the form of its event even where the body is not taken.

use serde_json::{Value, json};

/// The event that asks before a tool is used.
pub const PRE_TOOL_USE: &str = "PreToolUse";
/// The member that names the event.
const MEMBER: &[u8] = b"hook_event_name";
/// Longest name of an event that is read.
const MAX_NAME: usize = 64;

/// A denial in the form of `event`. Where that is not known, it has every form, so that any client stops.
pub fn denial(event: Option<&str>, reason: &str) -> Value {
    let before_tool = json!({
        "hookEventName": PRE_TOOL_USE,
        "permissionDecision": "deny",
        "permissionDecisionReason": reason,
    });
    match event {
        Some(PRE_TOOL_USE) => json!({"hookSpecificOutput": before_tool}),
        Some(_) => json!({"decision": "block", "reason": reason}),
        None => json!({"decision": "block", "reason": reason, "hookSpecificOutput": before_tool}),
    }
}

/// Finds the name of the event in a body that comes in pieces and may be cut off. It keeps no more than one short text.
#[derive(Debug, Default)]
pub struct EventName {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The text of the outermost object that was read last, unless it is `odd`: too long, or with an escape.
    text: Vec<u8>,
    odd: bool,
    /// The value that follows is that of the member.
    is_member: bool,
    ended: bool,
    found: Option<String>,
}

impl EventName {
    /// The name in a body, or in the beginning of one.
    pub fn of(body: &[u8]) -> Option<String> {
        let mut name = Self::default();
        name.read(body);
        name.found
    }

    /// Reads on.
    pub fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            if self.ended {
                return;
            }
            self.step(*byte);
        }
    }

    /// What was found so far.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    fn step(&mut self, byte: u8) {
        if self.in_text {
            return self.in_text(byte);
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' => self.depth += 1,
            // Only an object is an event.
            _ if self.depth == 0 => self.ended = true,
            b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                self.ended = self.depth == 0;
            }
            b'"' => {
                self.in_text = true;
                if self.depth == 1 {
                    self.text.clear();
                    self.odd = false;
                }
            }
            b':' if self.depth == 1 => self.is_member = !self.odd && self.text == MEMBER,
            b',' if self.depth == 1 => self.is_member = false,
            _ => {}
        }
    }

    fn in_text(&mut self, byte: u8) {
        let outermost = self.depth == 1;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => {
                self.escaped = true;
                self.odd |= outermost;
            }
            b'"' => {
                self.in_text = false;
                if outermost && self.is_member {
                    self.ended = true;
                    self.found = String::from_utf8(std::mem::take(&mut self.text)).ok().filter(|_| !self.odd);
                }
            }
            _ if outermost && self.text.len() < MAX_NAME => self.text.push(byte),
            _ => self.odd |= outermost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_found_in_whole_and_broken_bodies() {
        for (body, event) in [
            (r#"{"hook_event_name":"Stop"}"#, Some("Stop")),
            (
                r#" { "a" : [1,{"hook_event_name":"No"}], "hook_event_name" : "PreToolUse" "#,
                Some("PreToolUse"),
            ),
            (
                r#"{"prompt":"\",\"hook_event_name\":\"Stop\"","hook_event_name":"UserPromptSubmit"}"#,
                Some("UserPromptSubmit"),
            ),
            (r#"{"session_id":"hook_event_name","x":"Stop"}"#, None),
            (r#"{"a":"x","a":"y","hook_event_name":"Stop","hook"#, Some("Stop")),
            (r#"{"hook_event_name":{"a":"Stop"}}"#, None),
            (r#"{"hook_event_name":"St\u006fp"}"#, None),
            (r#"["hook_event_name","Stop"]"#, None),
            (r#"{"hook_event_name":"Sto"#, None),
            (r#"{}{"hook_event_name":"Stop"}"#, None),
            ("}", None),
            ("", None),
        ] {
            assert_eq!(EventName::of(body.as_bytes()).as_deref(), event, "{body}");
            let mut name = EventName::default();
            body.as_bytes().chunks(1).for_each(|piece| name.read(piece));
            assert_eq!(name.found(), event, "{body}, in pieces");
        }
        let long = format!(r#"{{"hook_event_name":"{}"}}"#, "x".repeat(MAX_NAME + 1));
        assert_eq!(EventName::of(long.as_bytes()), None);
    }

    #[test]
    fn a_denial_has_the_form_of_its_event() {
        let of = |event| {
            let denial = denial(event, "no");
            (denial["decision"].clone(), denial["hookSpecificOutput"]["permissionDecision"].clone())
        };
        assert_eq!(of(Some("PreToolUse")), (Value::Null, json!("deny")));
        assert_eq!(of(Some("Stop")), (json!("block"), Value::Null));
        assert_eq!(of(None), (json!("block"), json!("deny")));
    }
}
