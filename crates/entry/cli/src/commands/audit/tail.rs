//! `audit tail`: the last entries, and with `--follow` those to come.

use super::query::Filter;
use crate::client::Client;
use crate::exit::{CliError, Exit};
use crate::output::{Output, cell};
use crate::paging::Paging;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::time::Duration;
use systemprompt_audit::After;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
    /// How many
    #[arg(short = 'n', long, visible_alias = "limit", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    lines: u32,
    /// Goes on with what comes, until it is interrupted
    #[arg(short, long)]
    follow: bool,
}

const PAGE: u32 = 500;
const EVERY: Duration = Duration::from_secs(1);
const WHAT: &str = "the ledger cannot be read";

pub async fn run(client: &Client, out: Output, args: &Args) -> Result<Exit, CliError> {
    if args.follow && !out.is_by_line() {
        return Err(CliError::new(Exit::Usage, "--follow has no end, so it cannot be one document")
            .fix("use --output ndjson or text"));
    }
    let filter = args.filter.clone().resolved(client).await?;
    let ask = filter.ask();
    let mut page = Paging::of(args.lines).read(client, WHAT, PAGE, &ask).await?;
    let mut items = page.get_mut("items").map(Value::take).unwrap_or_default();
    if let Some(items) = items.as_array_mut() {
        items.reverse();
    }
    if !out.is_by_line() {
        out.document(&json!({"items": items, "next": null}), "")?;
        return Ok(Exit::Ok);
    }
    show(out, &items)?;
    if !args.follow {
        return Ok(Exit::Ok);
    }
    let order = filter.read();
    let mut last = place(&items, &order);
    loop {
        tokio::time::sleep(EVERY).await;
        let ask = ask().query("order", Some("asc")).query("limit", Some(PAGE)).query("cursor", last.as_ref());
        let page = client.json(WHAT, ask).await?;
        let items = page.get("items").cloned().unwrap_or_default();
        show(out, &items)?;
        last = place(&items, &order).or(last);
    }
}

fn show(out: Output, items: &Value) -> Result<(), CliError> {
    items.as_array().into_iter().flatten().try_for_each(|item| out.step(item, &text(item)))
}

/// The cursor behind the last item. With a fixed filter and a cursor that moves, following counts as one reading a minute.
fn place(items: &Value, filter: &systemprompt_audit::Filter) -> Option<String> {
    let last = items.as_array()?.last()?;
    let stream = last.get("stream")?.as_str()?.to_owned();
    let after = After { at: last.get("at")?.as_i64()?, stream, seq: last.get("seq")?.as_i64()? };
    Some(URL_SAFE_NO_PAD.encode(after.cursor(filter)))
}

fn text(item: &Value) -> String {
    let of = |pointer: &str| item.pointer(pointer).map(cell).unwrap_or_default();
    let subject = match (of("/record/subject_entity/kind"), of("/record/subject_entity/id")) {
        (kind, id) if kind.is_empty() && id.is_empty() => String::new(),
        (kind, id) => format!("{kind}:{id}"),
    };
    let rest = [subject, of("/policy"), of("/reason"), of("/record/actor/id"), of("/id")];
    let rest: Vec<String> = rest.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{}  {:<22} {:<8} {}", of("/at_iso"), of("/kind"), of("/outcome"), rest.join("  "))
}
