//! The filter of ledger queries, from a query string.

use crate::extract::Query;
use systemprompt_audit::{After, EntryKind, Filter};
use systemprompt_config::diagnostic::nearest;
use systemprompt_models::{Code, Refusal};

/// Longest list of kinds.
const MAX_KINDS: usize = 64;

/// Names of the parameters that restrict.
pub(crate) const RESTRICTIONS: [&str; 12] = [
    "kind",
    "actor",
    "subject",
    "outcome",
    "policy",
    "trace_id",
    "session_id",
    "context_id",
    "client_id",
    "stream",
    "since",
    "until",
];

/// The filter that a query names.
///
/// # Errors
/// 400 `invalid_filter` naming the parameter.
pub(crate) fn filter(query: &Query) -> Result<Filter, Refusal> {
    let text = |name: &str| query.get(name).map(str::to_owned);
    let time = |name: &'static str| -> Result<Option<i64>, Refusal> {
        let parsed = query.get(name).map(|value| {
            value
                .parse()
                .map_err(|_| Refusal::new(Code::InvalidFilter, format!("{name}: epoch milliseconds")))
        });
        parsed.transpose()
    };
    let ascending = match query.get("order") {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(Refusal::new(Code::InvalidFilter, "order: allowed: asc, desc")),
    };
    let (subject_kind, subject_id) = subject(query.get("subject"))?;
    Ok(Filter {
        kind: query.get("kind").map(kinds).transpose()?,
        actor: text("actor"),
        subject_kind,
        subject_id,
        outcome: text("outcome"),
        policy: text("policy"),
        trace_id: text("trace_id"),
        session_id: text("session_id"),
        context_id: text("context_id"),
        client_id: text("client_id"),
        stream: text("stream"),
        since: time("since")?,
        until: time("until")?,
        ascending,
    })
}

/// `<kind>:<id>`.
pub(crate) fn subject(subject: Option<&str>) -> Result<(Option<String>, Option<String>), Refusal> {
    match subject.map(|subject| subject.split_once(':')) {
        None => Ok((None, None)),
        Some(Some((kind, id))) => Ok((Some(kind.to_owned()), Some(id.to_owned()))),
        Some(None) => Err(Refusal::new(Code::InvalidFilter, "subject: <kind>:<id>")),
    }
}

/// Kinds with commas between. One that is never written would find nothing and say nothing; so it is told, with what was
/// probably meant.
pub(crate) fn kinds(list: &str) -> Result<String, Refusal> {
    if list.split(',').count() > MAX_KINDS {
        return Err(Refusal::new(Code::InvalidFilter, format!("kind: at most {MAX_KINDS}")));
    }
    list.split(',').try_for_each(check_kind)?;
    Ok(list.to_owned())
}

fn check_kind(kind: &str) -> Result<(), Refusal> {
    let mut known = EntryKind::ALL.iter().map(|kind| kind.as_str());
    let is_known = match kind.strip_suffix('*') {
        Some(beginning) => known.any(|name| name.starts_with(beginning)),
        None => known.any(|name| name == kind),
    };
    if is_known {
        return Ok(());
    }
    let shown: String = kind.chars().take(64).collect();
    let meant = nearest(&shown, EntryKind::ALL.iter().map(|kind| kind.as_str()));
    let advice = meant.map_or_else(
        || "kinds are written like `governance.decision`, a group of them like `tool.*`".to_owned(),
        |meant| format!("did you mean `{meant}`?"),
    );
    Err(Refusal::new(Code::InvalidFilter, format!("there is no kind `{shown}`; {advice}")))
}

/// Where a cursor of this list goes on.
///
/// # Errors
/// 400 `invalid_cursor`, also for one that another filter or order gave.
pub(crate) fn after(cursor: &str, filter: &Filter) -> Result<Option<After>, Refusal> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let foreign =
        || Refusal::new(Code::InvalidCursor, "the cursor is none of this list with this filter and order");
    After::of_cursor(cursor, filter).ok_or_else(foreign).map(Some)
}
