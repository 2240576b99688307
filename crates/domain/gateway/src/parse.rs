//! One pass over the bytes of a model request (GW-12): validates the JSON (RFC 8259) and yields the byte spans of what the
//! gateway reads. Nothing is re-serialised: whatever is forwarded later is cut from these very bytes.

mod scan;
#[cfg(test)]
mod tests;

use scan::Scanner;
use std::borrow::Cow;
use std::ops::Range;
use systemprompt_models::{Code, Refusal};

/// Deepest nesting of arrays and objects, the body itself included.
pub const MAX_DEPTH: u32 = 128;
/// Longest model name, in characters.
pub const MAX_MODEL_CHARS: usize = 256;
/// Most messages, tools or content blocks of one body; the index holds eight bytes or more for each.
pub const MAX_ITEMS: usize = 100_000;
/// Members that the gateway does not know are indexed one by one up to this number, above it as one: the whole body.
pub const MAX_OTHER_MEMBERS: usize = 64;

/// A range of bytes of the body: one raw JSON value, a string with its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The bytes of this span; empty if `body` is not the body that was parsed.
    pub fn of(self, body: &[u8]) -> &[u8] {
        body.get(self.range()).unwrap_or_default()
    }

    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Who speaks in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
    System,
    /// Missing, or a value that the gateway does not know; upstream judges it.
    Other,
}

/// One element of `messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub span: Span,
    pub role: Role,
    pub content: Option<Span>,
    /// Where its content blocks stand in [`Index::blocks`].
    first_block: u32,
    blocks: u32,
}

/// A top-level member that the gateway does not read, with the string that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: Span,
    pub value: Span,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The requested model, unescaped.
    pub model: Box<str>,
    pub model_span: Span,
    /// `stream: true`; any other value counts as false, upstream judges it.
    pub stream: bool,
    /// `max_tokens`, else `max_completion_tokens`, else `max_output_tokens`, if it is a whole number.
    pub max_tokens: Option<u64>,
    pub system: Option<Span>,
    /// The value of `messages`, whatever it is.
    pub messages_span: Option<Span>,
    pub messages: Vec<Message>,
    blocks: Vec<Span>,
    /// The value of `tools`, whatever it is.
    pub tools_span: Option<Span>,
    pub tools: Vec<Span>,
    /// `metadata.user_id`, if it is a string.
    pub user_id: Option<Span>,
    pub metadata: Option<Span>,
    pub service_tier: Option<Span>,
    pub speed: Option<Span>,
    /// Members with a text, array or object that are none of the above; `None` if there are too many of them.
    pub others: Option<Vec<Member>>,
}

impl Index {
    /// The content blocks of `message`; empty if its content is a string.
    pub fn blocks(&self, message: &Message) -> &[Span] {
        let first = message.first_block as usize;
        self.blocks.get(first..first + message.blocks as usize).unwrap_or_default()
    }
}

/// Why a body is refused. `offset` counts bytes from the start of the body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {fault} at byte {offset}")]
pub struct ParseError {
    /// The member in which the fault stands; `body` outside those that the gateway reads.
    pub member: &'static str,
    pub offset: usize,
    pub fault: Fault,
}

/// What is wrong with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("invalid UTF-8")]
    Utf8,
    #[error("invalid JSON")]
    Json,
    #[error("the body must be a JSON object")]
    NotAnObject,
    #[error("nesting is deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("the member is given twice")]
    Duplicate,
    #[error("Field required")]
    Missing,
    #[error("must be a string")]
    NotAString,
    #[error("longer than {MAX_MODEL_CHARS} characters")]
    TooLong,
    #[error("more than {MAX_ITEMS} elements")]
    TooMany,
    #[error("the body is larger than 4 GiB")]
    TooLarge,
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Self {
        let message = format!("{} at byte {}", error.fault, error.offset);
        Self::new(Code::BadRequest, error.to_string()).with_validation(error.member, message)
    }
}

/// Indexes a request body.
///
/// ```
/// let body = br#"{"model": "claude-demo", "max_tokens": 16, "messages": [{"role": "user", "content": "hi"}]}"#;
/// let index = systemprompt_gateway::parse::parse(body).unwrap();
/// assert_eq!(&*index.model, "claude-demo");
/// assert_eq!(index.messages[0].content.unwrap().of(body), br#""hi""#);
/// ```
///
/// # Errors
/// The rules of GW-12, with member and offset.
pub fn parse(body: &[u8]) -> Result<Index, ParseError> {
    let fail = |fault, offset| ParseError { member: "body", offset, fault };
    if u32::try_from(body.len()).is_err() {
        return Err(fail(Fault::TooLarge, 0));
    }
    if let Err(error) = std::str::from_utf8(body) {
        return Err(fail(Fault::Utf8, error.valid_up_to()));
    }
    let mut scanner = Scanner::new(body);
    scanner.space();
    if scanner.peek().is_some_and(|first| first != b'{') {
        let at = scanner.at();
        scanner.skip(0)?;
        scanner.end()?;
        return Err(fail(Fault::NotAnObject, at));
    }
    let mut builder = Builder::default();
    scanner.object(0, |scanner, name| builder.member(body, scanner, name))?;
    scanner.end()?;
    builder.finish(body)
}

/// The text of a JSON string with its quotes; `None` if it holds half a surrogate pair or is no string.
pub(crate) fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).ok().map(Cow::Owned)
}

#[derive(Default)]
struct Builder {
    /// One bit for each top-level member that was seen.
    seen: u32,
    model: Option<(Box<str>, Span)>,
    stream: bool,
    limits: [Option<u64>; 3],
    system: Option<Span>,
    messages_span: Option<Span>,
    messages: Vec<Message>,
    blocks: Vec<Span>,
    tools_span: Option<Span>,
    tools: Vec<Span>,
    metadata: Option<Span>,
    user_id: Option<Span>,
    service_tier: Option<Span>,
    speed: Option<Span>,
    others: Vec<Member>,
    too_many_others: bool,
}

const MEMBERS: [&str; 11] = [
    "model",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "system",
    "messages",
    "tools",
    "metadata",
    "service_tier",
    "speed",
];

/// Which of `names` the raw string `name` spells, compared after unescaping.
fn which(names: &[&'static str], body: &[u8], name: Span) -> Option<(usize, &'static str)> {
    let name = text(name.of(body))?;
    names.iter().position(|known| *known == name).and_then(|i| names.get(i).map(|known| (i, *known)))
}

impl Builder {
    fn member(&mut self, body: &[u8], scanner: &mut Scanner<'_>, name: Span) -> Result<(), ParseError> {
        let Some((i, known)) = which(&MEMBERS, body, name) else {
            return self.other(body, scanner, name);
        };
        if self.seen & (1 << i) != 0 {
            return Err(ParseError { member: known, offset: name.start as usize, fault: Fault::Duplicate });
        }
        self.seen |= 1 << i;
        scanner.within(known);
        match known {
            "model" => self.model = Some(model(body, scanner)?),
            "stream" => self.stream = scanner.skip(1)?.of(body) == b"true",
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                let value = whole_number(scanner.skip(1)?.of(body));
                if let Some(limit) = self.limits.get_mut(i.saturating_sub(2)) {
                    *limit = value;
                }
            }
            "system" => self.system = Some(scanner.skip(1)?),
            "messages" => self.messages(body, scanner)?,
            "tools" => self.tools(scanner)?,
            "metadata" => self.metadata(body, scanner)?,
            "service_tier" => self.service_tier = Some(scanner.skip(1)?),
            _ => self.speed = Some(scanner.skip(1)?),
        }
        scanner.within("body");
        Ok(())
    }

    fn other(&mut self, body: &[u8], scanner: &mut Scanner<'_>, name: Span) -> Result<(), ParseError> {
        let value = scanner.skip(1)?;
        let holds_text = matches!(value.of(body).first(), Some(b'"' | b'[' | b'{'));
        if !holds_text && name.end - name.start <= 18 {
            return Ok(());
        }
        if self.others.len() < MAX_OTHER_MEMBERS {
            self.others.push(Member { name, value });
        } else {
            self.too_many_others = true;
        }
        Ok(())
    }

    fn messages(&mut self, body: &[u8], scanner: &mut Scanner<'_>) -> Result<(), ParseError> {
        let start = scanner.at();
        if scanner.peek() != Some(b'[') {
            self.messages_span = Some(scanner.skip(1)?);
            return Ok(());
        }
        scanner.array(1, |scanner| {
            if self.messages.len() == MAX_ITEMS {
                return Err(scanner.fault(Fault::TooMany));
            }
            let message = self.message(body, scanner)?;
            self.messages.push(message);
            Ok(())
        })?;
        self.messages_span = Some(scanner.span_from(start));
        Ok(())
    }

    fn message(&mut self, body: &[u8], scanner: &mut Scanner<'_>) -> Result<Message, ParseError> {
        let start = scanner.at();
        let first_block = self.blocks.len() as u32;
        let (mut role, mut content) = (None, None);
        if scanner.peek() == Some(b'{') {
            scanner.object(2, |scanner, name| match which(&["role", "content"], body, name) {
                None => scanner.skip(3).map(drop),
                Some((0, _)) if role.is_some() => Err(duplicate("messages.role", name)),
                Some((0, _)) => {
                    role = Some(role_of(scanner.skip(3)?.of(body)));
                    Ok(())
                }
                Some(_) if content.is_some() => Err(duplicate("messages.content", name)),
                Some(_) => {
                    content = Some(self.content(scanner)?);
                    Ok(())
                }
            })?;
        } else {
            scanner.skip(2)?;
        }
        Ok(Message {
            span: scanner.span_from(start),
            role: role.unwrap_or(Role::Other),
            content,
            first_block,
            blocks: self.blocks.len() as u32 - first_block,
        })
    }

    fn content(&mut self, scanner: &mut Scanner<'_>) -> Result<Span, ParseError> {
        if scanner.peek() != Some(b'[') {
            return scanner.skip(3);
        }
        let start = scanner.at();
        scanner.array(3, |scanner| {
            if self.blocks.len() == MAX_ITEMS {
                return Err(scanner.fault(Fault::TooMany));
            }
            let block = scanner.skip(4)?;
            self.blocks.push(block);
            Ok(())
        })?;
        Ok(scanner.span_from(start))
    }

    fn tools(&mut self, scanner: &mut Scanner<'_>) -> Result<(), ParseError> {
        let start = scanner.at();
        if scanner.peek() != Some(b'[') {
            self.tools_span = Some(scanner.skip(1)?);
            return Ok(());
        }
        scanner.array(1, |scanner| {
            if self.tools.len() == MAX_ITEMS {
                return Err(scanner.fault(Fault::TooMany));
            }
            let tool = scanner.skip(2)?;
            self.tools.push(tool);
            Ok(())
        })?;
        self.tools_span = Some(scanner.span_from(start));
        Ok(())
    }

    fn metadata(&mut self, body: &[u8], scanner: &mut Scanner<'_>) -> Result<(), ParseError> {
        let start = scanner.at();
        if scanner.peek() != Some(b'{') {
            self.metadata = Some(scanner.skip(1)?);
            return Ok(());
        }
        let mut seen = false;
        scanner.object(1, |scanner, name| {
            let value_is_user_id = which(&["user_id"], body, name).is_some();
            if value_is_user_id && seen {
                return Err(duplicate("metadata.user_id", name));
            }
            let value = scanner.skip(2)?;
            if value_is_user_id {
                seen = true;
                self.user_id = value.of(body).starts_with(b"\"").then_some(value);
            }
            Ok(())
        })?;
        self.metadata = Some(scanner.span_from(start));
        Ok(())
    }

    fn finish(self, body: &[u8]) -> Result<Index, ParseError> {
        let (model, model_span) =
            self.model.ok_or(ParseError { member: "model", offset: body.len(), fault: Fault::Missing })?;
        let [max_tokens, completion, output] = self.limits;
        Ok(Index {
            model,
            model_span,
            stream: self.stream,
            max_tokens: max_tokens.or(completion).or(output),
            system: self.system,
            messages_span: self.messages_span,
            messages: self.messages,
            blocks: self.blocks,
            tools_span: self.tools_span,
            tools: self.tools,
            user_id: self.user_id,
            metadata: self.metadata,
            service_tier: self.service_tier,
            speed: self.speed,
            others: (!self.too_many_others).then_some(self.others),
        })
    }
}

fn duplicate(member: &'static str, name: Span) -> ParseError {
    ParseError { member, offset: name.start as usize, fault: Fault::Duplicate }
}

fn model(body: &[u8], scanner: &mut Scanner<'_>) -> Result<(Box<str>, Span), ParseError> {
    let offset = scanner.at();
    let fail = |fault| ParseError { member: "model", offset, fault };
    let span = scanner.skip(1)?;
    let name = text(span.of(body)).ok_or(fail(Fault::NotAString))?;
    // At most 256 bytes are at most 256 characters; only longer names are counted.
    if name.len() > MAX_MODEL_CHARS && name.chars().count() > MAX_MODEL_CHARS {
        return Err(fail(Fault::TooLong));
    }
    Ok((name.into(), span))
}

fn whole_number(raw: &[u8]) -> Option<u64> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

fn role_of(raw: &[u8]) -> Role {
    match text(raw).as_deref() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        _ => Role::Other,
    }
}
