//! The IP ban (SEC-18): asked from memory, before anything that costs more.

use std::net::IpAddr;
use systemprompt_models::{Code, Refusal};
use systemprompt_security::bans::{BanStore, Standing};

/// Refuses whom a ban holds; and everyone but probes when it cannot be told who that is (SEC-18).
pub fn check(bans: &BanStore, is_probe: bool, client: IpAddr) -> Result<(), Refusal> {
    if bans.standing() == Standing::Unavailable && !is_probe {
        let reason = "who is banned cannot be told at the moment";
        return Err(Refusal::new(Code::BanListUnavailable, reason).with_retry_after(5));
    }
    let Some(banned) = bans.find(client) else { return Ok(()) };
    let refusal = Refusal::new(Code::IpBanned, "this address is banned");
    Err(match bans.seconds_left(&banned) {
        Some(seconds) => refusal.with_retry_after(seconds),
        None => refusal,
    })
}
