//! Batches: what one write and one sync bring into a journal file. A batch counts whole or not at all, and is never looked into.
//!
//! ```text
//! batch  = length(u32 LE, of its frames)  offset(u64 LE, of this batch in the file)  crc32c(u32 LE, of both)  frame*
//! ```
//! A batch is written only when the one before it is durable. So in whatever order a disk wrote the pages of the last one
//! before a power cut, no other batch is behind it; and since a batch names its own offset, nothing that an event holds, and
//! nothing that a disk left there, is taken for one.

use std::io::{self, Write as _};
use std::path::Path;

use super::super::files::{DurableWriter, FileError};
use super::error::JournalError;
use super::record::{FRAME_BYTES_MIN, HEADER};
use super::writer::{GATHER_BYTES, WRITE_BYTES_MAX};

/// Bytes of a batch before its frames.
pub(super) const BATCH_HEAD_BYTES: usize = 16;
/// The same as a length in a file.
pub(super) const BATCH_HEAD_LEN: u64 = 16;

fn checksum(length: [u8; 4], offset: [u8; 8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&length), &offset).to_le_bytes()
}

/// The batch of `frames` as it stands at byte `offset` of a file.
pub(super) fn batch(frames: &[u8], offset: u64) -> Vec<u8> {
    // Appends are bounded far below: a length that does not fit would be one that no start reads.
    let length = u32::try_from(frames.len()).unwrap_or(u32::MAX).to_le_bytes();
    let offset = offset.to_le_bytes();
    let mut bytes = Vec::with_capacity(BATCH_HEAD_BYTES + frames.len());
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&offset);
    bytes.extend_from_slice(&checksum(length, offset));
    bytes.extend_from_slice(frames);
    bytes
}

/// Bytes of the frames of the batch whose head starts `bytes`, if one does that stands at byte `offset`.
pub(super) fn read_batch_head(bytes: &[u8], offset: u64) -> Option<u64> {
    let head: &[u8; BATCH_HEAD_BYTES] = bytes.first_chunk()?;
    let (length, rest) = head.split_first_chunk::<4>()?;
    let (at, sum) = rest.split_first_chunk::<8>()?;
    let possible = u64::from(u32::from_le_bytes(*length));
    let is_one = *at == offset.to_le_bytes()
        && *sum == checksum(*length, *at)
        && (FRAME_BYTES_MIN..=WRITE_BYTES_MAX).contains(&possible);
    is_one.then_some(possible)
}

/// A new journal file that is written batch by batch, durable when it gets its name.
pub(super) struct NewLog<'a> {
    file: DurableWriter,
    name: &'a Path,
    frames: Vec<u8>,
}

impl<'a> NewLog<'a> {
    /// One in `dir` that will be called `name`.
    pub(super) fn create(dir: &Path, name: &'a Path) -> Result<Self, JournalError> {
        let mut new = Self { file: DurableWriter::create(dir)?, name, frames: Vec::new() };
        new.write(&HEADER)?;
        Ok(new)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let failed = |e: io::Error| JournalError::from(FileError::from_io(self.name, "write", &e));
        self.file.write_all(bytes).map_err(failed)
    }

    /// Appends one whole frame.
    pub(super) fn push(&mut self, frame: &[u8]) -> Result<(), JournalError> {
        self.frames.extend_from_slice(frame);
        if u64::try_from(self.frames.len()).is_ok_and(|length| length < GATHER_BYTES) {
            return Ok(());
        }
        self.end_batch()
    }

    fn end_batch(&mut self) -> Result<(), JournalError> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.frames);
        self.write(&batch(&frames, self.file.written()))
    }

    /// Makes it durable under its name; gives its length.
    pub(super) fn commit(mut self) -> Result<u64, JournalError> {
        self.end_batch()?;
        let length = self.file.written();
        self.file.commit(self.name)?;
        Ok(length)
    }
}
