//! The journal as the shells see it.

use crate::actors::shell::{Append, EventLog, LogBroken};
use crate::store::journal::{Journal, Record};

/// Appends the brains' events to the one journal of a home.
#[derive(Debug, Clone)]
pub struct JournalLog(Journal);

impl JournalLog {
    /// The log of an open journal.
    pub fn new(journal: Journal) -> Self {
        Self(journal)
    }
}

impl EventLog for JournalLog {
    fn append(&self, brain: &'static str, events: Vec<Vec<u8>>) -> Append {
        let records = events.into_iter().map(|event| Record { brain: brain.to_owned(), event }).collect();
        // A full disk makes `append_waiting` wait, and everything behind it: events of a brain have no gaps.
        let appended = self.0.append_waiting(records);
        Box::pin(async move {
            let broken = |why: String| LogBroken { why };
            appended.map_err(|e| broken(e.to_string()))?.await.map_err(|e| broken(e.to_string()))
        })
    }
}
