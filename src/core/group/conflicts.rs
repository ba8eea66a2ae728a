//! What contradicts a pin, and members' keys that changed: kept over a restart and shown (R11). It never chooses between two
//! candidates, and never takes a key that the pinned group key did not sign.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::changes::digest;
use super::events::Event;
use super::types::SignedGd;
use super::{Group, Pin};
use crate::model::group::Member;
use crate::model::{Address, Fingerprint, GroupName, Now, PeerId, WallTime};

/// Most conflicts of one group that are kept: strangers can make any number of keys.
const CONFLICTS_MAX: usize = 16;
/// Most key changes of one group that are kept; the latest stay.
const CHANGES_MAX: usize = 100;
/// Most members of one group that are remembered after it named them no more; the latest stay. Twice what a group may have.
const FORMER_MAX: usize = 200;

/// A member whose key is another than before; the group key signed the gd that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// Whose.
    #[serde(rename = "a")]
    pub address: Address,
    /// The gd that brought it.
    #[serde(rename = "v")]
    pub gd_version: u64,
    /// When this peer took it.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// PeerId and OpenPGP key before.
    #[serde(rename = "o")]
    pub from: (PeerId, Fingerprint),
    /// PeerId and OpenPGP key since.
    #[serde(rename = "n")]
    pub to: (PeerId, Fingerprint),
}

/// What a gd says that contradicts what is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contradiction {
    /// Another key signed it.
    Rival(Fingerprint),
    /// The pinned key signed two of this version.
    Fork(u64),
}

impl Group {
    /// Keeps a contradiction that is new.
    pub(super) fn note_contradiction(&mut self, group: &GroupName, found: Contradiction) {
        let Some(pin) = self.pins.get(group) else { return };
        let group = group.clone();
        let event = match found {
            Contradiction::Rival(key) if is_news(&pin.rivals, &key) => Event::Rival { group, key },
            Contradiction::Fork(version) if is_news(&pin.forks, &version) => Event::ForkedGd { group, version },
            Contradiction::Rival(_) | Contradiction::Fork(_) => return,
        };
        self.record(vec![event], Vec::new());
    }

    /// Keeps that the pinned key signed two gds of one version, where these and the one that is held show it.
    pub(super) fn note_forks(&mut self, group: &GroupName, candidates: &[SignedGd]) {
        let Some(pin) = self.pins.get(group) else { return };
        let held = pin.gd.as_ref().filter(|held| held.key == pin.key);
        let since = held.map_or(0, |held| held.gd.version);
        let of_pinned = || candidates.iter().filter(|c| c.key == pin.key && c.gd.version >= since).chain(held);
        let two = |one: &SignedGd| of_pinned().any(|o| o.gd.version == one.gd.version && o.gd != one.gd);
        let forks: BTreeSet<u64> = of_pinned().filter(|one| two(one)).map(|one| one.gd.version).collect();
        for version in forks {
            self.note_contradiction(group, Contradiction::Fork(version));
        }
    }

    /// The members whose keys a newer gd changes: also of those who were named once, and not by the gd just before.
    pub(super) fn key_changes(&self, now: Now, newer: &SignedGd) -> Vec<Event> {
        let pin = self.pins.get(&newer.gd.group);
        let held = pin.and_then(|pin| pin.gd.as_ref()).into_iter().flat_map(|held| &held.gd.members);
        let former = pin.into_iter().flat_map(|pin| &pin.former);
        let changed = held.chain(former).filter_map(|before| {
            let since = newer.gd.member_at(&before.address)?;
            let (from, to) = ((before.peer_id, before.fingerprint), (since.peer_id, since.fingerprint));
            let (address, gd_version) = (before.address.clone(), newer.gd.version);
            (from != to).then_some(KeyChange { address, gd_version, at: now.wall, from, to })
        });
        changed.map(Event::KeyChanged).collect()
    }

    pub(super) fn apply_key_change(&mut self, change: KeyChange) {
        if let Some(pin) = self.pins.get_mut(change.address.group()) {
            pin.changes.push(change);
            let over = pin.changes.len().saturating_sub(CHANGES_MAX);
            pin.changes.drain(..over);
        }
    }
}

impl Pin {
    /// Takes a gd, and remembers whom it names no more: who is named again with another key has changed it.
    pub(super) fn follow(&mut self, newer: SignedGd) {
        self.former.retain(|member| newer.gd.member_at(&member.address).is_none());
        self.gd_digest = Some(digest(&newer));
        let held = self.gd.replace(newer);
        let Some(newer) = self.gd.as_ref() else { return };
        let gone = held.into_iter().flat_map(|held| held.gd.members);
        let gone: Vec<Member> = gone.filter(|member| newer.gd.member_at(&member.address).is_none()).collect();
        gone.into_iter().for_each(|member| self.remember(member));
    }

    pub(super) fn remember(&mut self, member: Member) {
        self.former.push(member);
        let over = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..over);
    }

    /// How these candidates are taken: first the end of the chain from the pinned key, then the newest, so that what lies about
    /// beside it is old already; strangers come last.
    pub(super) fn best_first(&self, candidates: &mut [SignedGd]) {
        candidates.sort_by_cached_key(|signed| {
            let mut back = signed.lineage.iter().rev();
            // Handovers from the pinned key to this one's.
            let steps = if signed.key == self.key { Some(0) } else { back.position(|k| *k == self.key).map(|n| n + 1) };
            (steps.is_none(), Reverse(steps), Reverse(signed.gd.version), digest(signed))
        });
    }

    /// Events that bring back what contradicts a pin, and what changed under it.
    pub(super) fn odd_events(&self, group: &GroupName) -> Vec<Event> {
        let rivals = self.rivals.iter().map(|key| Event::Rival { group: group.clone(), key: *key });
        let forks = self.forks.iter().map(|version| Event::ForkedGd { group: group.clone(), version: *version });
        let rotations = self.rotations.iter().cloned().map(Event::KeyRotated);
        let former = self.former.iter().map(|member| Event::Former { member: member.clone() });
        let odd = rotations.chain(rivals).chain(forks).chain(former);
        odd.chain(self.changes.iter().cloned().map(Event::KeyChanged)).collect()
    }
}

fn is_news<T: Ord>(known: &BTreeSet<T>, found: &T) -> bool {
    known.len() < CONFLICTS_MAX && !known.contains(found)
}
