//! Whether a server of the profile is running: something answers at an address of its, and publishes a key that the profile's key
//! file holds. Another deployment that has the port is told from it so, without a token being sent.

use crate::client::{Ask, Client, server_url};
use crate::credentials::Credentials;
use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use systemprompt_config::ProfileLocation;
use systemprompt_database::{Claim, ClaimError};

/// How long a server may take to show that it is there.
const PROBE: Duration = Duration::from_secs(2);

/// The address at which a server of this profile answers, if one does.
pub async fn running(globals: &Globals, location: &ProfileLocation) -> Option<String> {
    let stored = Credentials::read(location).map(|stored| stored.url);
    let profile = globals.load_profile().ok().map(|(_, profile)| profile);
    let keys = profile.as_ref().map(|profile| location.resolve(profile).signing_key_path);
    let own = keys.map(|file| key_ids(&file)).unwrap_or_default();
    let mut urls: Vec<String> = [stored, profile.as_ref().map(server_url)].into_iter().flatten().collect();
    urls.dedup();
    for url in urls {
        let Ok(client) = Client::at(&url, None) else { continue };
        if is_alive(&client).await && publishes(&client, &own).await {
            return Some(url);
        }
    }
    None
}

/// Refuses (6) what would take the ledger's stream away from a running server. Whether a SQLite file is served its lock knows; a
/// copy of a data folder is not taken for the folder that it was copied from.
///
/// # Errors
/// A server that is running.
pub async fn refuse(globals: &Globals, location: &ProfileLocation, fix: &str) -> Result<(), CliError> {
    let claimed = claim(location);
    if let Ok(Some(_)) = claimed {
        return Ok(());
    }
    let error = CliError::new(Exit::Conflict, "the server of this profile is running");
    match (running(globals, location).await, claimed) {
        (Some(url), _) => Err(error
            .why(format!("it answers at {url}; a second process would take its ledger away"))
            .fix(fix)),
        (None, Err(held @ ClaimError::Held { .. })) => Err(error.why(held).fix(fix)),
        (None, _) => Ok(()),
    }
}

/// Tries the lock of the profile's database, and gives it back at once; nothing where there is none to try.
fn claim(location: &ProfileLocation) -> Result<Option<Claim>, ClaimError> {
    match database::check(location.clone()) {
        Ok(Ok(loaded)) => Claim::take(loaded.database_url().expose()),
        _ => Ok(None),
    }
}

async fn is_alive(client: &Client) -> bool {
    let answer = client.send(Ask::get("/health/live").timeout(PROBE)).await;
    answer.is_ok_and(|answer| answer.json().get("status").is_some_and(|status| status == "ok"))
}

/// Whether one of the published keys is ours. A server that publishes nothing yet, while it starts, may be ours.
async fn publishes(client: &Client, own: &[String]) -> bool {
    let answer = client.send(Ask::get("/.well-known/jwks.json").timeout(PROBE)).await;
    let body = answer.map(|answer| answer.json()).unwrap_or_default();
    let published = body.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_own = |key: &Value| key.get("kid").is_some_and(|kid| own.iter().any(|id| kid == id));
    published.is_empty() || published.iter().any(is_own)
}

/// The names of the keys in a key file, and nothing else of it.
fn key_ids(file: &Path) -> Vec<String> {
    #[derive(Deserialize)]
    struct Ring {
        keys: Vec<Key>,
    }
    #[derive(Deserialize)]
    struct Key {
        kid: String,
    }
    let ring = File::open(file).ok().and_then(|file| serde_json::from_reader::<_, Ring>(file).ok());
    ring.map(|ring| ring.keys.into_iter().map(|key| key.kid).collect()).unwrap_or_default()
}
