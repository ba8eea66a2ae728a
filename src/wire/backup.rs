//! The records inside of a backup: its head, and the list of its files with their digests. No IO.

use serde::{Deserialize, Serialize};

use crate::model::{Address, Digest, PeerId, WallTime};

/// Version of the format: which entries a backup has, and what a restore makes of them.
pub const BACKUP_VERSION: u32 = 1;
/// Most bytes of the head.
pub const BACKUP_HEAD_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of the list: some millions of files.
pub const BACKUP_LIST_BYTES_MAX: u64 = 1 << 30;

/// The first entry: whose backup it is, of which moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHead {
    /// [`BACKUP_VERSION`] of the build that wrote it.
    #[serde(rename = "v")]
    pub version: u32,
    /// Whose home it was.
    #[serde(rename = "a")]
    pub address: Address,
    /// Who the peer is.
    #[serde(rename = "p")]
    pub peer_id: PeerId,
    /// The moment of which the journal is.
    #[serde(rename = "t")]
    pub made: WallTime,
    /// The build that wrote it, for people.
    #[serde(rename = "b")]
    pub build: String,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Its path below the home.
    #[serde(rename = "f")]
    pub path: String,
    /// Its length, bytes.
    #[serde(rename = "n")]
    pub length: u64,
    /// Its BLAKE3.
    #[serde(rename = "d")]
    pub digest: Digest,
}

/// The last entry but one: every file, in the order in which they stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupList {
    /// All of them.
    #[serde(rename = "f")]
    pub files: Vec<BackupFile>,
}
