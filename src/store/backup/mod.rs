//! A backup: one file with the files of a home and the digest of each. It never decides what belongs into one, and gives
//! nothing out that was not checked.
//!
//! It is a plain tar, so that any system can take it apart by hand:
//!
//! ```text
//!   roost-backup          who and when (wire::backup::BackupHead)
//!   config.toml           the files, each with its path below the home
//!   identity/…  journal/00000001.log  …
//!   roost-backup-files    path, length and BLAKE3 of each (wire::backup::BackupList)
//!   roost-backup-digest   BLAKE3 of every byte before this entry; with it the file ends
//! ```

mod error;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use error::BackupError;
pub use read::{Backup, unpack, verify};
pub use write::BackupWriter;

use std::io::{self, Read};

/// Name of the first entry.
const HEAD_ENTRY: &str = "roost-backup";
/// Name of the list.
const LIST_ENTRY: &str = "roost-backup-files";
/// Name of the last entry.
const DIGEST_ENTRY: &str = "roost-backup-digest";
/// Bytes of the last entry, from its header to the end of the file: header, one block of content, two blocks of zeros.
const DIGEST_ENTRY_BYTES: u64 = 4 * 512;
/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// Copies `from` into `to` and gives the count and the BLAKE3 of what went through.
fn copy_hashed(mut from: impl Read, mut to: impl io::Write) -> io::Result<(u64, blake3::Hash)> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut count = 0u64;
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok((count, hasher.finalize())),
            Ok(n) => {
                hasher.update(&chunk[..n]);
                to.write_all(&chunk[..n])?;
                count = count.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether a path of a backup may be made below a home: the files that a home has, and nothing beside or above it.
fn is_path_of_a_home(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let plain = |part: &&str| {
        let letters = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"@._-".contains(&b));
        !part.is_empty() && part.len() <= 200 && !part.starts_with('.') && letters
    };
    let depth = match parts.first() {
        Some(&"config.toml") => 1,
        Some(&("identity" | "keys" | "journal" | "spool")) => 2,
        Some(&("outbox" | "mail")) => 3,
        _ => return false,
    };
    parts.len() == depth && parts.iter().all(plain)
}
