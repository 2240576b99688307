//! `audit query`.

use crate::client::{Ask, Client};
use crate::commands::admin::users::actor_of;
use crate::exit::{CliError, Exit};
use crate::output::{Column, Output, column};
use crate::paging::Paging;
use serde_json::{Value, json};
use systemprompt_audit::export::Format;
use systemprompt_models::span::{Moment, parse_moment};
use systemprompt_models::{Clock, SystemClock};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Oldest first
    #[arg(long)]
    ascending: bool,
    #[command(flatten)]
    paging: Paging,
}

/// What entries must fit. Several conditions must all hold.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Such as governance.decision or `tool.*`; may be given several times
    #[arg(long)]
    kind: Vec<String>,
    /// Who acted: name or id of a user, or system
    #[arg(long, value_name = "USER")]
    actor: Option<String>,
    /// What it was about, as KIND:ID
    #[arg(long, value_name = "KIND:ID")]
    subject: Option<String>,
    /// Such as allow, deny, ok or refused
    #[arg(long)]
    outcome: Option<String>,
    /// Policy or rule band that decided
    #[arg(long)]
    policy: Option<String>,
    #[arg(long, value_name = "ID")]
    trace_id: Option<String>,
    #[arg(long, value_name = "ID")]
    session_id: Option<String>,
    #[arg(long, value_name = "ID")]
    context_id: Option<String>,
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Stream of a node
    #[arg(long)]
    stream: Option<String>,
    /// From this moment on: 2026-11-22, 2026-11-22T04:06:17Z, or 15m (ago)
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Moment>,
    /// Up to this moment
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Moment>,
}

/// Largest page of the ledger.
const PAGE: u32 = 500;
const COLUMNS: &[Column] = &[
    column("at", "/at_iso"),
    column("kind", "/kind"),
    column("outcome", "/outcome"),
    column("actor", "/record/actor/id"),
    column("subject", "/record/subject_entity/kind"),
    column("", "/record/subject_entity/id"),
    column("policy", "/policy"),
    column("reason", "/reason"),
    column("id", "/id"),
];

impl Filter {
    /// The same with the id of whoever was named, and with spans counted from now on, so that every page is of one filter.
    ///
    /// # Errors
    /// A name that no user has.
    pub async fn resolved(mut self, client: &Client) -> Result<Self, CliError> {
        if let Some(actor) = &self.actor {
            self.actor = Some(actor_of(client, actor).await?);
        }
        let now = SystemClock.now();
        self.since = self.since.map(|m| Moment::At(m.at(now)));
        self.until = self.until.map(|m| Moment::At(m.at(now)));
        Ok(self)
    }

    /// The body of an export.
    pub fn export(&self, format: Format, from: Option<i64>, to: Option<i64>) -> Value {
        let now = SystemClock.now();
        let mut body = json!({
            "format": format.as_str(),
            "from": from,
            "to": to,
            "kinds": self.kind,
            "actor": self.actor,
            "subject": self.subject,
            "outcome": self.outcome,
            "policy": self.policy,
            "trace_id": self.trace_id,
            "session_id": self.session_id,
            "context_id": self.context_id,
            "client_id": self.client_id,
            "stream": self.stream,
            "since": self.since.map(|m| m.at(now)),
            "until": self.until.map(|m| m.at(now)),
        });
        if let Some(map) = body.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
        body
    }

    /// The same for who reads the database; users are named by their ids there.
    pub fn read(&self) -> systemprompt_audit::Filter {
        let now = SystemClock.now();
        let (subject_kind, subject_id) =
            match self.subject.as_ref().and_then(|subject| subject.split_once(':')) {
                Some((kind, id)) => (Some(kind.to_owned()), Some(id.to_owned())),
                None => (self.subject.clone(), None),
            };
        systemprompt_audit::Filter {
            kind: (!self.kind.is_empty()).then(|| self.kind.join(",")),
            actor: self.actor.clone(),
            subject_kind,
            subject_id,
            outcome: self.outcome.clone(),
            policy: self.policy.clone(),
            trace_id: self.trace_id.clone(),
            session_id: self.session_id.clone(),
            context_id: self.context_id.clone(),
            client_id: self.client_id.clone(),
            stream: self.stream.clone(),
            since: self.since.map(|m| m.at(now)),
            until: self.until.map(|m| m.at(now)),
            ascending: true,
        }
    }

    /// The request for entries that fit. Spans count from now.
    pub fn ask(&self) -> impl Fn() -> Ask<'static> + '_ {
        let now = SystemClock.now();
        let (since, until) = (self.since.map(|m| m.at(now)), self.until.map(|m| m.at(now)));
        move || {
            Ask::get("/api/v1/admin/audit")
                .query("kind", (!self.kind.is_empty()).then(|| self.kind.join(",")))
                .query("actor", self.actor.as_ref())
                .query("subject", self.subject.as_ref())
                .query("outcome", self.outcome.as_ref())
                .query("policy", self.policy.as_ref())
                .query("trace_id", self.trace_id.as_ref())
                .query("session_id", self.session_id.as_ref())
                .query("context_id", self.context_id.as_ref())
                .query("client_id", self.client_id.as_ref())
                .query("stream", self.stream.as_ref())
                .query("since", since)
                .query("until", until)
        }
    }
}

pub async fn run(client: &Client, out: Output, args: &Args) -> Result<Exit, CliError> {
    let filter = args.filter.clone().resolved(client).await?;
    let ask = filter.ask();
    let ordered = || ask().query("order", args.ascending.then_some("asc"));
    let page = args.paging.read(client, "the ledger cannot be queried", PAGE, ordered).await?;
    out.list(&page, COLUMNS)?;
    Paging::tell_rest(&page)?;
    Ok(Exit::Ok)
}
