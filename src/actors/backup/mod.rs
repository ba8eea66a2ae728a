//! Backups of a home and what is made of them: which files of one moment belong together, and how a home comes back. It
//! never changes the home it copies, and never leaves half of one.
//!
//! ```text
//!   journal pinned ──▶ replayed ──▶ the files it names are linked ──▶ all there ──▶ packed, read again, named
//!         ▲                                  │ one is gone: deleted meanwhile, or missing from this disk
//!         └────────── a newer moment, which must not name it any more ◀──┘
//! ```
//!
//! Files are never changed under their name, so a second name keeps each as it was. Mirrors, half-fetched mails and the index
//! are left out: they can be had again.

mod restore;
mod stage;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use restore::{Restored, restore};
pub use stage::{Packed, Staged, pack, prune, stage, unstage};

use super::identity::IdentityError;
use super::replay::ReplayError;
use crate::config::ConfigError;
use crate::model::Address;
use crate::store::backup::BackupError;
use crate::store::files::FileError;
use crate::store::home::HomeError;
use crate::store::journal::JournalError;

/// Why a home is not backed up or restored.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the part that is named")]
pub enum HomeCopyError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("the backup holds no usable identity: {0}")]
    Identity(#[from] IdentityError),
    #[error("the backup holds no usable config: {0}")]
    Config(#[from] ConfigError),
    /// Files went away faster than they could be linked.
    #[error("mails come and go too fast for a backup of one moment; try again when less is under way")]
    TooBusy,
    /// Only a new home is restored to.
    #[error("{} is not empty; a backup is restored to a new folder only, so that nothing is overwritten", path.display())]
    NotEmpty {
        /// The home.
        path: PathBuf,
    },
    /// A home needs a name in a folder.
    #[error("{} cannot be a home; name a folder that can be made or replaced", path.display())]
    NoPlace {
        /// The home.
        path: PathBuf,
    },
    /// The backup is another user's.
    #[error("this is the backup of {found}, not of {wanted}; leave the address out to restore it all the same")]
    OtherAddress {
        /// As the command names it.
        wanted: Address,
        /// As the backup says.
        found: Address,
    },
    /// The backup does not fit together.
    #[error("the backup is of {head}, its files are of {files}; it was put together by hand and is not restored")]
    Mixed {
        /// As its head says.
        head: String,
        /// As its files say.
        files: String,
    },
}
