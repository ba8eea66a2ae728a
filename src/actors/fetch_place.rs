//! Where a mail that is pulled is put together: in memory while it is short and there is room, else in a file. It knows no source and no
//! brain.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A sealed mail that is longer is put together in a file, where a pull that was broken off goes on. So much is soon pulled again.
const MEMORY_MAX: u64 = 2 * 1024 * 1024;
/// What all of them may take, in units of [`UNIT`]: 64 MiB.
const ROOM: usize = 1024;
/// Room is counted in steps of so many bytes.
const UNIT: u64 = 64 * 1024;

/// Bounds the memory.
#[derive(Debug, Clone)]
pub(super) struct MemoryRoom(Arc<Semaphore>);

impl Default for MemoryRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

impl MemoryRoom {
    /// Room for a mail of this length, if it is not too long and there is room now.
    fn take(&self, length: u64) -> Option<PulledBytes> {
        let units = u32::try_from(length.div_ceil(UNIT)).ok()?;
        let room = Some(&self.0).filter(|_| length <= MEMORY_MAX)?.clone().try_acquire_many_owned(units).ok()?;
        let bytes = Vec::with_capacity(usize::try_from(length).ok()?);
        Some(PulledBytes { bytes: Cursor::new(bytes), _room: room })
    }

    /// The place of a mail of this length: the file, if an earlier run left one; else memory, if there is room. Blocking.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn open(&self, path: &Path, length: u64) -> io::Result<Place> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map(Place::File),
        }
        match self.take(length) {
            Some(bytes) => Ok(Place::Memory(bytes)),
            None => OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map(Place::File),
        }
    }
}

/// A mail in memory, as a file; it gives its room back when it goes.
#[derive(Debug)]
pub(super) struct PulledBytes {
    bytes: Cursor<Vec<u8>>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for PulledBytes {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get_ref()
    }
}

impl From<PulledBytes> for Bytes {
    fn from(pulled: PulledBytes) -> Self {
        Bytes::from_owner(pulled)
    }
}

impl Read for PulledBytes {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(into)
    }
}

impl Write for PulledBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for PulledBytes {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// Where the blocks of a mail are put together.
#[derive(Debug)]
pub(super) enum Place {
    File(File),
    Memory(PulledBytes),
}

impl Place {
    /// Whether putting a block there waits for no disk.
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self, Place::Memory(_))
    }
}

impl Read for Place {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Place::File(file) => file.read(into),
            Place::Memory(bytes) => bytes.read(into),
        }
    }
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Place::File(file) => file.write(bytes),
            Place::Memory(memory) => memory.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Place {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Place::File(file) => file.seek(to),
            Place::Memory(bytes) => bytes.seek(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9_mails_in_memory_are_bounded_each_and_together_until_the_last_copy_goes() {
        let room = MemoryRoom::default();
        assert!(room.take(MEMORY_MAX + 1).is_none() && room.take(u64::MAX).is_none());
        let mut first = room.take(MEMORY_MAX).unwrap();
        first.seek(SeekFrom::Start(2)).unwrap();
        first.write_all(b"end").unwrap();
        first.rewind().unwrap();
        first.write_all(b"12").unwrap();
        let copy = Bytes::from(first);
        let others: Vec<_> = std::iter::from_fn(|| room.take(MEMORY_MAX)).collect();
        assert_eq!(others.len(), 31);
        let again = copy.clone();
        drop(copy);
        assert_eq!(&again[..], b"12end");
        assert!(room.take(UNIT).is_none());
        drop(again);
        assert!(room.take(MEMORY_MAX).is_some());
    }

    #[test]
    fn what_an_earlier_run_left_is_gone_on_with_and_what_is_long_goes_to_a_file() {
        let (dir, room) = (tempfile::tempdir().unwrap(), MemoryRoom::default());
        let path = dir.path().join("half");
        assert!(matches!(room.open(&path, MEMORY_MAX), Ok(Place::Memory(_))) && !path.exists());
        assert!(matches!(room.open(&path, MEMORY_MAX + 1), Ok(Place::File(_))) && path.exists());
        assert!(matches!(room.open(&path, 1), Ok(Place::File(_))));
    }
}
