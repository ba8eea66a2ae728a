//! Gives each brain its events of earlier runs. It never changes an event.

use crate::core::Brain;
use crate::store::journal::{JournalError, Record, Replay};
use crate::wire::{WireError, decode};

/// Why the journal cannot be given to the brains.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read or compacted.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A record passes its checksum, but this build does not understand it.
    #[error(
        "record {number} of {brain} in the journal is not understood: {source}; start the version that wrote it, or restore a backup"
    )]
    Event {
        /// Whose.
        brain: String,
        /// Counted from 1 among that brain's.
        number: usize,
        /// What the decoder says.
        source: WireError,
    },
}

/// Something that takes its own events from a journal: a brain.
pub trait Replays {
    /// Whose events.
    fn name(&self) -> &'static str;
    /// Takes one, encoded.
    ///
    /// # Errors
    /// [`WireError`] when it is not understood.
    fn take(&mut self, event: &[u8]) -> Result<(), WireError>;
}

impl<B: Brain> Replays for B {
    fn name(&self) -> &'static str {
        B::NAME
    }
    fn take(&mut self, event: &[u8]) -> Result<(), WireError> {
        self.replay(decode(event)?);
        Ok(())
    }
}

/// Gives each of `brains` what is its own, in order, and keeps no record in memory: a journal may be larger than that.
///
/// # Errors
/// [`ReplayError`] when a record in the middle is damaged, or an event is not understood.
pub fn replay(records: Replay, brains: &mut [&mut dyn Replays]) -> Result<(), ReplayError> {
    let mut numbers = vec![0; brains.len()];
    for record in records {
        let Record { brain, event } = record?;
        let of = brains.iter_mut().zip(&mut numbers).find(|(known, _)| known.name() == brain);
        let Some((known, number)) = of else { continue };
        *number += 1;
        known.take(&event).map_err(|source| ReplayError::Event { brain, number: *number, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::Journal;

    /// Takes whatever begins with a version byte, and remembers it.
    struct Taker(&'static str, Vec<u8>);
    impl Replays for Taker {
        fn name(&self) -> &'static str {
            self.0
        }
        fn take(&mut self, event: &[u8]) -> Result<(), WireError> {
            self.1.push(decode(event)?);
            Ok(())
        }
    }

    fn record(brain: &str, event: u8) -> Record {
        Record::new(brain, crate::wire::encode(&event))
    }

    #[test]
    fn each_takes_its_own_in_order_and_what_is_read_again_is_the_same_whatever_was_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let all = [record("a", 1), record("b", 2), record("nobody", 3), record("a", 4), record("b", 5)];
        journal.append(all.to_vec()).unwrap().wait().unwrap();
        drop(journal);
        let (journal, records) = Journal::open(dir.path()).unwrap();
        let again = records.again().unwrap();
        let (mut a, mut b) = (Taker("a", Vec::new()), Taker("b", Vec::new()));
        replay(records, &mut [&mut a]).unwrap();
        journal.compact("b", vec![record("b", 9)]).unwrap().wait().unwrap();
        replay(again, &mut [&mut b]).unwrap();
        assert_eq!((a.1, b.1), (vec![1, 4], vec![2, 5]));
    }

    #[test]
    fn an_event_that_is_not_understood_is_named_by_brain_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let all = [record("a", 1), record("b", 2), Record::new("a", b"junk".to_vec())];
        journal.append(all.to_vec()).unwrap().wait().unwrap();
        drop(journal);
        let (_journal, records) = Journal::open(dir.path()).unwrap();
        let error = replay(records, &mut [&mut Taker("b", Vec::new()), &mut Taker("a", Vec::new())]).unwrap_err();
        assert!(matches!(error, ReplayError::Event { ref brain, number: 2, .. } if brain == "a"), "{error}");
    }
}
