//! The one thread that writes the journal. It never says that an append is done before fdatasync returned, and says
//! nothing is done any more after that failed once.
//!
//! Everything that is queued while a sync is under way goes into the next single write and sync (group commit); the
//! answers go out in the order of the queue. What nobody waits for waits a moment itself, for company.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::files::{self, FileError, is_disk_full};
use super::super::room;
use super::batch::{self, NewLog};
use super::error::JournalError;
use super::record::Record;
use super::replay::{Frames, Step};
use super::{Shared, log_path};

/// Bytes of one append at most.
pub const APPEND_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// A write takes no further append once it has this many bytes.
pub(super) const GATHER_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of the frames of one write at most: what a stop can tear.
pub(super) const WRITE_BYTES_MAX: u64 = GATHER_BYTES + APPEND_BYTES_MAX;

/// How long the writer waits before it tries again when there was no room.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// Bytes of the disk that are set aside at a time for what comes next: some thousand events. So there is room for the end of a
/// mail when there is none for a new one.
const ASIDE_BYTES: u64 = 1024 * 1024;

/// How long an append that nobody waits for waits for others: longer than a sync, so that most of these have none of their own.
const COMPANY_WITHIN: Duration = Duration::from_millis(5);
/// So many of them have company enough.
pub(super) const COMPANY: usize = 16;

/// What anything in the queue counts besides its own bytes: its place, its answer, the names.
pub(super) const QUEUED_BYTES: u64 = 256;

/// Answers one append.
pub(super) type Done = oneshot::Sender<Result<(), JournalError>>;

/// Frames of one append.
pub(super) struct Append {
    pub(super) frames: Vec<u8>,
    /// Bytes of each brain's records.
    pub(super) by_brain: Vec<(String, u64)>,
    pub(super) when_full: WhenFull,
    /// Nobody waits for it: it may wait for company.
    pub(super) at_leisure: bool,
    pub(super) done: Done,
}

impl Append {
    /// What it counts in the queue.
    pub(super) fn charge(&self) -> u64 {
        QUEUED_BYTES.saturating_add(u64::try_from(self.frames.len()).unwrap_or(u64::MAX))
    }
}

/// What becomes of an append when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// It is refused.
    Refuse,
    /// It waits, and all behind it, until there is.
    Wait,
}

/// What the thread is asked to do.
pub(super) enum Command {
    Append(Append),
    /// Replaces all that was appended for `brain` until now by `live`.
    Compact {
        brain: String,
        live: Vec<Record>,
        charge: u64,
        done: Done,
    },
    /// Asks whether room for what comes next can be had now.
    Look {
        done: oneshot::Sender<bool>,
    },
    /// Gives the file of this moment a second name, and says where its last acknowledged record ends.
    Pin {
        to: PathBuf,
        done: oneshot::Sender<Result<u64, JournalError>>,
    },
}

/// The file as the writer needs it; a test puts a failing one here.
pub(super) trait LogFile: Send {
    /// Appends all of `bytes`.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// fdatasync.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back what is behind `length`, durably; what was set aside goes too.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Sets `bytes` of the disk behind `length` aside for this file, whose length stays. A disk that cannot do that says yes.
    fn set_aside(&mut self, length: u64, bytes: u64) -> io::Result<()>;
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.sync_all()
    }
    fn set_aside(&mut self, length: u64, bytes: u64) -> io::Result<()> {
        let (largest, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
        if length.saturating_add(bytes) > largest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (Ok(from), Ok(count)) = (length.try_into(), bytes.try_into()) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        match fallocate(&*self, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, count) {
            Err(error) if is_disk_full(&error.into()) => Err(error.into()),
            // Not every disk can; then it is found out by writing, as is whatever else is wrong.
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Opens a journal file to append to it.
pub(super) fn open_log(path: &Path) -> Result<File, FileError> {
    OpenOptions::new().append(true).open(path).map_err(|e| FileError::from_io(path, "open", &e))
}

/// The state of the thread.
pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) number: u64,
    pub(super) file: Box<dyn LogFile>,
    /// Where the last acknowledged batch ends.
    pub(super) good: u64,
    /// Up to where the disk is set aside.
    pub(super) aside: u64,
    pub(super) shared: Arc<Shared>,
}

impl Writer {
    /// Serves the queue until every [`super::Journal`] is gone.
    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        let mut held = None;
        self.set_aside();
        loop {
            let first = match held.take() {
                Some(command) => command,
                None => match queue.recv() {
                    Ok(command) => command,
                    Err(_) => return,
                },
            };
            match first {
                Command::Append(append) => {
                    let (batch, next) = gather(append, queue, COMPANY_WITHIN);
                    held = next;
                    self.write(batch);
                }
                Command::Compact { brain, live, charge, done } => {
                    let result = self.compact(&brain, &live);
                    self.shared.left_queue(charge);
                    // Nobody waits any more: that is the caller's right, and nothing is lost by it.
                    let _ = done.send(result);
                }
                Command::Look { done } => {
                    self.shared.left_queue(QUEUED_BYTES);
                    // As above.
                    let _ = done.send(self.set_aside());
                }
                Command::Pin { to, done } => {
                    self.shared.left_queue(QUEUED_BYTES);
                    // As above.
                    let _ = done.send(self.pin(&to));
                }
            }
        }
    }

    /// A second name keeps the file when a compaction takes the first one away.
    fn pin(&self, to: &Path) -> Result<u64, JournalError> {
        self.shared.health()?;
        files::link_or_copy(&self.path(), to)?;
        Ok(self.good)
    }

    fn path(&self) -> PathBuf {
        log_path(&self.dir, self.number)
    }

    /// One write and one sync for the whole batch; repeated for what may wait while there is no room.
    pub(super) fn write(&mut self, mut batch: Vec<Append>) {
        loop {
            let result = self.write_once(&batch);
            let full = matches!(result, Err(JournalError::DiskFull { .. }));
            let (waiting, answered) = if full && !self.shared.is_closing() {
                batch.into_iter().partition(|append| append.when_full == WhenFull::Wait)
            } else {
                (Vec::new(), batch)
            };
            for append in answered {
                self.shared.left_queue(append.charge());
                // Nobody waits any more: that is the caller's right, and nothing is lost by it.
                let _ = append.done.send(result.clone());
            }
            self.shared.set_waiting_for_room(&self.path(), !waiting.is_empty());
            if waiting.is_empty() {
                return;
            }
            batch = waiting;
            std::thread::park_timeout(ROOM_RETRY);
        }
    }

    /// Sees to it that there is room for what comes next; whether there is.
    fn set_aside(&mut self) -> bool {
        if self.aside.saturating_sub(self.good) < ASIDE_BYTES / 2 {
            match self.file.set_aside(self.good, ASIDE_BYTES) {
                Ok(()) => self.aside = self.good.saturating_add(ASIDE_BYTES),
                Err(error) => room::ran_out_of(&self.path(), 0, &error),
            }
        }
        let has_room = self.aside.saturating_sub(self.good) >= ASIDE_BYTES / 2;
        self.shared.set_short_of_room(!has_room);
        if has_room {
            room::has_room(&self.path());
        }
        has_room
    }

    fn write_once(&mut self, batch: &[Append]) -> Result<(), JournalError> {
        let frames: Cow<'_, [u8]> = match batch {
            [one] => Cow::Borrowed(&one.frames),
            many => Cow::Owned(many.iter().map(|a| a.frames.as_slice()).collect::<Vec<_>>().concat()),
        };
        self.write_frames(&frames)?;
        self.shared.grew(batch.iter().flat_map(|a| &a.by_brain));
        Ok(())
    }

    fn write_frames(&mut self, frames: &[u8]) -> Result<(), JournalError> {
        self.shared.health()?;
        if frames.is_empty() {
            // A barrier: all before it is durable already.
            return Ok(());
        }
        let batch = batch::batch(frames, self.good);
        match self.file.append(&batch) {
            Ok(()) => {
                self.file.sync().map_err(|e| self.poison("fsync", &e))?;
                self.good = self.good.saturating_add(u64::try_from(batch.len()).unwrap_or(u64::MAX));
                self.set_aside();
                Ok(())
            }
            Err(e) if files::is_disk_full(&e) => {
                // Some of it may be there. It is taken back durably, or an append that was refused could come back.
                self.aside = self.good;
                room::ran_out_of(&self.path(), 0, &e);
                self.shared.set_short_of_room(true);
                self.file.cut(self.good).map_err(|e| self.poison("cut back", &e))?;
                Err(JournalError::DiskFull { path: self.path() })
            }
            Err(e) => Err(self.poison("write", &e)),
        }
    }

    fn poison(&self, action: &str, error: &dyn std::fmt::Display) -> JournalError {
        let poisoned = JournalError::Poisoned { path: self.path(), why: format!("{action}: {error}") };
        tracing::error!("{poisoned}");
        self.shared.poison(poisoned.clone());
        poisoned
    }

    /// Writes a new file: every record of the other brains, then `live`. Until its name is durable the old file is the
    /// journal; from then on the old one is garbage, which the next start removes if this process cannot.
    fn compact(&mut self, brain: &str, live: &[Record]) -> Result<(), JournalError> {
        self.shared.health()?;
        let next = log_path(&self.dir, self.number + 1);
        let written = write_anew(&self.dir, (&self.path(), self.good), Some(brain), live, &next);
        let (good, live_bytes) = match written {
            Ok(lengths) => lengths,
            // The new name is there but may not stay: neither file can be trusted to be the one that a start finds.
            Err(e) if next.exists() => return Err(self.poison("compact", &e)),
            Err(e) => return Err(e),
        };
        let file = open_log(&next).map_err(|e| self.poison("compact", &e))?;
        let old = self.path();
        self.file = Box::new(file);
        self.number += 1;
        self.good = good;
        self.aside = good;
        self.shared.compacted(brain, live_bytes);
        self.set_aside();
        if let Err(e) = fs::remove_file(&old) {
            tracing::warn!("could not remove {}: {e}; the next start tries again", old.display());
        }
        Ok(())
    }
}

/// Writes the journal `next`: the records of `old` up to byte `good` but those of the brain `without`, then `live`. Gives its
/// length, and the bytes of the records of `live`.
pub(super) fn write_anew(
    dir: &Path,
    (old, good): (&Path, u64),
    without: Option<&str>,
    live: &[Record],
    next: &Path,
) -> Result<(u64, u64), JournalError> {
    let mut new = NewLog::create(dir, next)?;
    let mut frames = Frames::open(old, good)?;
    while frames.next()? == Step::Frame {
        let brain = frames.brain()?;
        if without != Some(brain) {
            new.push(frames.frame())?;
        }
    }
    if frames.offset != good {
        return Err(JournalError::Damaged {
            path: old.to_path_buf(),
            offset: frames.whole(),
            behind: "it was whole when it was written".to_owned(),
        });
    }
    let (mut frame, mut live_bytes) = (Vec::new(), 0u64);
    for record in live {
        frame.clear();
        live_bytes = live_bytes.saturating_add(record.write_to(&mut frame)?);
        new.push(&frame)?;
    }
    Ok((new.commit()?, live_bytes))
}

/// `first` and what else is queued, or comes within this time while nobody waits for any of them, and the command that is not an
/// append and comes next.
pub(super) fn gather(first: Append, queue: &Receiver<Command>, within: Duration) -> (Vec<Append>, Option<Command>) {
    let (start, mut bytes) = (Instant::now(), first.frames.len());
    let mut batch = vec![first];
    while u64::try_from(bytes).is_ok_and(|bytes| bytes < GATHER_BYTES) {
        let waits = batch.len() < COMPANY && batch.iter().all(|append| append.at_leisure);
        match queue.recv_timeout(if waits { within.saturating_sub(start.elapsed()) } else { Duration::ZERO }) {
            Ok(Command::Append(append)) => {
                bytes += append.frames.len();
                batch.push(append);
            }
            Ok(other) => return (batch, Some(other)),
            // A queue that is closed is noticed by the next recv.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    (batch, None)
}
