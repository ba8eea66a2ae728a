//! This peer's share of the DHT on disk, in the index: a cache, so that a group that was switched off as a whole still knows
//! what was announced. Nothing here was promised to anybody (R1), and nothing of it is believed unless it verifies.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::index::{Index, IndexError};
use crate::core::dht::{Change, Record};
use crate::model::Digest;
use crate::wire::dht::Request;

/// The tree of the index.
const TREE: &str = "dht";
/// Records of one page.
const PAGE: usize = 256;

/// The share's records, each under H(x) and the entry's id.
#[derive(Debug)]
pub struct DhtShare(Mutex<Option<Index>>);

/// Records that were read together.
#[derive(Debug)]
pub struct Page {
    /// Those that verify.
    pub records: Vec<Record>,
    /// Where the next page begins; none after the last.
    pub next: Option<Vec<u8>>,
}

fn place(key: &Digest, id: &Digest) -> Vec<u8> {
    [&key.as_bytes()[..], &id.as_bytes()[..]].concat()
}

/// The record in `bytes`, if it verifies and is the one that belongs at `at`.
fn record(at: &[u8], bytes: &[u8]) -> Option<Record> {
    let mut ops = Request::decode(bytes).ok()?.ops.into_iter();
    let record = Record::of_op(ops.next()?)?;
    let (key, id) = record.place();
    (ops.next().is_none() && place(&key, &id) == at).then_some(record)
}

impl DhtShare {
    /// The share in an index.
    pub fn new(index: Index) -> Self {
        Self(Mutex::new(Some(index)))
    }

    fn index(&self) -> MutexGuard<'_, Option<Index>> {
        // sled keeps itself in order whoever panicked beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes changes and hands them to the operating system. Blocking.
    ///
    /// # Errors
    /// [`IndexError`]; some of them may be written.
    pub fn write(&self, changes: &[Change]) -> Result<(), IndexError> {
        let guard = self.index();
        let Some(index) = guard.as_ref() else { return Ok(()) };
        for change in changes {
            let at = place(&change.key, &change.id);
            match &change.record {
                Some(record) => index.put(TREE, &at, &Request { ops: vec![record.to_op()] }.encode())?,
                None => drop(index.remove(TREE, &at)?),
            }
        }
        index.flush()
    }

    /// Reads the next records after `after`. What is damaged is removed, with a line in the log. Blocking.
    ///
    /// # Errors
    /// [`IndexError`] when the index cannot be read.
    pub fn page(&self, after: Option<&[u8]>) -> Result<Page, IndexError> {
        let guard = self.index();
        let Some(index) = guard.as_ref() else { return Ok(Page { records: Vec::new(), next: None }) };
        let found = index.scan_prefix(TREE, &[], after, PAGE)?;
        let next = found.last().map(|(at, _)| at.clone()).filter(|_| found.len() == PAGE);
        let (mut records, mut damaged) = (Vec::new(), 0_usize);
        for (at, bytes) in found {
            match record(&at, &bytes) {
                Some(record) => records.push(record),
                None => {
                    damaged += 1;
                    index.remove(TREE, &at)?;
                }
            }
        }
        if damaged > 0 {
            tracing::warn!(damaged, "DHT entries in the index were damaged and are dropped; other peers have them");
        }
        Ok(Page { records, next })
    }

    /// Closes the index; what is written later is dropped. Blocking.
    pub fn close(&self) {
        self.index().take();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Secret, WallTime};
    use crate::wire::PeerKey;
    use crate::wire::dht::{Entry, EntryTombstone};

    fn entry(n: u8) -> Entry {
        let key = PeerKey::from_seed(&[4; 32]);
        Entry::publish(&key, Digest::new([n; 32]), Bytes::from(vec![n; 50]), &Secret::new([2; 32]), WallTime(9))
    }

    fn kept(record: &Record) -> Change {
        let (key, id) = record.place();
        Change { key, id, record: Some(record.clone()) }
    }

    fn all(share: &DhtShare) -> Vec<Record> {
        let (mut records, mut after) = (Vec::new(), None);
        loop {
            let page = share.page(after.as_deref()).unwrap();
            records.extend(page.records);
            match page.next {
                Some(next) => after = Some(next),
                None => return records,
            }
        }
    }

    #[test]
    fn records_come_back_and_what_is_damaged_or_misplaced_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let share = DhtShare::new(Index::open(&path).unwrap());
        let dead = EntryTombstone::new(entry(2).terms().clone(), Secret::new([2; 32])).unwrap();
        let records = [Record::Live(entry(1)), Record::Dead(dead), Record::Live(entry(3)), Record::Live(entry(4))];
        share.write(&records.each_ref().map(kept)).unwrap();
        let (key, id) = records[3].place();
        share.write(&[Change { key, id, record: None }]).unwrap();
        share.close();
        share.write(&[kept(&records[3])]).unwrap();
        assert!(all(&share).is_empty(), "it is closed");
        let index = Index::open(&path).unwrap();
        let stored = |record: &Record| Request { ops: vec![record.to_op()] }.encode();
        index.put(TREE, b"junk", b"junk").unwrap();
        index.put(TREE, &[7; 64], &stored(&records[0])).unwrap();
        let mut altered = stored(&records[3]);
        *altered.last_mut().unwrap() ^= 1;
        index.put(TREE, &place(&key, &id), &altered).unwrap();
        let share = DhtShare::new(index);
        let mut found = all(&share);
        found.sort_by_key(Record::place);
        let mut expected = records[..3].to_vec();
        expected.sort_by_key(Record::place);
        assert_eq!(found, expected);
        assert_eq!(share.index().as_ref().unwrap().scan_prefix(TREE, &[], None, 10).unwrap().len(), 3);
    }

    #[test]
    fn a_large_share_is_read_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let share = DhtShare::new(Index::open(&dir.path().join("index")).unwrap());
        let key = PeerKey::from_seed(&[4; 32]);
        let entry = |n: usize| {
            let value = Bytes::from(n.to_string());
            Record::Live(Entry::publish(&key, Digest::new([1; 32]), value, &Secret::new([2; 32]), WallTime(9)))
        };
        let changes: Vec<Change> = (0..2 * PAGE).map(|n| kept(&entry(n))).collect();
        share.write(&changes).unwrap();
        assert_eq!(all(&share).len(), 2 * PAGE);
    }
}
