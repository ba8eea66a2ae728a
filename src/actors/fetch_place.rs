//! Where a mail that is pulled is put together: in memory while it is short, comes soon, and there is room, else in a file. It knows no
//! source and no brain.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::model::MonoTime;

/// What does not come whole in this time goes on in a file, where the next try, or the next run of this peer, finds it.
const MEMORY_FOR: Duration = Duration::from_secs(1);
/// A sealed mail that is longer is put together in a file from the beginning.
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

    /// The place of a mail of this length: the file, if an earlier try left one; else memory, if there is room. Blocking.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn open(&self, path: &Path, length: u64, clock: &Clock) -> io::Result<Place> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map(Place::File),
        }
        match self.take(length) {
            Some(bytes) => {
                let (path, clock) = (path.to_path_buf(), clock.clone());
                let until = clock.now().mono + MEMORY_FOR;
                Ok(Place::Memory(InMemory { bytes, path, until, clock }))
            }
            None => create(path).map(Place::File),
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
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

/// A mail in memory, and the file where it goes on when it takes long.
#[derive(Debug)]
pub(super) struct InMemory {
    bytes: PulledBytes,
    path: PathBuf,
    until: MonoTime,
    clock: Clock,
}

impl InMemory {
    /// Writes what has come into the file, at the place where this one is. A half-pulled mail is not synced: each of its blocks is
    /// checked when the pull goes on.
    fn spill(&self) -> io::Result<File> {
        let mut file = create(&self.path)?;
        file.write_all(self.bytes.as_ref())?;
        file.seek(SeekFrom::Start(self.bytes.bytes.position()))?;
        Ok(file)
    }

    /// Leaves what has come there, whole or not at all: the next try may have begun, and what that has is not touched. What a crash leaves
    /// aside goes at the next start, as all in this folder does that nobody waits for.
    fn leave(&self) -> io::Result<()> {
        let aside = self.path.with_extension("left");
        let mut file = OpenOptions::new().write(true).create_new(true).open(&aside)?;
        let left = file.write_all(self.bytes.as_ref()).and_then(|()| std::fs::hard_link(&aside, &self.path));
        std::fs::remove_file(&aside)?;
        match left {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            left => left,
        }
    }
}

/// Where the blocks of a mail are put together.
#[derive(Debug)]
pub(super) enum Place {
    File(File),
    Memory(InMemory),
}

impl Place {
    /// Until when putting a block there waits for no disk.
    pub(super) fn in_memory_until(&self) -> Option<MonoTime> {
        match self {
            Place::File(_) => None,
            Place::Memory(memory) => Some(memory.until),
        }
    }

    /// Leaves what has come in the file, for the next try. Blocking.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn leave(self) -> io::Result<()> {
        match self {
            Place::Memory(memory) if !memory.bytes.as_ref().is_empty() => memory.leave(),
            _ => Ok(()),
        }
    }
}

impl From<InMemory> for Bytes {
    fn from(memory: InMemory) -> Self {
        memory.bytes.into()
    }
}

impl Read for Place {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Place::File(file) => file.read(into),
            Place::Memory(memory) => memory.bytes.read(into),
        }
    }
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Place::Memory(memory) = self
            && memory.clock.now().mono >= memory.until
        {
            *self = Place::File(memory.spill()?);
        }
        match self {
            Place::File(file) => file.write(bytes),
            Place::Memory(memory) => memory.bytes.write(bytes),
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
            Place::Memory(memory) => memory.bytes.seek(to),
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

    #[tokio::test]
    async fn what_an_earlier_run_left_is_gone_on_with_and_what_is_long_goes_to_a_file() {
        let (dir, room, clock) = (tempfile::tempdir().unwrap(), MemoryRoom::default(), Clock::system());
        let path = dir.path().join("half");
        let open = |length| room.open(&path, length, &clock);
        assert!(matches!(open(MEMORY_MAX), Ok(Place::Memory(_))) && !path.exists());
        assert!(matches!(open(MEMORY_MAX + 1), Ok(Place::File(_))) && path.exists());
        assert!(matches!(open(1), Ok(Place::File(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_goes_on_in_a_file_and_what_is_broken_off_is_left_there() {
        let (dir, room, clock) = (tempfile::tempdir().unwrap(), MemoryRoom::default(), Clock::system());
        let (slow, broken, empty) = (dir.path().join("slow"), dir.path().join("broken"), dir.path().join("empty"));
        let mut place = room.open(&slow, 100, &clock).unwrap();
        place.seek(SeekFrom::Start(3)).unwrap();
        place.write_all(b"abc").unwrap();
        assert!(place.in_memory_until().is_some() && !slow.exists());
        tokio::time::advance(MEMORY_FOR).await;
        place.write_all(b"def").unwrap();
        assert!(place.in_memory_until().is_none() && std::fs::read(&slow).unwrap() == b"\0\0\0abcdef");
        assert!(room.0.available_permits() == ROOM);
        let mut place = room.open(&broken, 100, &clock).unwrap();
        place.write_all(b"abc").unwrap();
        place.leave().unwrap();
        assert_eq!(std::fs::read(&broken).unwrap(), b"abc");
        // The next try began before this one could leave anything.
        let late = dir.path().join("late");
        let mut place = room.open(&late, 100, &clock).unwrap();
        place.write_all(b"abc").unwrap();
        std::fs::write(&late, b"abcdef").unwrap();
        place.leave().unwrap();
        assert_eq!(std::fs::read(&late).unwrap(), b"abcdef");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "and nothing is left aside");
        room.open(&empty, 100, &clock).unwrap().leave().unwrap();
        assert!(!empty.exists());
    }
}
