//! What the steps work with: a client, tokens of ada and bob, the secret to look for, and every answer that was heard.

use super::needles::Needles;
use super::planted;
use super::step::Outcome;
use crate::client::{Answer, Ask, Client, encoded};
use crate::exit::{CliError, Exit};
use crate::node::invalid;
use crate::paging::Paging;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use systemprompt_config::bootstrap::SecretsBootstrap;
use systemprompt_config::{LoadOptions, ProcessEnvironment, ProfileLocation};
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Clock, Millis, SystemClock};
use systemprompt_runtime::demo::DEMO_SECRET;

/// What marks a rule of this demo, so that one that an interrupted run left behind is found.
pub const MARK: &str = "made by `systemprompt demo`, which takes it back";
const RULES: &str = "/api/v1/admin/rules";
/// How often a record that is written behind the answer is asked for again.
const CLOSING_TRIES: usize = 40;
const CLOSING_PAUSE: Duration = Duration::from_millis(50);

pub struct Stage {
    pub client: Client,
    pub bob: String,
    pub bob_id: String,
    /// ada in a session of her own, whose calls nobody else's limit counts.
    pub ada: String,
    pub needles: Needles,
    pub since: Millis,
    pub location: ProfileLocation,
    /// The log of a server that the demo has started itself.
    pub log: Option<PathBuf>,
    heard: Mutex<Vec<String>>,
    denial: Mutex<Option<String>>,
}

impl Stage {
    /// Looks for the people and the secret that `up --demo` makes.
    ///
    /// # Errors
    /// A server without them, or one whose secrets file is not on this machine.
    pub async fn set(
        client: Client,
        location: &ProfileLocation,
        log: Option<&Path>,
    ) -> Result<Self, CliError> {
        let unfit = |error: CliError| match error.exit {
            Exit::NotFound => {
                error.fix("the demo needs a server that was started with `systemprompt up --demo`")
            }
            _ => error,
        };
        let bob = client.json("there is no bob", Ask::get("/api/v1/admin/users/bob")).await.map_err(unfit)?;
        let planted = planted::all();
        // Of a key in several lines the line that holds it: line ends look different in JSON.
        let lines =
            planted.iter().flat_map(|planted| planted.value.lines()).filter(|line| !line.starts_with("--"));
        let needles = Needles::new(&secret(location)?, lines.map(str::to_owned));
        Ok(Self {
            bob: token(&client, "bob").await.map_err(unfit)?,
            ada: token(&client, "ada").await.map_err(unfit)?,
            bob_id: bob.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(),
            needles,
            since: SystemClock.now(),
            location: location.clone(),
            log: log.map(Path::to_owned),
            heard: Mutex::default(),
            denial: Mutex::default(),
            client,
        })
    }

    /// Sends as somebody, under a trace id of its own, and keeps the answer for the search at the end.
    ///
    /// # Errors
    /// A server that does not answer.
    pub async fn send(&self, ask: Ask<'_>) -> Result<(String, Answer), CliError> {
        let trace = TraceId::generate().to_string();
        let answer = self.client.send(ask.header("x-trace-id", &trace)).await?;
        let headers: Vec<String> =
            answer.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        self.hear(format!("{}\n{}", headers.join("\n"), answer.text()));
        Ok((trace, answer))
    }

    pub fn hear(&self, text: String) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// How many answers were heard, and whether one of them holds a secret.
    pub fn search(&self) -> (usize, bool) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.len(), heard.iter().any(|text| self.needles.are_in(text)))
    }

    /// Remembers a denial, to have it explained.
    pub fn remember(&self, decision_id: &str) {
        *self.denial.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision_id.to_owned());
    }

    pub fn remembered(&self) -> Option<String> {
        self.denial.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is recorded under a trace id: each `(kind, outcome)` that must be there, then the outcome of the step. A closing
    /// record may come a moment after the answer.
    ///
    /// # Errors
    /// When nothing is recorded.
    pub async fn recorded(&self, trace: &str, wanted: &[(&str, &str)]) -> Result<Record, CliError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let ask = Ask::get(&format!("/api/v1/explain/{}", encoded(trace)));
            let found = self.client.send(ask).await?;
            self.hear(found.text());
            let record = Record(found.json());
            let missing = wanted.iter().find(|(kind, outcome)| record.entry(kind, outcome).is_none());
            match missing {
                None => return Ok(record),
                Some(_) if tries < CLOSING_TRIES => tokio::time::sleep(CLOSING_PAUSE).await,
                Some((kind, outcome)) => {
                    let kinds = record.kinds().join(", ");
                    return Err(CliError::new(Exit::Failure, format!("no record {kind} {outcome}"))
                        .why(format!("recorded: {kinds}")));
                }
            }
        }
    }

    /// Takes back what a demo may have changed: rules that bear its mark.
    ///
    /// # Errors
    /// When rules cannot be read or deleted.
    pub async fn tidy(&self) -> Result<(), CliError> {
        let what = "the rules of an earlier demo cannot be taken back";
        let page = Paging::of(10_000).read(&self.client, what, 200, || Ask::get(RULES)).await?;
        for rule in page.get("items").and_then(Value::as_array).into_iter().flatten() {
            if rule.get("justification").and_then(Value::as_str) == Some(MARK) {
                self.drop_rule(rule).await?;
            }
        }
        Ok(())
    }

    /// Makes a rule with the demo's mark.
    ///
    /// # Errors
    /// When it is not made.
    pub async fn make_rule(
        &self,
        entity: (&str, &str),
        subject: (&str, &str),
        access: &str,
    ) -> Result<Value, CliError> {
        let body = json!({
            "entity_type": entity.0, "entity_id": entity.1, "rule_type": subject.0, "rule_value": subject.1,
            "access": access, "justification": MARK,
        });
        self.client.json("the rule was not made", Ask::post(RULES, &body)).await
    }

    /// Deletes a rule as it was read.
    ///
    /// # Errors
    /// When it is not deleted.
    pub async fn drop_rule(&self, rule: &Value) -> Result<(), CliError> {
        let id = rule.get("id").and_then(Value::as_str).unwrap_or_default();
        let version = rule.get("version").and_then(Value::as_i64).unwrap_or_default();
        let ask =
            Ask::delete(&format!("{RULES}/{}", encoded(id))).header("if-match", format!("\"v{version}\""));
        self.client.success("the rule was not deleted", ask).await.map(drop)
    }
}

async fn token(client: &Client, user: &str) -> Result<String, CliError> {
    let body = json!({"user": user, "ttl_s": 900});
    let issued = client
        .json(&format!("there is no token for {user}"), Ask::post("/api/v1/admin/tokens", &body))
        .await?;
    Ok(issued.get("token").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// The value that must never show, from the secrets of the profile. A broken profile is told as such.
fn secret(location: &ProfileLocation) -> Result<String, CliError> {
    let missing = || {
        CliError::new(Exit::NotFound, "the demo's secret is not on this machine")
            .why("without it nobody can tell whether an answer shows it")
            .fix("name the data folder of the server with --data-dir")
    };
    let loaded = systemprompt_config::load::load_profile(&LoadOptions::new(location.clone()));
    let (profile, _) = loaded.map_err(invalid)?;
    let paths = location.resolve(&profile);
    let secrets = SecretsBootstrap::load(&profile, &paths, &ProcessEnvironment, true);
    let secrets = secrets.map_err(invalid)?.get();
    secrets.get(DEMO_SECRET).map(|value| value.expose().clone()).ok_or_else(missing)
}

/// The records of one call, as `explain` tells them.
pub struct Record(Value);

impl Record {
    pub fn entry(&self, kind: &str, outcome: &str) -> Option<&Value> {
        let is =
            |entry: &Value, name: &str, value: &str| entry.get(name).and_then(Value::as_str) == Some(value);
        self.entries().find(|entry| is(entry, "kind", kind) && is(entry, "outcome", outcome))
    }

    fn entries(&self) -> impl Iterator<Item = &Value> {
        self.0.get("entries").and_then(Value::as_array).into_iter().flatten()
    }

    fn kinds(&self) -> Vec<String> {
        let text = |entry: &Value, name: &str| entry.get(name).map(crate::output::cell).unwrap_or_default();
        self.entries().map(|entry| format!("{} {}", text(entry, "kind"), text(entry, "outcome"))).collect()
    }

    pub fn decision(&self, name: &str) -> Option<&str> {
        self.0.get("decision")?.get(name)?.as_str()
    }

    /// The outcome of a step whose proof is the entry of a kind.
    pub fn outcome(&self, ok: bool, got: impl Into<String>, kind: &str) -> Outcome {
        let entry = self.entries().find(|entry| entry.get("kind").and_then(Value::as_str) == Some(kind));
        Outcome {
            ok: ok && self.0.get("intact") == Some(&json!(true)),
            got: got.into(),
            decision_id: self.decision("id").map(str::to_owned),
            ledger_id: entry.and_then(|entry| entry.get("id")?.as_str()).map(str::to_owned),
        }
    }
}
