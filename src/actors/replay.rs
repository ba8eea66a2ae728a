//! Gives each brain its events of earlier runs, and compacts what is mostly dead. It never changes an event.

use std::collections::BTreeMap;

use crate::core::Brain;
use crate::store::journal::{Journal, JournalError, Record, Replay};
use crate::wire::{WireError, decode, encode};

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

/// The journal's records by brain.
#[derive(Debug)]
pub struct Events(BTreeMap<String, Vec<Vec<u8>>>);

impl Events {
    /// Reads the whole journal.
    ///
    /// # Errors
    /// [`ReplayError::Journal`] when a record in the middle is damaged.
    pub fn read(replay: Replay) -> Result<Self, ReplayError> {
        let mut events: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for record in replay {
            let Record { brain, event } = record?;
            events.entry(brain).or_default().push(event);
        }
        Ok(Self(events))
    }

    /// Replays what is a brain's into it.
    ///
    /// # Errors
    /// [`ReplayError::Event`] when an event is not understood.
    pub fn replay<B: Brain>(&mut self, brain: &mut B) -> Result<(), ReplayError> {
        for (at, event) in self.0.remove(B::NAME).unwrap_or_default().into_iter().enumerate() {
            let event = decode(&event).map_err(|source| {
                let brain = B::NAME.to_owned();
                ReplayError::Event { brain, number: at + 1, source }
            })?;
            brain.replay(event);
        }
        Ok(())
    }

    /// Replays what is a brain's into it, and compacts that when most of it is dead.
    ///
    /// # Errors
    /// [`ReplayError`] when an event is not understood or the journal cannot be written.
    pub fn replay_into<B: Brain>(&mut self, brain: &mut B, journal: &Journal) -> Result<(), ReplayError> {
        self.replay(brain)?;
        let live: Vec<Record> = brain.snapshot().iter().map(|event| Record::new(B::NAME, encode(event))).collect();
        let bytes = live.iter().map(|record| u64::try_from(record.event.len()).unwrap_or(u64::MAX)).sum();
        if journal.is_worth_compacting(B::NAME, bytes) {
            journal.compact(B::NAME, live)?.wait()?;
        }
        Ok(())
    }
}
