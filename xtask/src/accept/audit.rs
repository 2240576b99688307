//! `accept audit`: the ledger's records and exports, read by libraries that are not ours (cases 1 and 14).

use super::{Tally, clients};
use anyhow::Result;
use serde_json::json;
use systemprompt_tests::Options;
use xtask::process::{cargo, run, target};

pub(super) fn audit() -> Result<Tally> {
    let readers = clients::python("records", "rfc8785==0.1.4 py-ocsf-models==0.10.0")?;
    run(&mut cargo(["build", "--package", "systemprompt-cli"]))?;
    let program = target().join("debug/systemprompt");
    let server = Options::demo_with(program.clone()).without_limits().start()?;
    let given = json!({
        "url": server.url(),
        "user_token": server.user_token(),
        "program": program,
        "data_dir": server.data_dir(),
    });
    let mut tally = Tally::default();
    tally.script(&readers, "records.py", &given)?;
    Ok(tally)
}
