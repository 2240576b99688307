//! `accept audit`: the ledger in the hands of others. PyPI's `rfc8785` makes the canonical form of each record again (case 1),
//! and `py-ocsf-models` loads the Detection Findings of the OCSF export (case 14).

use super::{Tally, clients};
use anyhow::Result;
use serde_json::json;
use systemprompt_tests::Options;
use xtask::process::{cargo, run, target};

pub(super) fn audit() -> Result<Tally> {
    let canonical = clients::python("rfc8785", "rfc8785==0.1.4")?;
    let models = clients::python("ocsf-models", "py-ocsf-models==0.10.0")?;
    run(&mut cargo(["build", "--package", "systemprompt-cli"]))?;
    let program = target().join("debug/systemprompt");
    let server = Options::demo_with(program.clone()).without_limits().start()?;
    let given = json!({
        "url": server.url(),
        "admin_token": server.admin_token(),
        "user_token": server.user_token(),
        "program": program,
        "data_dir": server.data_dir(),
    });
    let mut tally = Tally::default();
    tally.script(&canonical, "records.py", &given)?;
    tally.script(&models, "ocsf.py", &given)?;
    Ok(tally)
}
