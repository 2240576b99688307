//! Which server a command talks to, and with which token: flag and environment, then what the server wrote down at its start,
//! then the profile.

use crate::credentials::Credentials;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use std::net::IpAddr;
use systemprompt_config::{Environment, ProcessEnvironment, Profile};
use systemprompt_net::egress::{self, Class, Egress, Policy};

/// Variable that holds a token.
const TOKEN_VARIABLE: &str = "SYSTEMPROMPT_TOKEN";

/// Address, without a closing slash, and token.
pub(super) struct Target {
    pub(super) url: String,
    pub(super) token: Option<String>,
}

impl Target {
    pub(super) fn find(globals: &Globals) -> Result<Self, CliError> {
        let location = globals.location().ok();
        let stored = location.as_ref().and_then(Credentials::read);
        if let (None, Some(stored), Some(location)) = (&globals.url, &stored, &location)
            && stored.are_copied(location)
        {
            return Err(CliError::new(Exit::Conflict, "this data folder is a copy, and no server was started on it")
                .why(format!("the address that it holds, {}, is that of the original's server", stored.url))
                .fix("start a server on it with `systemprompt serve`, work without one with --offline, or name one with --url"));
        }
        let url = match (&globals.url, &stored) {
            (Some(url), _) => url.clone(),
            (None, Some(stored)) => stored.url.clone(),
            (None, None) => server_url(&globals.load_profile()?.1),
        };
        let url = url.trim_end_matches('/').to_owned();
        let given = ProcessEnvironment.get(TOKEN_VARIABLE).filter(|token| !token.is_empty());
        // The stored token goes to the server that wrote it, and to no other host.
        let own = stored.filter(|stored| stored.url == url || (is_local(&stored.url) && is_local(&url)));
        Ok(Self { token: given.or_else(|| own.map(|stored| stored.token)), url })
    }

    /// The client for this address. An address that a person names may be in any network.
    pub(super) fn egress(&self) -> Result<Egress, CliError> {
        let bad = |error: &dyn std::fmt::Display| {
            CliError::new(Exit::Usage, format!("{} is no address of a server", self.url)).why(error)
        };
        if is_local(&self.url) {
            return egress::client(Class::Loopback).map_err(|e| bad(&e));
        }
        let everywhere = ["0.0.0.0/0", "169.254.0.0/16", "::/0", "fe80::/10"];
        let allow_private = everywhere.iter().filter_map(|net| net.parse().ok()).collect();
        let egress = egress::client_with(Class::Operator, Policy { allow_insecure: false, allow_private })
            .map_err(|e| bad(&e))?;
        egress.check(&self.url).map_err(|e| bad(&e))?;
        Ok(egress)
    }
}

fn is_local(url: &str) -> bool {
    egress::client(Class::Loopback).is_ok_and(|client| client.check(url).is_ok())
}

/// Where the server of a profile answers on this machine.
pub fn server_url(profile: &Profile) -> String {
    let server = &profile.server;
    let host = match server.host {
        host if host.is_unspecified() || host.is_loopback() => "localhost".to_owned(),
        IpAddr::V6(host) => format!("[{host}]"),
        IpAddr::V4(host) => host.to_string(),
    };
    format!("http://{host}:{}", server.port)
}
