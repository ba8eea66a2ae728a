//! Why the journal cannot be opened, read or appended to. It never carries what a record holds.

use std::path::PathBuf;

use super::super::files::FileError;

/// Why the journal cannot be opened, read or appended to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A bad record with more behind it than a stop in the middle of a write can leave.
    #[error(
        "{} is damaged: what stands at byte {offset} does not match its checksum, and {behind}. Nothing was changed. \
         Check the disk, then restore this home from a backup (`roost init --restore`). To go on without a backup and \
         lose what was written from there on, keep a copy of the file and run: truncate -s {offset} '{}'",
        path.display(), path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the bad record starts.
        offset: u64,
        /// What follows it.
        behind: String,
    },
    /// The file does not start as a journal does.
    #[error(
        "{} is no journal: {why}. Nothing was changed. Restore this home from a backup (`roost init --restore`)",
        path.display()
    )]
    NoJournal {
        /// The file.
        path: PathBuf,
        /// What is wrong with its start.
        why: String,
    },
    /// A whole record that this build does not understand.
    #[error("the record at byte {offset} of {} cannot be read: {why}; start this home with the newest Roost", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where the record starts.
        offset: u64,
        /// What is not understood.
        why: String,
    },
    /// A record that cannot be written: a bug of the caller, or an event above the bound.
    #[error("the event of {brain:?} is not recorded: {why}")]
    BadRecord {
        /// Whose it is.
        brain: String,
        /// What is wrong.
        why: String,
    },
    /// Too much waits for the disk. Nothing of this append was taken.
    #[error("the disk is too slow: {waiting} bytes of events wait to be written; try again in a moment")]
    Busy {
        /// Bytes that wait.
        waiting: u64,
    },
    /// No room. Nothing of this append is in the journal; a later one may succeed.
    #[error("the disk is full: could not append to {}; free some space, then try again", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// A write or fsync failed: what is on the disk is not known any more, so nothing more is acknowledged.
    #[error(
        "{} takes no more events since the disk failed ({why}); what was acknowledged before is safe. \
         Check the disk and start this peer again",
        path.display()
    )]
    Poisoned {
        /// The file.
        path: PathBuf,
        /// The failure.
        why: String,
    },
    /// The journal was closed before this append was done.
    #[error("the journal is closed: this peer is stopping; what it did not acknowledge is not recorded")]
    Closed,
    /// A file cannot be made, read or removed.
    #[error("the journal cannot be used: {0}")]
    File(#[from] FileError),
}

impl JournalError {
    /// Whether there was no room. SMTP answers 452 by it.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, JournalError::DiskFull { .. } | JournalError::File(FileError::DiskFull { .. }))
    }
}
