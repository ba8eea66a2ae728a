//! When this peer's share of the DHT is compared with others and re-put: as newcomers arrive, as peers fail, and now and then.
//! It only keeps the times; the comparing is a run of [`super::job::CarryJob`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::earliest;
use crate::core::jitter::Jitter;
use crate::model::{Digest, MonoTime, PeerId};

/// How often every key is compared with its closest peers, changed by up to a fifth either way. Newcomers and failures are
/// seen to at once; this is for what nobody noticed.
const SWEEP_EVERY: Duration = Duration::from_secs(1800);
/// How soon after a newcomer the keys in its range are compared with it, at most: many peers see it, and the first one's
/// re-put leaves the others nothing to send.
const NEWCOMER_WITHIN: Duration = Duration::from_millis(1500);
/// How soon after a failure the keys of that peer are re-put, at the earliest.
const FAILURE_AFTER: Duration = Duration::from_secs(2);
/// The same, at the latest.
const FAILURE_WITHIN: Duration = Duration::from_secs(10);
/// A peer that fails again within this time has been seen to already.
const FAILURE_QUIET: Duration = Duration::from_secs(600);

/// What is to be compared, and when.
#[derive(Debug)]
pub(super) struct Carrier {
    jitter: Jitter,
    /// Keys to compare with all of their closest peers.
    keys: BTreeMap<Digest, MonoTime>,
    /// Newcomers to compare the keys in their range with.
    newcomers: BTreeMap<PeerId, MonoTime>,
    /// What is to be compared with newcomers as soon as there is room.
    pairs: BTreeSet<(PeerId, Digest)>,
    failed: BTreeMap<PeerId, MonoTime>,
    sweep_at: Option<MonoTime>,
}

impl Carrier {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            jitter: Jitter::new(seed),
            keys: BTreeMap::new(),
            newcomers: BTreeMap::new(),
            pairs: BTreeSet::new(),
            failed: BTreeMap::new(),
            sweep_at: None,
        }
    }

    pub(super) fn newcomer(&mut self, now: MonoTime, peer: PeerId) {
        self.failed.remove(&peer);
        let at = now + self.jitter.between(Duration::ZERO, NEWCOMER_WITHIN);
        self.newcomers.entry(peer).or_insert(at);
    }

    /// Notes a failure. False when it is known already.
    pub(super) fn is_news(&mut self, now: MonoTime, peer: PeerId) -> bool {
        self.failed.retain(|_, at| *at + FAILURE_QUIET > now);
        self.failed.insert(peer, now).is_none()
    }

    pub(super) fn after_failure(&mut self, now: MonoTime, keys: Vec<Digest>) {
        let at = now + self.jitter.between(FAILURE_AFTER, FAILURE_WITHIN);
        for key in keys {
            self.soon(key, at);
        }
    }

    pub(super) fn soon(&mut self, key: Digest, at: MonoTime) {
        let due = self.keys.entry(key).or_insert(at);
        *due = at.min(*due);
    }

    pub(super) fn schedule_sweep(&mut self, now: MonoTime) {
        let fifth = SWEEP_EVERY / 5;
        self.sweep_at = Some(now + self.jitter.between(SWEEP_EVERY - fifth, SWEEP_EVERY + fifth));
    }

    /// The next sweep comes earlier.
    pub(super) fn sweep_within(&mut self, now: MonoTime, span: Duration) {
        let at = now + self.jitter.between(span / 3, span);
        self.sweep_at = Some(self.sweep_at.map_or(at, |due| due.min(at)));
    }

    pub(super) fn is_sweep_due(&self, now: MonoTime) -> bool {
        self.sweep_at.is_some_and(|at| at <= now)
    }

    /// The next key that is due.
    pub(super) fn due_key(&mut self, now: MonoTime) -> Option<Digest> {
        let key = self.keys.iter().find(|(_, at)| **at <= now).map(|(key, _)| *key)?;
        self.keys.remove(&key);
        Some(key)
    }

    /// Newcomers that are due.
    pub(super) fn due_newcomers(&mut self, now: MonoTime) -> BTreeSet<PeerId> {
        let due = self.newcomers.iter().filter(|(_, at)| **at <= now).map(|(peer, _)| *peer).collect();
        self.newcomers.retain(|_, at| *at > now);
        due
    }

    pub(super) fn with_newcomer(&mut self, peer: PeerId, keys: Vec<Digest>) {
        self.pairs.extend(keys.into_iter().map(|key| (peer, key)));
    }

    pub(super) fn next_pair(&mut self) -> Option<(PeerId, Digest)> {
        self.pairs.pop_first()
    }

    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        let keys = self.keys.values().min().copied();
        earliest([keys, self.newcomers.values().min().copied(), self.sweep_at])
    }
}
