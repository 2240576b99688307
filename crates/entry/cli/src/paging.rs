//! Lists that come in pages: a command shows as many items as asked for, over as many pages as that takes.

use crate::client::{Ask, Client};
use crate::exit::CliError;
use crate::output::note;
use serde_json::{Value, json};

/// `--limit` and `--cursor`.
#[derive(Clone, Debug, clap::Args)]
pub struct Paging {
    /// Most items to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Where to go on, as an earlier list told
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

impl Paging {
    pub fn of(limit: u32) -> Self {
        Self { limit, cursor: None }
    }

    /// Reads pages of at most `size`. `ask` makes the request without its page.
    ///
    /// # Errors
    /// Those of the requests; `what` begins their sentence.
    pub async fn read<'a>(
        &self,
        client: &Client,
        what: &str,
        size: u32,
        ask: impl Fn() -> Ask<'a>,
    ) -> Result<Value, CliError> {
        let mut items = Vec::new();
        let mut cursor = self.cursor.clone();
        loop {
            let missing = (self.limit as usize).saturating_sub(items.len()).min(size as usize);
            let ask = ask().query("limit", Some(missing)).query("cursor", cursor.as_ref());
            let mut page = client.json(what, ask).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || items.len() >= self.limit as usize {
                break;
            }
        }
        Ok(json!({"items": items, "next": cursor}))
    }

    /// Says how to see what is left.
    ///
    /// # Errors
    /// None.
    pub fn tell_rest(page: &Value) -> Result<(), CliError> {
        match page.get("next").and_then(Value::as_str) {
            Some(cursor) => note(&format!("there are more: --cursor {cursor}, or a larger --limit")),
            None => Ok(()),
        }
    }
}
