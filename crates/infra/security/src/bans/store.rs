//! The bans of a node: rows, their copy in memory, and every way to change them.

use super::error::BanError;
use super::set::{BanSet, Banned};
use super::{Ban, BanSource, NewBan, covering, overlaps, reaches_loopback};
use crate::repository::bans::BanRepository;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use systemprompt_audit::{Draft, EntryKind, Ledger, Payload, Role, Unit};
use systemprompt_config::profile::values::Cidr;
use systemprompt_database::Db;
use systemprompt_events::{Bridge, Channel};
use systemprompt_models::ids::BanId;
use systemprompt_models::{Clock, Millis, RequestContext};

/// Age of the copy from which the node is not ready.
pub const MAX_READY_AGE: Millis = 60_000;
/// Age from which every request but the probes is refused.
pub const MAX_AGE: Millis = 300_000;
/// The rows are read again this often even if the epoch stands still.
const FULL_EVERY: Millis = 30_000;
/// Most bans that are held.
const MAX_BANS: usize = 1_000_000;
/// Most bans whose hits wait to be written.
const MAX_HITS: usize = 65_536;
/// How long the row of an ended ban is kept.
const KEEP_ENDED: Millis = 30 * 86_400_000;
/// An automatic ban of an IPv6 network lasts so many times longer when it is the second, third, … one.
const LONGER: [u64; 3] = [1, 24, 168];
/// Ends that are recorded at once.
const ENDED_AT_ONCE: i64 = 15;

/// What the age of the copy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Confirmed,
    /// The last copy is in force, and the node reports itself as not ready.
    Unconfirmed,
    /// Too old to tell who is banned: nothing is served.
    Unavailable,
}

/// Bans. Clones share one copy.
#[derive(Clone)]
pub struct BanStore(Arc<Inner>);

struct Inner {
    repository: BanRepository,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    bridge: Bridge,
    set: ArcSwap<BanSet>,
    confirmed_at: AtomicI64,
    loaded_at: AtomicI64,
    hits: Mutex<HashMap<BanId, (i64, Millis)>>,
    limit: usize,
    /// One reading at a time, so that an older set never replaces a newer one.
    reload: tokio::sync::Mutex<()>,
    /// One change at a time on this node: a network is looked for, then banned.
    change: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for BanStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BanStore").field("bans", &self.len()).finish_non_exhaustive()
    }
}

impl BanStore {
    /// Reads the bans for the first time.
    ///
    /// # Errors
    /// When they cannot be read: an empty list would let everyone in.
    pub async fn open(
        db: Db,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        bridge: Bridge,
    ) -> Result<Self, BanError> {
        Self::with_limit(db, ledger, clock, bridge, MAX_BANS).await
    }

    pub(super) async fn with_limit(
        db: Db,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        bridge: Bridge,
        limit: usize,
    ) -> Result<Self, BanError> {
        let store = Self(Arc::new(Inner {
            repository: BanRepository::new(db),
            ledger,
            clock,
            bridge,
            set: ArcSwap::default(),
            confirmed_at: AtomicI64::new(0),
            loaded_at: AtomicI64::new(0),
            hits: Mutex::default(),
            limit,
            reload: tokio::sync::Mutex::new(()),
            change: tokio::sync::Mutex::new(()),
        }));
        store.reload().await?;
        Ok(store)
    }

    /// The ban that holds for an address; a hit is counted.
    pub fn find(&self, address: IpAddr) -> Option<Banned> {
        let now = self.0.clock.now();
        let banned = self.0.set.load().find(address, now)?.clone();
        let mut hits = self.0.hits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, last)) = hits.get_mut(&banned.id) {
            (*count, *last) = (*count + 1, now);
        } else if hits.len() < MAX_HITS {
            hits.insert(banned.id.clone(), (1, now));
        }
        Some(banned)
    }

    /// Whole seconds until a ban ends, at least one.
    pub fn seconds_left(&self, banned: &Banned) -> Option<u32> {
        let left = banned.expires_at?.saturating_sub(self.0.clock.now());
        Some(u32::try_from(left.max(1).cast_unsigned().div_ceil(1000)).unwrap_or(u32::MAX))
    }

    pub fn standing(&self) -> Standing {
        match self.age() {
            age if age > MAX_AGE => Standing::Unavailable,
            age if age > MAX_READY_AGE => Standing::Unconfirmed,
            _ => Standing::Confirmed,
        }
    }

    /// Milliseconds since the copy was last confirmed.
    pub fn age(&self) -> Millis {
        self.0.clock.now().saturating_sub(self.0.confirmed_at.load(Ordering::Relaxed))
    }

    /// Networks in the copy.
    pub fn len(&self) -> usize {
        self.0.set.load().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `limit` bans in force behind the id `after`, the oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn page(&self, after: &str, limit: i64) -> Result<Vec<Ban>, BanError> {
        self.0.repository.active(after, self.0.clock.now(), limit).await
    }

    /// Bans a network. `proxies` are the trusted ones.
    ///
    /// # Errors
    /// A field out of bounds, a network that is banned already, a ban that would lock somebody out who must not be, or a change
    /// that could not be recorded or written.
    pub async fn add(&self, by: &RequestContext, new: &NewBan, proxies: &[Cidr]) -> Result<Ban, BanError> {
        let network = new.network()?;
        let covered = covered(network, by.client_ip, proxies);
        if let Some(covered) = covered.filter(|_| !new.force) {
            return Err(BanError::WouldLockOut(covered));
        }
        let _one = self.0.change.lock().await;
        let now = self.0.clock.now();
        if let Some(id) = self.0.repository.of_network(&network.to_string(), now).await? {
            return Err(BanError::Exists(id));
        }
        if self.len() >= self.0.limit {
            return Err(BanError::TooMany(self.0.limit));
        }
        let expires_at = new.expires_in_s.map(|seconds| later(now, seconds));
        let ban = Ban {
            id: BanId::generate(),
            network,
            reason: new.reason.clone(),
            source: BanSource::Manual,
            created_by: by.principal.user_id.to_string(),
            created_at: now,
            expires_at,
            hits: 0,
            last_hit_at: None,
        };
        self.write(Draft::new(EntryKind::AdminBanAdded, by, "ok").with("force", new.force), &ban).await?;
        Ok(ban)
    }

    /// Bans an address, or the /64 of an IPv6 address, for `seconds`; a /64 that was banned before for longer. Nothing happens
    /// to one that is banned already, to loopback and to trusted proxies. At the bound the oldest automatic ban gives way.
    ///
    /// # Errors
    /// When the ban cannot be recorded or written.
    pub async fn add_automatic(
        &self,
        address: IpAddr,
        source: BanSource,
        reason: &str,
        seconds: u64,
        proxies: &[Cidr],
    ) -> Result<Option<Ban>, BanError> {
        let network = covering(address);
        if covered(network, None, proxies).is_some() {
            return Ok(None);
        }
        let _one = self.0.change.lock().await;
        let (now, text) = (self.0.clock.now(), network.to_string());
        if self.0.set.load().find(address, now).is_some()
            || self.0.repository.of_network(&text, now).await?.is_some()
        {
            return Ok(None);
        }
        if self.len() >= self.0.limit {
            let oldest = self.0.repository.oldest_automatic(now).await?;
            let oldest = oldest.ok_or(BanError::TooMany(self.0.limit))?;
            let record = Draft::system(EntryKind::AdminBanRemoved, "ok").with_reason("bound");
            self.record(draft(record, &oldest).with_payload(Payload::of(Role::Before, &oldest))).await?;
            self.0.repository.delete(oldest.id.as_str()).await?;
        }
        let times =
            if network.addr().is_ipv6() { self.0.repository.automatic_count(&text).await? } else { 0 };
        let factor = LONGER.get(usize::try_from(times).unwrap_or_default()).or(LONGER.last());
        let ban = Ban {
            id: BanId::generate(),
            network,
            reason: reason.to_owned(),
            source,
            created_by: "system".to_owned(),
            created_at: now,
            expires_at: Some(later(now, seconds.saturating_mul(factor.copied().unwrap_or(1)))),
            hits: 0,
            last_hit_at: None,
        };
        self.write(Draft::system(EntryKind::AdminBanAdded, "ok"), &ban).await?;
        Ok(Some(ban))
    }

    /// Ends a ban before its time.
    ///
    /// # Errors
    /// No such ban in force, or a change that could not be recorded or written; the ban then stays.
    pub async fn remove(&self, by: &RequestContext, id: &str) -> Result<(), BanError> {
        let _one = self.0.change.lock().await;
        let missing = || BanError::NotFound(id.to_owned());
        let ban = self.0.repository.find(id, self.0.clock.now()).await?.ok_or_else(missing)?;
        let record = draft(Draft::new(EntryKind::AdminBanRemoved, by, "ok"), &ban);
        self.record(record.with_payload(Payload::of(Role::Before, &ban))).await?;
        if !self.0.repository.delete(id).await? {
            return Err(missing());
        }
        self.changed(id).await
    }

    /// Asks for the epoch, and reads the bans again if they changed or it is time to. Called every second.
    ///
    /// # Errors
    /// When they cannot be read; the last copy stays in force and ages.
    pub async fn refresh(&self) -> Result<(), BanError> {
        let asked_at = self.0.clock.now();
        let epoch = self.0.repository.epoch().await?;
        let age = asked_at.saturating_sub(self.0.loaded_at.load(Ordering::Relaxed));
        if epoch == self.0.set.load().epoch() && age < FULL_EVERY {
            self.0.confirmed_at.store(asked_at, Ordering::Relaxed);
            return Ok(());
        }
        self.reload().await
    }

    /// Writes the hits, records the ends that have come, and deletes what ended long ago. Called every ten seconds.
    ///
    /// # Errors
    /// When something cannot be recorded or written; it is tried again the next time.
    pub async fn sweep(&self) -> Result<(), BanError> {
        let hits = std::mem::take(&mut *self.0.hits.lock().unwrap_or_else(PoisonError::into_inner));
        if !hits.is_empty() {
            self.0.repository.add_hits(&hits).await?;
        }
        let now = self.0.clock.now();
        if self.0.repository.has_ended(now, now - KEEP_ENDED).await? {
            self.record_ends(now).await?;
            self.0.repository.purge(now - KEEP_ENDED).await?;
        }
        Ok(())
    }

    async fn record_ends(&self, now: Millis) -> Result<(), BanError> {
        let ended = self.0.repository.claim_ended(now, ENDED_AT_ONCE).await?;
        if ended.is_empty() {
            return Ok(());
        }
        let mut unit = Unit::new();
        for (id, source) in &ended {
            let draft = Draft::system(EntryKind::AdminBanExpired, "ok");
            unit.record(draft.with("ban_id", id.as_str()).with("source", source.as_str()));
        }
        if let Err(error) = self.0.ledger.append(unit).await {
            for (id, _) in &ended {
                self.0.repository.unclaim_ended(id).await?;
            }
            return Err(error.into());
        }
        Ok(())
    }

    async fn reload(&self) -> Result<(), BanError> {
        let _one = self.0.reload.lock().await;
        let asked_at = self.0.clock.now();
        // The epoch is read first: rows that change in between belong to a later epoch and are read again.
        let epoch = self.0.repository.epoch().await?;
        let most = i64::try_from(self.0.limit).unwrap_or(i64::MAX).saturating_add(1);
        let bans = self.0.repository.active("", asked_at, most).await?;
        if bans.len() > self.0.limit {
            return Err(BanError::TooMany(self.0.limit));
        }
        self.0.set.store(Arc::new(BanSet::build(epoch, bans)));
        self.0.loaded_at.store(asked_at, Ordering::Relaxed);
        self.0.confirmed_at.store(asked_at, Ordering::Relaxed);
        Ok(())
    }

    /// After a change of the rows: it is in force here before the caller goes on, and the other nodes are told.
    async fn changed(&self, id: &str) -> Result<(), BanError> {
        self.reload().await?;
        self.0.bridge.publish(Channel::Bans, id).await;
        Ok(())
    }

    async fn write(&self, record: Draft, ban: &Ban) -> Result<(), BanError> {
        self.record(draft(record, ban).with_payload(Payload::of(Role::After, ban))).await?;
        self.0.repository.insert(ban).await?;
        self.changed(ban.id.as_str()).await
    }

    async fn record(&self, draft: Draft) -> Result<(), BanError> {
        let mut unit = Unit::new();
        unit.record(draft);
        self.0.ledger.append(unit).await?;
        Ok(())
    }
}

/// The network itself says where somebody is and stays out of the chain; a payload has it.
fn draft(draft: Draft, ban: &Ban) -> Draft {
    let draft = draft.with("ban_id", ban.id.as_str()).with("source", ban.source.as_str());
    draft.with("expires_at", ban.expires_at)
}

/// Who must not be locked out and would be.
fn covered(network: IpNet, caller: Option<IpAddr>, proxies: &[Cidr]) -> Option<&'static str> {
    if reaches_loopback(network) {
        Some("loopback")
    } else if proxies.iter().any(|proxy| overlaps(network, proxy.0)) {
        Some("a trusted proxy")
    } else if caller.is_some_and(|ip| network.contains(&ip.to_canonical())) {
        Some("your own address")
    } else {
        None
    }
}

fn later(now: Millis, seconds: u64) -> Millis {
    now.saturating_add(Millis::try_from(seconds).unwrap_or(Millis::MAX).saturating_mul(1000))
}
