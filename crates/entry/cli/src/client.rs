//! The client of our own API: the running server of the profile, reached over HTTP with the operator's credential; or, with
//! `--offline`, the same router in this process on the database. Commands see no difference.

mod answer;
mod ask;
mod target;

pub use answer::Answer;
pub use ask::{Ask, encoded};
pub use target::server_url;

use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::offline::Offline;
use serde_json::Value;
use systemprompt_net::Egress;
use target::Target;

/// Largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Takes an answer piece by piece.
type Take<'a> = dyn FnMut(&[u8]) -> Result<(), CliError> + 'a;

/// A client. Close it when the command is done.
pub struct Client {
    target: Target,
    transport: Transport,
}

enum Transport {
    Http(Egress),
    Offline(Box<Offline>),
}

impl Client {
    /// A client of the running server.
    ///
    /// # Errors
    /// When no address of a server is known.
    pub fn connect(globals: &Globals) -> Result<Self, CliError> {
        Self::to(Target::find(globals)?)
    }

    /// A client of the server at `url`, with a token or none.
    ///
    /// # Errors
    /// An address that is none.
    pub fn at(url: &str, token: Option<String>) -> Result<Self, CliError> {
        Self::to(Target { url: url.trim_end_matches('/').to_owned(), token })
    }

    fn to(target: Target) -> Result<Self, CliError> {
        let egress = target.egress()?;
        Ok(Self { transport: Transport::Http(egress), target })
    }

    /// The running server, or the database when `offline` is asked for.
    ///
    /// # Errors
    /// As [`Self::connect`]; offline also what keeps the database from being opened.
    pub async fn open(globals: &Globals, offline: bool) -> Result<Self, CliError> {
        if !offline {
            return Self::connect(globals);
        }
        let offline = Offline::open(globals).await?;
        let target = Target { url: "http://localhost".to_owned(), token: Some(offline.token().to_owned()) };
        Ok(Self { target, transport: Transport::Offline(Box::new(offline)) })
    }

    /// Opens a client, does the work, and closes it.
    ///
    /// # Errors
    /// Those of [`Self::open`] and of the work.
    pub async fn with<T>(
        globals: &Globals,
        offline: bool,
        work: impl AsyncFnOnce(&Self) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let client = Self::open(globals, offline).await?;
        let done = work(&client).await;
        client.close().await;
        done
    }

    /// Ends what an offline client has booted.
    pub async fn close(self) {
        if let Transport::Offline(offline) = self.transport {
            offline.close().await;
        }
    }

    /// Where this client sends to.
    pub fn url(&self) -> &str {
        &self.target.url
    }

    /// Sends, and takes any answer.
    ///
    /// # Errors
    /// A server that cannot be reached, or an answer beyond the bound.
    pub async fn send(&self, ask: Ask<'_>) -> Result<Answer, CliError> {
        let token = ask.token.or(self.target.token.as_deref());
        match &self.transport {
            Transport::Http(egress) => self.over_http(egress, &ask, token, None).await,
            Transport::Offline(offline) => offline.answer(&ask, token).await,
        }
    }

    /// Sends, and takes a JSON answer of success. `what` begins the sentence of an error.
    ///
    /// # Errors
    /// As [`Self::send`]; a refusal as its exit code.
    pub async fn json(&self, what: &str, ask: Ask<'_>) -> Result<Value, CliError> {
        self.success(what, ask).await.map(|answer| answer.json())
    }

    /// Sends, and takes an answer of success.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub async fn success(&self, what: &str, ask: Ask<'_>) -> Result<Answer, CliError> {
        let answer = self.send(ask).await?;
        if answer.is_success() { Ok(answer) } else { Err(self.refusal(what, &answer).await) }
    }

    /// A refusal as an error. Where a credential does not count because the server's ledger refuses, which kept it from being
    /// renewed, that is the cause, and another sign-in would not help.
    async fn refusal(&self, what: &str, answer: &Answer) -> CliError {
        let error = answer.refusal(what);
        if answer.status != 401 || matches!(self.transport, Transport::Offline(_)) {
            return error;
        }
        let Ok(health) = self.send(Ask::get("/health/ready")).await else { return error };
        let health = health.json();
        let checks = health.get("checks").and_then(Value::as_array).into_iter().flatten();
        let mut codes = checks.filter_map(|check| check.get("code").and_then(Value::as_str));
        match codes.find(|code| matches!(*code, "ledger_rollback" | "ledger_damaged")) {
            Some(code) => error.refused_by_ledger(code),
            None => error,
        }
    }

    /// Sends, and gives an answer of success piece by piece to `take`, however long it is.
    ///
    /// # Errors
    /// As [`Self::json`], and those of `take`. An answer that breaks off is one.
    pub async fn save(&self, what: &str, ask: Ask<'_>, take: &mut Take<'_>) -> Result<(), CliError> {
        let token = ask.token.or(self.target.token.as_deref());
        let answer = match &self.transport {
            Transport::Http(egress) => self.over_http(egress, &ask, token, Some(take)).await?,
            Transport::Offline(offline) => {
                let answer = offline.answer(&ask, token).await?;
                if answer.is_success() {
                    take(&answer.body)?;
                }
                answer
            }
        };
        if answer.is_success() { Ok(()) } else { Err(self.refusal(what, &answer).await) }
    }

    async fn over_http(
        &self,
        egress: &Egress,
        ask: &Ask<'_>,
        token: Option<&str>,
        mut take: Option<&mut Take<'_>>,
    ) -> Result<Answer, CliError> {
        let url = format!("{}{}", self.target.url, ask.path);
        let mut request = egress.request(ask.method.clone(), &url).map_err(|e| self.unreachable(&e))?;
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &ask.body {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.clone());
        }
        let mut response =
            egress.send(request.timeout(ask.timeout)).await.map_err(|e| self.unreachable(&e))?;
        let mut answer = Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: Vec::new(),
        };
        loop {
            let chunk =
                response.chunk().await.map_err(|e| self.broken(answer.is_success(), &e.without_url()))?;
            let Some(chunk) = chunk else { return Ok(answer) };
            if answer.is_success()
                && let Some(take) = take.as_mut()
            {
                take(&chunk)?;
                continue;
            }
            if answer.body.len() + chunk.len() > MAX_ANSWER {
                return Err(CliError::new(Exit::Failure, "the answer is too large")
                    .why(format!("more than {} MiB", MAX_ANSWER >> 20))
                    .fix("ask for less with --limit")
                    .trace(answer.trace_id()));
            }
            answer.body.extend_from_slice(&chunk);
        }
    }

    /// An answer that began and broke off is no server that does not answer.
    fn broken(&self, has_begun: bool, error: &dyn std::error::Error) -> CliError {
        if has_begun {
            CliError::new(Exit::Failure, "the answer broke off").why(error)
        } else {
            self.unreachable(error)
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> CliError {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            why = inner.to_string();
            cause = inner.source();
        }
        CliError::new(Exit::Unreachable, format!("the server at {} does not answer", self.target.url))
            .why(why)
            .fix("start it with `systemprompt serve`, or name another with --url")
    }
}
