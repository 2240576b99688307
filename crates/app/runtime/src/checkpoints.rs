//! What the ledger's checkpoints are made with: their key, their schedule, their witnesses (AUD-42 to AUD-44); and what a
//! verification on this machine may trust besides the database.

use crate::boot::{BootError, instance_id, issuer_host};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use systemprompt_audit::checkpoint::Outside;
use systemprompt_audit::note::VerifierKey;
use systemprompt_audit::repair::{NodeOfRepair, RepairError, Repaired};
use systemprompt_audit::signing_key::{self, CommandSigner, Signer, SigningKeyError};
use systemprompt_audit::{CheckpointOptions, LedgerReader, ReadError, Witness, Witnesses, checkpoint};
use systemprompt_config::profile::audit::{WitnessConfig, WitnessKind};
use systemprompt_config::{Environment, Loaded, ProcessEnvironment};
use systemprompt_database::Db;
use systemprompt_models::{Clock, Millis, SystemClock};
use systemprompt_net::egress::{Class, Policy, client_under};
use systemprompt_security::keys::KeyRing;
use systemprompt_security::manifest_signing;

pub(crate) async fn options(
    loaded: &Loaded,
    db: &Db,
    ring: &KeyRing,
    node_id: &str,
    path: &str,
) -> Result<CheckpointOptions, BootError> {
    let signers = match &loaded.paths.ledger_key_command {
        Some(words) => signing_key::open_command(db, node_id, words, path).await?,
        None => signing_key::open_or_make(db, node_id, &loaded.paths.ledger_key_path).await?,
    };
    refuse_shared(loaded, ring, &signers.current.vkey(""))?;
    let schedule = &loaded.profile.audit.checkpoint;
    Ok(CheckpointOptions {
        signers,
        records: u64::from(schedule.records),
        every: Duration::from_secs(u64::from(schedule.seconds)),
        heartbeat: Duration::from_secs(u64::from(schedule.heartbeat_seconds)),
        witnesses: witnesses(loaded)?,
    })
}

/// Each key has one use: the checkpoint key signs no manifest and no token.
pub(crate) fn refuse_shared(loaded: &Loaded, ring: &KeyRing, key: &VerifierKey) -> Result<(), BootError> {
    let from = || match &loaded.paths.ledger_key_command {
        Some(_) => PathBuf::from("of the command"),
        None => loaded.paths.ledger_key_path.clone(),
    };
    let refused = |used: &'static str| Err(SigningKeyError::Shared(from(), used).into());
    let secrets = &loaded.secrets;
    if let (Some(seed), Some(jwt)) = (secrets.manifest_signing_secret_seed(), secrets.jwt_secret())
        && let Ok(manifest) = manifest_signing::signing_key(seed, jwt)
        && key.is_public(&manifest.public_key())
    {
        return refused("manifest key");
    }
    let (published, internal) = (ring.jwks(), ring.internal_jwks());
    let keys = [&published, &internal].into_iter().filter_map(|set| set.get("keys")?.as_array());
    if keys.flatten().any(|point| point.get("x").and_then(|x| x.as_str()).is_some_and(|x| key.is_public(x))) {
        return refused("key of tokens");
    }
    Ok(())
}

/// The witnesses of the profile.
///
/// # Errors
/// An address that may not be reached.
pub fn witnesses(loaded: &Loaded) -> Result<Witnesses, BootError> {
    let list = loaded.profile.audit.witness.iter().map(|witness| build(loaded, witness));
    Ok(Witnesses::new(list.collect::<Result<_, _>>()?))
}

fn build(loaded: &Loaded, witness: &WitnessConfig) -> Result<Witness, BootError> {
    match witness.kind {
        WitnessKind::File => {
            let path = witness.path.clone().unwrap_or_default();
            Ok(Witness::File(loaded.paths.data_dir().join(path)))
        }
        WitnessKind::Http => {
            let url = witness.url.clone().unwrap_or_default();
            let failed = |error| BootError::Witness(url.clone(), error);
            // An address that the operator wrote out may be in a private network.
            let allow_private = literal(&url).into_iter().filter_map(|net| net.parse().ok());
            let policy = Policy { allow_insecure: false, allow_private: allow_private.collect() };
            let hosts = crate::egress::hosts(loaded).map_err(|e| BootError::Egress(e.to_string()))?;
            let egress = client_under(Class::Operator, policy, hosts).map_err(failed)?;
            egress.check(&url).map_err(failed)?;
            Ok(Witness::Http { url, egress })
        }
    }
}

/// The IP address that a URL names instead of a host.
pub(crate) fn literal(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let host = rest.split('/').next()?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host.split(':').next()?,
    };
    let address: IpAddr = host.parse().ok()?;
    Some(format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
}

/// What a verification on this machine trusts besides the database: the node's own key for its streams, and the checkpoints
/// that it and its file witnesses keep.
///
/// # Errors
/// When the streams cannot be read. A key that cannot be read is left out.
pub async fn trust(loaded: &Loaded, reader: &LedgerReader) -> Result<(Vec<VerifierKey>, Outside), ReadError> {
    let node = instance_id(loaded);
    let mut keys = Vec::new();
    if let Some(signer) = signer(loaded).await {
        let streams = reader.streams().await?;
        keys.extend(streams.iter().filter(|s| s.node_id == node).map(|s| signer.vkey(&s.origin)));
    }
    Ok((keys, outside(loaded)))
}

/// The key that signs checkpoints, if it can be had.
async fn signer(loaded: &Loaded) -> Option<Signer> {
    match &loaded.paths.ledger_key_command {
        Some(words) => {
            let path = ProcessEnvironment.get("PATH").unwrap_or_default();
            CommandSigner::open(words, &path).await.ok().map(Signer::Command)
        }
        None => signing_key::load(&loaded.paths.ledger_key_path).ok().flatten().map(Signer::File),
    }
}

fn outside(loaded: &Loaded) -> Outside {
    let files: Vec<PathBuf> = match witnesses(loaded) {
        Ok(witnesses) => witnesses.files().iter().map(|path| path.to_path_buf()).collect(),
        Err(_) => Vec::new(),
    };
    checkpoint::outside_notes(loaded.paths.data_dir(), &files)
}

/// Closes this node's stream, if it does not verify, and opens its successor (`audit repair`).
///
/// # Errors
/// As [`systemprompt_audit::repair::repair`].
pub async fn repair(loaded: &Loaded, db: &Db, reason: &str) -> Result<Repaired, RepairError> {
    let host = issuer_host(&loaded.profile.jwt_issuer());
    let (node_id, signer) = (instance_id(loaded), signer(loaded).await);
    let node = NodeOfRepair {
        node_id: &node_id,
        origin_host: &host,
        data_dir: loaded.paths.data_dir(),
        signer: signer.as_ref(),
        notes: outside(loaded).notes,
    };
    systemprompt_audit::repair::repair(db, &node, reason, SystemClock.now()).await
}

/// Age of the oldest checkpoint of this node that one of its witnesses does not have, in milliseconds; `None` without a
/// witness, or before the first record.
///
/// # Errors
/// When the checkpoints cannot be read.
pub async fn unwitnessed_ms(loaded: &Loaded, reader: &LedgerReader) -> Result<Option<Millis>, ReadError> {
    let names = witnesses(loaded).map(|witnesses| witnesses.names()).unwrap_or_default();
    let node = instance_id(loaded);
    let streams = reader.streams().await?;
    let own = streams.iter().rev().find(|stream| stream.node_id == node && stream.closed_at.is_none());
    match own {
        Some(stream) if !names.is_empty() => {
            reader.unwitnessed_ms(&stream.stream, &names, SystemClock.now()).await.map(Some)
        }
        _ => Ok(None),
    }
}
