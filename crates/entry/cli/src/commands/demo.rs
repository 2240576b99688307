//! `demo`: the main job, allowed and refused, against the server of the profile; without one, against a server of its own on a
//! temporary folder. A line per step with its ledger entry; 0 only if every step came out as it must.

mod live;
mod model;
mod needles;
mod own;
mod planted;
mod proof;
mod stage;
mod step;
mod tools;

use crate::client::{Ask, Client};
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Output, note};
use own::OwnServer;
use stage::Stage;
use std::time::Duration;
use step::Show;
use systemprompt_config::ProfileLocation;

/// How long a server may take to show that it is there.
const PROBE: Duration = Duration::from_secs(5);

pub async fn run(globals: &Globals) -> Result<Exit, CliError> {
    let out = Output::new(globals);
    if let Some((client, location)) = running(globals).await? {
        return on_stage(out, client, &location, None).await;
    }
    note("no server is running: starting one on a temporary folder")?;
    let mut own = OwnServer::start().await?;
    let done = match own.client() {
        Ok(client) => on_stage(out, client, own.location(), Some(&own)).await,
        Err(error) => Err(error),
    };
    own.stop().await;
    done
}

/// The server that is running, and the folder that it works on. One that was named must answer.
async fn running(globals: &Globals) -> Result<Option<(Client, ProfileLocation)>, CliError> {
    let location = globals.location()?;
    if globals.url.is_none() && !location.profile_file().is_file() {
        return Ok(None);
    }
    if location.profile_file().is_file() {
        // A broken profile is told as such, and not by what fails of it later.
        globals.load_profile()?;
    }
    let client = Client::connect(globals)?;
    match client.send(Ask::get("/health/live").timeout(PROBE)).await {
        Ok(_) => Ok(Some((client, location))),
        Err(error) if error.exit == Exit::Unreachable && globals.url.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn on_stage(
    out: Output,
    client: Client,
    location: &ProfileLocation,
    own: Option<&OwnServer>,
) -> Result<Exit, CliError> {
    let stage = Stage::set(client, location, own.map(OwnServer::log)).await?;
    stage.tidy().await?;
    let mut show = Show::new(out);
    tokio::select! {
        played = play(&stage, &mut show) => played?,
        _ = tokio::signal::ctrl_c() => {
            stage.tidy().await?;
            return Err(CliError::new(Exit::Interrupted, "interrupted").why("what the demo had changed is back as it was"));
        }
    }
    show.end()
}

/// Every step, in order. A step that fails does not keep the others from being made.
async fn play(stage: &Stage, show: &mut Show) -> Result<(), CliError> {
    show.step(model::answered(stage).await)?;
    show.step(model::streamed(stage).await)?;
    for planted in planted::all() {
        show.step(model::planted(stage, &planted).await)?;
    }
    show.step(tools::looked_up(stage).await)?;
    for encoding in tools::ENCODINGS {
        show.step(tools::leaked(stage, encoding).await)?;
    }
    show.step(tools::environment(stage).await)?;
    // A tool takes what its schema allows: short texts. What is longer is tried at the hooks' door.
    for planted in planted::all() {
        show.step(match planted.value.len() {
            ..=tools::LONGEST => tools::planted(stage, &planted).await,
            _ => live::hook(stage, &planted).await,
        })?;
    }
    show.step(tools::blocked(stage).await)?;
    show.step(tools::out_of_scope(stage).await)?;
    show.step(live::rate(stage).await)?;
    for step in live::rule(stage).await {
        show.step(step)?;
    }
    show.step(proof::explained(stage).await)?;
    show.step(proof::nowhere(stage).await)?;
    show.step(proof::verified(stage).await)
}
