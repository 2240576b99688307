//! `accept audit`: what leaves the ledger, in the hands of others: Detection Findings of the OCSF export in the models of PyPI's
//! `py-ocsf-models`, and every line of it with the ids that the ledger knows.

use super::{Tally, clients};
use anyhow::Result;
use serde_json::json;
use systemprompt_tests::Options;
use xtask::process::{cargo, run, target};

pub(super) fn audit() -> Result<Tally> {
    let models = clients::python("ocsf-models", "py-ocsf-models==0.10.0")?;
    run(&mut cargo(["build", "--package", "systemprompt-cli"]))?;
    let server = Options::demo_with(target().join("debug/systemprompt")).start()?;
    let given = json!({
        "url": server.url(),
        "admin_token": server.admin_token(),
        "user_token": server.user_token(),
    });
    let mut tally = Tally::default();
    tally.script(&models, "ocsf.py", &given)?;
    Ok(tally)
}
