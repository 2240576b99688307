//! The columns of `v_ledger` as RFC 4180. A cell that a spreadsheet would run as a formula gets an apostrophe before it.

use crate::repository::entries::LedgerRow;
use systemprompt_models::clock::iso8601;

const COLUMNS: [&str; 20] = [
    "stream",
    "seq",
    "id",
    "at",
    "kind",
    "actor_kind",
    "actor_id",
    "session_id",
    "context_id",
    "task_id",
    "trace_id",
    "client_id",
    "subject_kind",
    "subject_id",
    "outcome",
    "reason",
    "policy",
    "record",
    "prev_hash",
    "hash",
];

pub(crate) fn header(out: &mut String) {
    out.push_str(&COLUMNS.join(","));
    out.push_str("\r\n");
}

pub(crate) fn line(out: &mut String, row: &LedgerRow) {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let cells = [
        row.stream.clone(),
        row.seq.to_string(),
        row.id.clone(),
        iso8601(row.at),
        row.kind.clone(),
        text(&row.actor_kind),
        text(&row.actor_id),
        text(&row.session_id),
        text(&row.context_id),
        text(&row.task_id),
        text(&row.trace_id),
        text(&row.client_id),
        text(&row.subject_kind),
        text(&row.subject_id),
        text(&row.outcome),
        text(&row.reason),
        text(&row.policy),
        text(&row.record),
        row.prev_hash.clone(),
        row.hash.clone(),
    ];
    for (index, value) in cells.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        cell(out, value);
    }
    out.push_str("\r\n");
}

fn cell(out: &mut String, value: &str) {
    let is_formula = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let needs_quotes = value.contains([',', '"', '\n', '\r']);
    if needs_quotes {
        out.push('"');
    }
    if is_formula {
        out.push('\'');
    }
    if needs_quotes {
        out.push_str(&value.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_formulas_are_text() {
        for (value, cell_text) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@x", "'@x"),
            ("=a,b", "\"'=a,b\""),
        ] {
            let mut out = String::new();
            cell(&mut out, value);
            assert_eq!(out, cell_text);
        }
    }
}
