//! Room for DHT entries: counts what is kept per key, per publisher and in all, and says when there is no more. It keeps no
//! entries itself.

use std::collections::BTreeMap;

use crate::model::{Digest, PeerId};
use crate::wire::dht::Refusal;

/// What an entry or tombstone weighs beside its value: signed terms and index, bytes.
const OVERHEAD_BYTES: u64 = 512;

/// A number of entries and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Entries.
    pub entries: u64,
    /// Bytes: values and 512 bytes an entry.
    pub bytes: u64,
}

impl Room {
    fn add(&mut self, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes;
    }
    fn take(&mut self, bytes: u64) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
    fn holds(&self, used: Room, bytes: u64) -> bool {
        used.entries < self.entries && used.bytes + bytes <= self.bytes
    }
    fn half(self) -> Room {
        Room { entries: self.entries / 2, bytes: self.bytes / 2 }
    }
}

/// The bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Under one key; publishers that no verified gd names get half of it together.
    pub key: Room,
    /// Of one publisher.
    pub publisher: Room,
    /// In all; publishers that no verified gd names get half of it together.
    pub total: Room,
}

impl Limits {
    /// Bounds for live entries. A key holds a reader's ns of a busy week, and twice that for readers with known senders.
    pub const ENTRIES: Limits = Limits {
        key: Room { entries: 8192, bytes: 64 << 20 },
        publisher: Room { entries: 4096, bytes: 32 << 20 },
        total: Room { entries: 65_536, bytes: 256 << 20 },
    };
    /// Bounds for tombstones: they stay after the entries went, so there are more of them, but they are small.
    pub const TOMBSTONES: Limits = Limits {
        key: Room { entries: 16_384, bytes: 16 << 20 },
        publisher: Room { entries: 16_384, bytes: 16 << 20 },
        total: Room { entries: 131_072, bytes: 128 << 20 },
    };
}

/// What something occupies, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lot {
    pub(super) key: Digest,
    pub(super) publisher: PeerId,
    /// Whether no verified gd names the publisher.
    pub(super) stranger: bool,
    value_bytes: usize,
}

impl Lot {
    pub(super) fn new(key: Digest, publisher: PeerId, stranger: bool, value_bytes: usize) -> Self {
        Self { key, publisher, stranger, value_bytes }
    }
    fn bytes(&self) -> u64 {
        OVERHEAD_BYTES + u64::try_from(self.value_bytes).unwrap_or(u64::MAX >> 1)
    }
}

/// Counts against [`Limits`].
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    limits: Limits,
    total: Room,
    /// What strangers have of `total`.
    strange_total: Room,
    keys: BTreeMap<Digest, Room>,
    strangers: BTreeMap<Digest, Room>,
    publishers: BTreeMap<PeerId, Room>,
}

fn change<K: Ord>(map: &mut BTreeMap<K, Room>, key: K, change: impl FnOnce(&mut Room)) {
    let mut room = map.remove(&key).unwrap_or_default();
    change(&mut room);
    if room.entries > 0 {
        map.insert(key, room);
    }
}

impl Ledger {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            total: Room::default(),
            strange_total: Room::default(),
            keys: BTreeMap::new(),
            strangers: BTreeMap::new(),
            publishers: BTreeMap::new(),
        }
    }
    /// Whether there is room; the narrowest bound is named.
    pub(super) fn check(&self, lot: &Lot) -> Result<(), Refusal> {
        let used = |room: Option<&Room>| room.copied().unwrap_or_default();
        let bytes = lot.bytes();
        let key_holds = self.limits.key.holds(used(self.keys.get(&lot.key)), bytes);
        let strangers_hold = !lot.stranger || self.limits.key.half().holds(used(self.strangers.get(&lot.key)), bytes);
        if !key_holds || !strangers_hold {
            return Err(Refusal::KeyFull);
        }
        if !self.limits.publisher.holds(used(self.publishers.get(&lot.publisher)), bytes) {
            return Err(Refusal::PublisherFull);
        }
        let strangers_hold = !lot.stranger || self.limits.total.half().holds(self.strange_total, bytes);
        if strangers_hold && self.limits.total.holds(self.total, bytes) { Ok(()) } else { Err(Refusal::Full) }
    }
    pub(super) fn add(&mut self, lot: &Lot) {
        let bytes = lot.bytes();
        self.total.add(bytes);
        change(&mut self.keys, lot.key, |room| room.add(bytes));
        change(&mut self.publishers, lot.publisher, |room| room.add(bytes));
        if lot.stranger {
            self.strange_total.add(bytes);
            change(&mut self.strangers, lot.key, |room| room.add(bytes));
        }
    }
    pub(super) fn take(&mut self, lot: &Lot) {
        let bytes = lot.bytes();
        self.total.take(bytes);
        change(&mut self.keys, lot.key, |room| room.take(bytes));
        change(&mut self.publishers, lot.publisher, |room| room.take(bytes));
        if lot.stranger {
            self.strange_total.take(bytes);
            change(&mut self.strangers, lot.key, |room| room.take(bytes));
        }
    }
    pub(super) fn total(&self) -> Room {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_at_most_half_of_all_room() {
        let room = |entries| Room { entries, bytes: 1 << 20 };
        let mut ledger = Ledger::new(Limits { key: room(10), publisher: room(10), total: room(8) });
        let lot = |n: u8, stranger| Lot::new(Digest::new([n; 32]), PeerId::new([n; 32]), stranger, 1);
        for n in 0..4 {
            ledger.check(&lot(n, true)).unwrap();
            ledger.add(&lot(n, true));
        }
        assert_eq!(ledger.check(&lot(4, true)), Err(Refusal::Full));
        for n in 4..8 {
            ledger.check(&lot(n, false)).unwrap();
            ledger.add(&lot(n, false));
        }
        assert_eq!(ledger.check(&lot(8, false)), Err(Refusal::Full));
        // What went makes room again, for whom it was.
        ledger.take(&lot(4, false));
        assert_eq!(ledger.check(&lot(8, true)), Err(Refusal::Full));
        ledger.check(&lot(8, false)).unwrap();
        ledger.take(&lot(0, true));
        ledger.check(&lot(8, true)).unwrap();
    }
}
