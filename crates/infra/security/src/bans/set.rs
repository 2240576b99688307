//! All bans of a node, ready to be asked: for each length of prefix that occurs, one look-up.

use super::Ban;
use foldhash::fast::RandomState;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;
use systemprompt_models::Millis;
use systemprompt_models::ids::BanId;

/// A ban that holds for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banned {
    pub id: BanId,
    /// Absent: until it is removed.
    pub expires_at: Option<Millis>,
}

#[derive(Debug, Default)]
pub(super) struct BanSet {
    epoch: i64,
    v4: Family<32>,
    v6: Family<128>,
}

/// The bans of one family of addresses of `WIDTH` bits.
#[derive(Debug, Default)]
struct Family<const WIDTH: u8> {
    /// Lengths of prefix that occur.
    lengths: Vec<u8>,
    /// By length and the first so many bits.
    bans: HashMap<(u8, u128), Banned, RandomState>,
}

impl BanSet {
    pub fn build(epoch: i64, bans: impl IntoIterator<Item = Ban>) -> Self {
        let mut set = Self { epoch, ..Self::default() };
        for ban in bans {
            let banned = Banned { id: ban.id, expires_at: ban.expires_at };
            match ban.network {
                IpNet::V4(net) => set.v4.insert(net.prefix_len(), u128::from(net.addr().to_bits()), banned),
                IpNet::V6(net) => set.v6.insert(net.prefix_len(), net.addr().to_bits(), banned),
            }
        }
        set
    }

    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    pub fn len(&self) -> usize {
        self.v4.bans.len() + self.v6.bans.len()
    }

    /// The ban that holds longest for `address`, if one does.
    pub fn find(&self, address: IpAddr, now: Millis) -> Option<&Banned> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.find(u128::from(v4.to_bits()), now),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits(), now),
        }
    }
}

impl<const WIDTH: u8> Family<WIDTH> {
    fn key(length: u8, bits: u128) -> (u8, u128) {
        (length, bits.checked_shr(u32::from(WIDTH.saturating_sub(length))).unwrap_or_default())
    }

    fn insert(&mut self, length: u8, bits: u128, banned: Banned) {
        if !self.lengths.contains(&length) {
            self.lengths.push(length);
        }
        let known = self.bans.entry(Self::key(length, bits)).or_insert_with(|| banned.clone());
        if end(&banned) > end(known) {
            *known = banned;
        }
    }

    fn find(&self, bits: u128, now: Millis) -> Option<&Banned> {
        let found = self.lengths.iter().filter_map(|length| self.bans.get(&Self::key(*length, bits)));
        found.filter(|banned| end(banned) > now).max_by_key(|banned| end(banned))
    }
}

/// When a ban ends, for comparisons.
fn end(banned: &Banned) -> Millis {
    banned.expires_at.unwrap_or(Millis::MAX)
}
