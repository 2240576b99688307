//! Directives in the newest user text, `[[demo:NAME …]]` (GW-132). Every figure is bounded.

use serde_json::value::RawValue;
use std::time::Duration;

const MAX_LATENCY_MS: u64 = 60_000;
const MAX_SILENCE_S: u64 = 600;
const MAX_TOKENS: u64 = 100_000;
const MAX_RATE: u64 = 100_000;

/// What the directives of one text ask for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Tool to call, and its input if one is given.
    pub tool: Option<(String, Option<Box<RawValue>>)>,
    pub error: Option<u16>,
    pub latency: Duration,
    pub tokens: Option<u64>,
    /// Tokens a second.
    pub rate: Option<u64>,
    /// Events after which the connection breaks.
    pub cut: Option<u64>,
    pub silence: Duration,
    pub leak: Option<String>,
    pub stop: Option<String>,
    pub gzip: bool,
    /// Directives that mean nothing here, as they were written.
    pub unknown: Vec<String>,
}

/// Reads the directives of `text`. Sixteen count, more are left unread.
pub(super) fn plan(text: &str) -> Plan {
    let mut plan = Plan::default();
    let mut rest = text;
    for _ in 0..16 {
        let Some((_, after)) = rest.split_once("[[demo:") else { break };
        rest = take(after, &mut plan);
    }
    plan
}

/// Reads one directive behind its opening and answers what follows it.
fn take<'a>(text: &'a str, plan: &mut Plan) -> &'a str {
    if let Some((tool, after)) = tool(text) {
        plan.tool = Some(tool);
        return after;
    }
    let (inner, after) = text.split_once("]]").unwrap_or((text, ""));
    let mut words = inner.split_whitespace();
    let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let number = value.parse::<u64>().ok();
    let known = words.next().is_none()
        && match (name, number) {
            ("error", Some(status @ 400..=599)) => {
                plan.error = u16::try_from(status).ok();
                true
            }
            ("latency", Some(ms)) => {
                plan.latency = Duration::from_millis(ms.min(MAX_LATENCY_MS));
                true
            }
            ("tokens", Some(n)) => {
                plan.tokens = Some(n.min(MAX_TOKENS));
                true
            }
            ("rate", Some(n @ 1..)) => {
                plan.rate = Some(n.min(MAX_RATE));
                true
            }
            ("cut", Some(n)) => {
                plan.cut = Some(n);
                true
            }
            ("silence", Some(s)) => {
                plan.silence = Duration::from_secs(s.min(MAX_SILENCE_S));
                true
            }
            ("leak", None) if super::reply::specimen(value).is_some() => {
                plan.leak = Some(value.to_owned());
                true
            }
            ("stop", None) if !value.is_empty() && value.len() <= 64 => {
                plan.stop = Some(value.to_owned());
                true
            }
            ("encoding", None) if value == "gzip" => {
                plan.gzip = true;
                true
            }
            _ => false,
        };
    if !known {
        plan.unknown.push(inner.trim().chars().take(80).collect());
    }
    after
}

type Tool = (String, Option<Box<RawValue>>);

/// `tool NAME {json}]]`; the JSON may itself hold `]]`.
fn tool(text: &str) -> Option<(Tool, &str)> {
    let text = text.strip_prefix("tool ")?.trim_start();
    let end = text.find(|c: char| c.is_whitespace() || c == ']' || c == '{')?;
    let (name, rest) = text.split_at_checked(end)?;
    let rest = rest.trim_start();
    if name.is_empty() || name.len() > 128 {
        return None;
    }
    if let Some(after) = rest.strip_prefix("]]") {
        return Some(((name.to_owned(), None), after));
    }
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Box<RawValue>>();
    let input = values.next()?.ok().filter(|input| input.get().starts_with('{'))?;
    let after = rest.get(values.byte_offset()..)?.trim_start().strip_prefix("]]")?;
    Some(((name.to_owned(), Some(input)), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_and_bounded() {
        let plan = plan(
            "a [[demo:tool crm_lookup {\"a\":[[1]]} ]] b [[demo:latency 5]][[demo:tokens 7]] [[demo:rate 50]]\
             [[demo:cut 3]][[demo:silence 99999]][[demo:stop refusal]][[demo:encoding gzip]][[demo:leak aws]]\
             [[demo:error 529]]",
        );
        let (name, input) = plan.tool.unwrap();
        assert_eq!((name.as_str(), input.unwrap().get()), ("crm_lookup", "{\"a\":[[1]]}"));
        assert_eq!((plan.latency, plan.silence), (Duration::from_millis(5), Duration::from_mins(10)));
        assert_eq!((plan.tokens, plan.rate, plan.cut, plan.error), (Some(7), Some(50), Some(3), Some(529)));
        assert_eq!(
            (plan.stop.as_deref(), plan.gzip, plan.leak.as_deref()),
            (Some("refusal"), true, Some("aws"))
        );
        assert!(plan.unknown.is_empty());
    }

    #[test]
    fn what_means_nothing_is_told() {
        for text in [
            "dance",
            "error 200",
            "error x",
            "rate 0",
            "leak nothing",
            "tool",
            "tool x {",
            "cut 1 2",
            "encoding br",
        ] {
            let plan = plan(&format!("[[demo:{text}]] [[demo:tokens 1]]"));
            assert_eq!((plan.unknown, plan.tokens), (vec![text.to_owned()], Some(1)));
        }
        assert_eq!(plan("[[demo:never closed").unknown, ["never closed"]);
        assert!(plan("no directive [[demo").unknown.is_empty());
    }
}
