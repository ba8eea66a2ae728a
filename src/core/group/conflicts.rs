//! What contradicts a pin, and members' keys that changed: kept over a restart and shown (R11). It never chooses between two
//! candidates, and never takes a key that the pinned group key did not sign.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::events::Event;
use super::types::SignedGd;
use super::{Group, Pin};
use crate::model::{Address, Fingerprint, GroupName, Now, PeerId, WallTime};

/// Most conflicts of one group that are kept: strangers can make any number of keys.
const CONFLICTS_MAX: usize = 16;
/// Most key changes of one group that are kept; the latest stay.
const CHANGES_MAX: usize = 100;

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

    /// The members whose keys a newer gd changes.
    pub(super) fn key_changes(&self, now: Now, newer: &SignedGd) -> Vec<Event> {
        let held = self.pins.get(&newer.gd.group).and_then(|pin| pin.gd.as_ref());
        let members = held.into_iter().flat_map(|held| &held.gd.members);
        let changed = members.filter_map(|before| {
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
    /// Events that bring back what contradicts a pin, and what changed under it.
    pub(super) fn odd_events(&self, group: &GroupName) -> Vec<Event> {
        let rivals = self.rivals.iter().map(|key| Event::Rival { group: group.clone(), key: *key });
        let forks = self.forks.iter().map(|version| Event::ForkedGd { group: group.clone(), version: *version });
        let rotations = self.rotations.iter().cloned().map(Event::KeyRotated);
        rotations.chain(rivals).chain(forks).chain(self.changes.iter().cloned().map(Event::KeyChanged)).collect()
    }
}

fn is_news<T: Ord>(known: &BTreeSet<T>, found: &T) -> bool {
    known.len() < CONFLICTS_MAX && !known.contains(found)
}
