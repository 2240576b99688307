//! A step: what must come out, what did, and where it is recorded.

use crate::exit::{CliError, Exit};
use crate::output::{Output, note, plain};
use serde::Serialize;
use serde_json::{Value, json};

/// One line of the demo.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    #[serde(rename = "step")]
    pub name: String,
    pub ok: bool,
    pub expected: String,
    pub got: String,
    pub decision_id: Option<String>,
    pub ledger_id: Option<String>,
}

impl Step {
    pub fn new(name: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok: false,
            expected: expected.into(),
            got: String::new(),
            decision_id: None,
            ledger_id: None,
        }
    }

    /// The step with what came out; an error is a step that failed.
    pub fn came_out(mut self, outcome: Result<Outcome, CliError>) -> Self {
        match outcome {
            Ok(outcome) => Self {
                ok: outcome.ok,
                got: outcome.got,
                decision_id: outcome.decision_id,
                ledger_id: outcome.ledger_id,
                ..self
            },
            Err(error) => {
                let why = error.why.map_or_else(String::new, |why| format!(": {why}"));
                self.got = format!("{}{why}", error.what);
                self
            }
        }
    }

    fn text(&self, number: usize) -> String {
        let mark = if self.ok { "ok" } else { "FAIL" };
        let id = self.ledger_id.as_deref().unwrap_or("-");
        let cut = |text: &str| plain(text).chars().take(120).collect::<String>();
        format!(
            "{mark:<4} {number:>2}  {:<34}  expected: {:<50}  got: {:<62}  {id}",
            self.name,
            cut(&self.expected),
            cut(&self.got)
        )
    }
}

/// What came out of a step.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub ok: bool,
    pub got: String,
    pub decision_id: Option<String>,
    pub ledger_id: Option<String>,
}

/// Prints steps as they come out, and counts.
pub struct Show {
    out: Output,
    steps: Vec<Step>,
}

impl Show {
    pub fn new(out: Output) -> Self {
        Self { out, steps: Vec::new() }
    }

    pub fn step(&mut self, step: Step) -> Result<(), CliError> {
        let text = step.text(self.steps.len() + 1);
        let value = serde_json::to_value(&step).unwrap_or_default();
        self.steps.push(step);
        self.out.step(&value, &text)
    }

    /// The verdict: 0 only if there were steps and each came out.
    pub fn end(self) -> Result<Exit, CliError> {
        let failed = self.steps.iter().filter(|step| !step.ok).count();
        if !self.out.is_by_line() {
            let value: Value = json!({"ok": failed == 0, "steps": self.steps});
            self.out.document(&value, "")?;
        }
        if failed == 0 && !self.steps.is_empty() {
            note(&format!("all {} steps came out as they must", self.steps.len()))?;
            return Ok(Exit::Ok);
        }
        Err(CliError::new(Exit::Failure, format!("{failed} of {} steps did not come out", self.steps.len()))
            .fix("`systemprompt explain ID` shows why one came out as it did"))
    }
}
