//! Why a backup cannot be written, trusted or restored. It never carries what a file holds.

use std::path::PathBuf;

use super::super::files::FileError;
use crate::wire::WireError;

/// Why a backup cannot be written, trusted or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file of it, or it itself, cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something at its place already.
    #[error("{} is there already; choose another name, or replace it with --force", path.display())]
    Exists {
        /// Where it was to be.
        path: PathBuf,
    },
    /// A file changed while it was copied.
    #[error("{name} has {found} bytes and had {expected} when the backup began; run it again")]
    Changed {
        /// Its path below the home.
        name: String,
        /// As it was found first.
        expected: u64,
        /// As it was copied.
        found: u64,
    },
    /// It is no backup, or is damaged.
    #[error("{} cannot be restored: {why}; nothing was changed. Use another backup", path.display())]
    Damaged {
        /// The backup.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A record in it is not understood.
    #[error("{} cannot be restored: {source}; nothing was changed. Use the newest Roost, or another backup", path.display())]
    Record {
        /// The backup.
        path: PathBuf,
        /// What the decoder says.
        source: WireError,
    },
    /// It was written by a newer build.
    #[error("{} is a backup of version {found}, this build reads version {known} and older; use the newest Roost", path.display())]
    Newer {
        /// The backup.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this build.
        known: u32,
    },
}
