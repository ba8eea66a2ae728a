//! Entries of the DHT that were read, so that a poll brings only what is new, and one poll at a time. It keeps ids, no values,
//! and forgets them all now and then: what could not be dealt with is then seen once more.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{Digest, MonoTime};

/// Entries that are remembered.
const READ_MAX: usize = 16_384;
/// Everything is read again after this: what was not taken, or not deleted, gets another chance.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct Inner {
    ids: BTreeSet<Digest>,
    since: Option<MonoTime>,
    polling: bool,
}

/// What was read under one key.
#[derive(Debug, Default)]
pub struct ReadEntries(Mutex<Inner>);

/// The right to poll; given back when dropped.
#[derive(Debug)]
pub struct Polling<'a>(&'a ReadEntries);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.lock().polling = false;
    }
}

impl ReadEntries {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A set of ids is right whoever panicked beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to poll, and what need not be read; none while another poll is under way.
    pub fn begin(&self, now: MonoTime) -> Option<(Polling<'_>, BTreeSet<Digest>)> {
        let mut inner = self.lock();
        if std::mem::replace(&mut inner.polling, true) {
            return None;
        }
        if inner.since.is_none_or(|since| now.since(since) >= FORGET_AFTER) {
            inner.ids.clear();
            inner.since = Some(now);
        }
        Some((Polling(self), inner.ids.clone()))
    }

    /// An entry was dealt with.
    pub fn remember(&self, id: Digest) {
        let mut inner = self.lock();
        if inner.ids.len() >= READ_MAX {
            // Read again, they change nothing: the brain knows them.
            inner.ids.clear();
        }
        inner.ids.insert(id);
    }

    /// What was read may mean something now that it did not before: all is read again.
    pub fn read_again(&self) {
        self.lock().ids.clear();
    }

    /// Entries that are not there any more need not be remembered.
    pub fn forget(&self, gone: &[Digest]) {
        let mut inner = self.lock();
        for id in gone {
            inner.ids.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_not_read_again_within_the_hour_and_one_polls_at_a_time() {
        let read = ReadEntries::default();
        let (first, second) = (Digest::new([1; 32]), Digest::new([2; 32]));
        let have = |at: u64| read.begin(MonoTime(at)).map(|(_, have)| have);
        assert_eq!(have(0), Some(BTreeSet::new()));
        read.remember(first);
        read.remember(second);
        assert_eq!(have(60_000), Some(BTreeSet::from([first, second])));
        read.forget(&[first]);
        assert_eq!(have(120_000), Some(BTreeSet::from([second])));
        let under_way = read.begin(MonoTime(180_000)).unwrap();
        assert_eq!(have(180_000), None);
        drop(under_way);
        assert_eq!(have(3_600_000), Some(BTreeSet::new()), "what could not be dealt with is seen once more");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let read = ReadEntries::default();
        let id = |n: u64| Digest::new(*blake3::hash(&n.to_le_bytes()).as_bytes());
        (0..20_000).for_each(|n| read.remember(id(n)));
        assert!(read.lock().ids.len() <= READ_MAX);
    }
}
