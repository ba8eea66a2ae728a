//! What of this peer's share is to be written to disk, a batch at a time, and what comes back from there after a start. It never
//! writes, and believes what comes back no more than what another peer sends.

use std::time::Duration;

use super::{Action, Dht};
use crate::model::{Digest, MonoTime};
use crate::wire::dht::{Entry, EntryTombstone, Op};

/// How long a change waits for others, to be written with them.
const KEEP_AFTER: Duration = Duration::from_secs(3);
/// After a batch that could not be written.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Most changes of a batch.
const BATCH_MAX: usize = 512;
/// About the most bytes of a batch.
const BATCH_BYTES: usize = 8 << 20;
/// After a start with something on disk the whole share is compared with others this soon.
const COMPARE_AFTER: Duration = Duration::from_secs(15);

/// A change of one entry or tombstone, for the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// H(x).
    pub key: Digest,
    /// Names the entry.
    pub id: Digest,
    /// What is kept now; none when nothing is.
    pub record: Option<Record>,
}

/// An entry or the tombstone in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// It is live.
    Live(Entry),
    /// It was deleted.
    Dead(EntryTombstone),
}

impl Record {
    /// Key and id under which it is kept.
    pub fn place(&self) -> (Digest, Digest) {
        let terms = match self {
            Record::Live(entry) => entry.terms(),
            Record::Dead(tombstone) => tombstone.terms(),
        };
        (terms.key, terms.id())
    }
    /// The operation that keeps it: also its form on disk.
    pub fn to_op(&self) -> Op {
        match self {
            Record::Live(entry) => Op::Put(entry.clone()),
            Record::Dead(tombstone) => Op::Bury(tombstone.clone()),
        }
    }
    /// The other way; none for operations that keep nothing.
    pub fn of_op(op: Op) -> Option<Self> {
        match op {
            Op::Put(entry) => Some(Record::Live(entry)),
            Op::Bury(tombstone) => Some(Record::Dead(tombstone)),
            Op::List(_) | Op::Fetch(_) | Op::Del(_) | Op::Unknown { .. } | Op::Invalid { .. } => None,
        }
    }
    fn size(&self) -> usize {
        match self {
            Record::Live(entry) => 400 + entry.value().len(),
            Record::Dead(_) => 400,
        }
    }
}

/// When what is written.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    at: Option<MonoTime>,
    /// What is being written; none when nothing is.
    under_way: Option<Vec<(Digest, Digest)>>,
}

impl Keeping {
    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        self.at.filter(|_| self.under_way.is_none())
    }
    pub(super) fn under_way(&self) -> usize {
        self.under_way.as_ref().map_or(0, Vec::len)
    }
}

impl Dht {
    /// Changes of the share are to be written: asks the shell for it with [`Action::Keep`].
    #[must_use]
    pub fn kept_on_disk(mut self) -> Self {
        self.store.track_changes();
        self
    }

    /// Has changes written once they have waited long enough.
    pub(super) fn keep(&mut self) {
        if self.keeping.under_way.is_some() {
            return;
        }
        if self.store.changes() == 0 {
            self.keeping.at = None;
            return;
        }
        let at = *self.keeping.at.get_or_insert(self.now.mono + KEEP_AFTER);
        if at > self.now.mono {
            return;
        }
        self.keeping.at = None;
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while changes.len() < BATCH_MAX
            && bytes < BATCH_BYTES
            && let Some(change) = self.store.next_change()
        {
            bytes += change.record.as_ref().map_or(100, Record::size);
            changes.push(change);
        }
        self.keeping.under_way = Some(changes.iter().map(|change| (change.key, change.id)).collect());
        self.out.act(Action::Keep { changes });
    }

    /// A batch was written, or not.
    pub(super) fn kept(&mut self, written: bool) {
        let places = self.keeping.under_way.take().unwrap_or_default();
        if written {
            // What changed meanwhile need not wait again.
            self.keeping.at = Some(self.now.mono).filter(|_| self.store.changes() > 0);
        } else {
            self.keeping.at = Some(self.now.mono + AGAIN_AFTER);
            places.into_iter().for_each(|(key, id)| self.store.mark(key, id));
        }
    }

    /// Has everything written now: this peer stops.
    pub(super) fn keep_now(&mut self) {
        self.keeping.at = Some(self.now.mono);
    }

    /// Takes back what was on disk, within the same bounds as from anybody; what is not taken is removed there.
    pub(super) fn restore(&mut self, records: Vec<Record>) {
        for record in records {
            self.store.restore(self.now.wall, &record);
        }
    }

    /// All that was on disk is back. Others may have changed it meanwhile.
    pub(super) fn restored(&mut self) {
        if self.store.key_count() > 0 {
            self.carrier.sweep_within(self.now.mono, COMPARE_AFTER);
        }
    }
}
