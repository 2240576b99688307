//! The sinks of the profile: who gets the ledger's records as they come (AUD-63).

use crate::boot::{BootError, instance_id};
use crate::checkpoints::literal;
use systemprompt_audit::export::Format;
use systemprompt_audit::sink::{Sink, SinkLag, SinkTarget, Sinks};
use systemprompt_audit::{Filter, LedgerReader, ReadError};
use systemprompt_config::Loaded;
use systemprompt_config::profile::audit::{SinkConfig, SinkFormat, SinkKind};
use systemprompt_models::{Clock, SystemClock};
use systemprompt_net::egress::{Class, HostPatternError, Policy, client_under};
use systemprompt_net::stream::{StreamError, TlsTarget};

/// Why a sink cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SinkFault {
    #[error(transparent)]
    Egress(#[from] systemprompt_net::EgressError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("security.egress: {0}")]
    Hosts(#[from] HostPatternError),
    #[error("{0} cannot be read: {1}")]
    Roots(std::path::PathBuf, std::io::Error),
}

/// The sinks of the profile.
///
/// # Errors
/// An address that may not be reached, or certificates that cannot be read.
pub fn sinks(loaded: &Loaded) -> Result<Sinks, BootError> {
    let list = loaded.profile.audit.sinks.iter().map(|config| {
        let failed = |fault| BootError::Sink(config.name.clone(), fault);
        let kinds = (!config.filter.kinds.is_empty()).then(|| config.filter.kinds.join(","));
        Ok(Sink {
            name: config.name.clone(),
            format: match config.format {
                SinkFormat::Jsonl => Format::Jsonl,
                SinkFormat::Ocsf => Format::Ocsf,
            },
            filter: Filter { kind: kinds, outcome: config.filter.outcome.clone(), ..Filter::default() },
            target: target(loaded, config).map_err(failed)?,
        })
    });
    Ok(Sinks::new(list.collect::<Result<_, BootError>>()?))
}

fn target(loaded: &Loaded, config: &SinkConfig) -> Result<SinkTarget, SinkFault> {
    let data_dir = loaded.paths.data_dir();
    let url = config.url.clone().unwrap_or_default();
    // An address that the operator wrote out may be in a private network.
    let allow_private = literal(&url).into_iter().filter_map(|net| net.parse().ok()).collect();
    let policy = Policy { allow_insecure: false, allow_private };
    let hosts = crate::egress::hosts(loaded)?;
    match config.kind {
        SinkKind::File => Ok(SinkTarget::File(data_dir.join(config.path.clone().unwrap_or_default()))),
        SinkKind::Http => {
            let egress = client_under(Class::Operator, policy, hosts)?;
            egress.check(&url)?;
            Ok(SinkTarget::Http { url, egress })
        }
        SinkKind::Syslog => {
            let file = config.tls.as_ref().and_then(|tls| tls.ca.as_ref()).map(|ca| data_dir.join(ca));
            let roots = file
                .map(|file| std::fs::read(&file).map_err(|error| SinkFault::Roots(file, error)))
                .transpose()?;
            Ok(SinkTarget::Syslog(TlsTarget::new(&url, roots.as_deref(), policy, hosts)?))
        }
    }
}

/// How far each sink of this node is behind, as the database tells it.
///
/// # Errors
/// When the cursors cannot be read.
pub async fn lags(loaded: &Loaded, reader: &LedgerReader) -> Result<Vec<SinkLag>, ReadError> {
    let (node, now) = (instance_id(loaded), SystemClock.now());
    let mut lags = Vec::new();
    for sink in &loaded.profile.audit.sinks {
        lags.push(reader.sink_lag(&sink.name, &node, now).await?);
    }
    Ok(lags)
}
