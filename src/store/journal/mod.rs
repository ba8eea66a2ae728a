//! The journal: an append-only, checksummed log of all brains' events, the truth that is not a blob. It never says that an
//! append is done before it is on the disk (R1), and never drops a record but in a compaction or a torn tail.
//!
//! One file at a time, `journal/NNNNNNNN.log`; a compaction writes the next number. The highest number is the journal.
//! A new file is complete and fsynced before it gets its name, so lower numbers are garbage as soon as it has it:
//!
//! ```text
//!  00000007.log ──compact──▶ .tmp (fsync) ──rename, fsync folder──▶ 00000008.log, then 00000007.log is removed
//!  a stop here:      7 is the journal, .tmp is swept        8 is the journal, 7 is removed
//! ```

mod batch;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzed;
mod record;
mod replay;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::files::{self, FileError};
use writer::{Append, Command, QUEUED_BYTES, WhenFull, Writer};

pub use error::JournalError;
pub use record::{BRAIN_NAME_MAX, RECORD_BYTES_MAX, Record};
pub use replay::Replay;
pub use writer::APPEND_BYTES_MAX;

/// Bytes that may wait before an append that need not be taken is refused, each append counting [`QUEUED_BYTES`] more: enough that it fills only when the disk hangs or is full.
const QUEUE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest wait for the answer to whether there is room; the thread answers between two writes.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Below this a compaction saves too little to be worth its fsyncs.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;

/// The journal of a home. Cheap to clone; the last clone that goes waits until what was queued is written.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` only while it is dropped.
    queue: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It may be waiting for room. It ends when the queue is empty. A panic in it would have ended the process.
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// What the writer tells its callers.
#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicU64,
    closing: AtomicBool,
    waiting_for_room: AtomicBool,
    short_of_room: AtomicBool,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    by_brain: BTreeMap<String, BrainBytes>,
    poisoned: Option<JournalError>,
}

/// Bytes of one brain's records in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BrainBytes {
    /// In all.
    pub total: u64,
    /// Of these, appended since its last compaction or the start.
    pub since_compaction: u64,
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn grew<'a>(&self, by_brain: impl Iterator<Item = &'a (String, u64)>) {
        let mut counts = self.counts();
        for (brain, bytes) in by_brain {
            let entry = counts.by_brain.entry(brain.clone()).or_default();
            entry.total += bytes;
            entry.since_compaction += bytes;
        }
    }
    fn compacted(&self, brain: &str, live_bytes: u64) {
        let bytes = BrainBytes { total: live_bytes, since_compaction: 0 };
        self.counts().by_brain.insert(brain.to_owned(), bytes);
    }
    fn left_queue(&self, bytes: u64) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
    fn set_waiting_for_room(&self, path: &Path, waiting: bool) {
        match (self.waiting_for_room.swap(waiting, Ordering::Relaxed), waiting) {
            (false, true) => tracing::warn!("the disk is full: {} waits for room; free some space", path.display()),
            (true, false) => tracing::info!("{} waits for room no more", path.display()),
            _ => {}
        }
    }
    fn set_short_of_room(&self, short: bool) {
        self.short_of_room.store(short, Ordering::Relaxed);
    }
    fn poison(&self, error: JournalError) {
        self.counts().poisoned.get_or_insert(error);
    }
    fn health(&self) -> Result<(), JournalError> {
        self.counts().poisoned.clone().map_or(Ok(()), Err)
    }
}

impl Journal {
    /// Opens the journal in `dir`, or starts one. A torn tail, of which nothing was acknowledged, is cut, with a warning. One
    /// of an older version is written anew in this one. Gives what it holds, in order.
    /// Only for a home that is locked.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] for a bad record with more behind it than an interrupted write leaves, and what else is wrong with the files; every
    /// one says what to do, and then nothing was changed.
    pub fn open(dir: &Path) -> Result<(Self, Replay), JournalError> {
        files::ensure_folder(dir)?;
        let logs = list_logs(dir)?;
        let number = match logs.last() {
            Some(number) => *number,
            None => {
                files::write_durable(&log_path(dir, 1), &record::HEADER, files::FILE_MODE)?;
                1
            }
        };
        let path = log_path(dir, number);
        let found = replay::check(&path)?;
        if found.good < found.length {
            cut_tail(&path, found.good, found.length)?;
        }
        let (number, path, good) = match found.has_batches {
            true => (number, path, found.good),
            false => upgrade(dir, number, found.good)?,
        };
        for older in logs.iter().filter(|older| **older < number) {
            files::remove_durable(&log_path(dir, *older))?;
        }
        files::sweep_temporaries(dir)?;
        let replay = Replay::open(&path, good)?;
        let shared = Arc::new(Shared::default());
        shared.grew(found.by_brain.into_iter().collect::<Vec<_>>().iter());
        let file = writer::open_log(&path)?;
        // A run that was killed may have written a batch and not made it durable; from here on it counts as that.
        file.sync_data().map_err(|e| FileError::from_io(&path, "sync", &e))?;
        let file = Box::new(file);
        let writer = Writer { dir: dir.to_path_buf(), number, file, good, aside: good, shared: shared.clone() };
        Ok((Self::start(writer, shared)?, replay))
    }

    fn start(writer: Writer, shared: Arc<Shared>) -> Result<Self, JournalError> {
        let (queue, waiting) = channel();
        let dir = writer.dir.clone();
        let thread = std::thread::Builder::new()
            .name("roost-journal".to_owned())
            .spawn(move || writer.run(&waiting))
            .map_err(|e| FileError::from_io(&dir, "start the thread for", &e))?;
        Ok(Self { inner: Arc::new(Inner { queue: Some(queue), thread: Some(thread), shared }) })
    }

    /// Queues `records` and returns at once; what it gives resolves when they are on the disk. Appends are written and
    /// answered in the order of the calls; one without records resolves when all before it have. An append is not taken
    /// back when its answer is not waited for. When there is no room it is refused, and a later one may succeed.
    ///
    /// # Errors
    /// [`JournalError::Busy`], [`JournalError::BadRecord`] or [`JournalError::Closed`]; then nothing was taken.
    pub fn append(&self, records: Vec<Record>) -> Result<Durable, JournalError> {
        self.enqueue(records, WhenFull::Refuse, false)
    }

    /// As [`Journal::append`], but when there is no room it waits, and all behind it, until there is: for a brain, whose
    /// events must not have gaps. It resolves to [`JournalError::DiskFull`] only when the journal is closed meanwhile. It is
    /// never too much: whoever appends so bounds what it has under way.
    ///
    /// # Errors
    /// [`JournalError::BadRecord`] or [`JournalError::Closed`]; then nothing was taken.
    pub fn append_waiting(&self, records: Vec<Record>) -> Result<Durable, JournalError> {
        self.enqueue(records, WhenFull::Wait, false)
    }

    /// As [`Journal::append_waiting`], for what nobody waits for: it is written with what is appended within some milliseconds.
    ///
    /// # Errors
    /// As [`Journal::append_waiting`].
    pub fn append_at_leisure(&self, records: Vec<Record>) -> Result<Durable, JournalError> {
        self.enqueue(records, WhenFull::Wait, true)
    }

    fn enqueue(&self, records: Vec<Record>, when_full: WhenFull, at_leisure: bool) -> Result<Durable, JournalError> {
        let mut frames = Vec::new();
        let mut by_brain = Vec::with_capacity(records.len());
        for record in records {
            let bytes = record.write_to(&mut frames)?;
            if u64::try_from(frames.len()).is_ok_and(|total| total > APPEND_BYTES_MAX) {
                let why = format!("this append has more than {APPEND_BYTES_MAX} bytes");
                return Err(JournalError::BadRecord { brain: record.brain, why });
            }
            by_brain.push((record.brain, bytes));
        }
        let (done, answer) = oneshot::channel();
        let append = Append { frames, by_brain, when_full, at_leisure, done };
        self.send(append.charge(), when_full, Command::Append(append))?;
        Ok(Durable { answer })
    }

    /// Replaces every record of `brain` that was appended before this call by `live`; other brains' records stay. What is
    /// appended after this call comes after `live`, so a brain gives its state and goes on.
    ///
    /// # Errors
    /// As [`Journal::append`]; also when a record of `live` is another brain's. What it gives resolves to the error when
    /// the new file could not be written: then the old one is still the journal.
    pub fn compact(&self, brain: &str, live: Vec<Record>) -> Result<Durable, JournalError> {
        if let Some(other) = live.iter().find(|record| record.brain != brain) {
            let why = format!("it was given as the live state of {brain:?}");
            return Err(JournalError::BadRecord { brain: other.brain.clone(), why });
        }
        let live_bytes: usize = live.iter().map(|record| record.event.len()).sum();
        let charge = QUEUED_BYTES.saturating_add(u64::try_from(live_bytes).unwrap_or(u64::MAX));
        let (done, answer) = oneshot::channel();
        self.send(charge, WhenFull::Refuse, Command::Compact { brain: brain.to_owned(), live, charge, done })?;
        Ok(Durable { answer })
    }

    /// Gives the journal of this moment the name `to` as well, behind all that was appended before this call; gives where its
    /// last whole record ends. What is appended later comes behind that. Waits on this thread, as [`Durable::wait`].
    ///
    /// # Errors
    /// [`JournalError`] when the journal takes nothing any more, or `to` cannot be made.
    pub fn pin(&self, to: &Path) -> Result<u64, JournalError> {
        let (done, answer) = oneshot::channel();
        self.send(QUEUED_BYTES, WhenFull::Refuse, Command::Pin { to: to.to_owned(), done })?;
        answer.blocking_recv().unwrap_or(Err(JournalError::Closed))
    }

    /// Queues a command that counts `charge` bytes. An empty queue takes one of any size, and every queue one that must wait.
    fn send(&self, charge: u64, when_full: WhenFull, command: Command) -> Result<(), JournalError> {
        let shared = &self.inner.shared;
        let waiting = shared.queued_bytes.fetch_add(charge, Ordering::Relaxed);
        let must_wait = when_full == WhenFull::Wait;
        let sent = if !must_wait && waiting > 0 && waiting.saturating_add(charge) > QUEUE_BYTES_MAX {
            Err(JournalError::Busy { waiting })
        } else {
            let queue = self.inner.queue.as_ref().ok_or(JournalError::Closed);
            queue.and_then(|queue| queue.send(command).map_err(|_| JournalError::Closed))
        };
        if sent.is_err() {
            shared.left_queue(charge);
        }
        sent
    }

    /// The records of a pinned journal up to byte `good`.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be opened or is no journal.
    pub fn read_pinned(path: &Path, good: u64) -> Result<Replay, JournalError> {
        Replay::open(path, good)
    }

    /// Bytes of all records that are on the disk; for status and metrics.
    pub fn bytes(&self) -> u64 {
        self.inner.shared.counts().by_brain.values().map(|brain| brain.total).sum()
    }

    /// Bytes of the records of `brain` that are on the disk.
    pub fn bytes_of(&self, brain: &str) -> BrainBytes {
        self.inner.shared.counts().by_brain.get(brain).copied().unwrap_or_default()
    }

    /// Whether most of the records of `brain` are dead, if its live state has `live_bytes`, and enough to be worth it.
    pub fn is_worth_compacting(&self, brain: &str, live_bytes: u64) -> bool {
        let total = self.bytes_of(brain).total;
        total >= COMPACT_BYTES_MIN && total > live_bytes.saturating_mul(2)
    }

    /// Whether appends wait because the disk is full; for status and metrics.
    pub fn is_waiting_for_room(&self) -> bool {
        self.inner.shared.waiting_for_room.load(Ordering::Relaxed)
    }

    /// Whether there is room for what comes next: some has been set aside, or can be now. While there is none, nothing new
    /// should be begun whose events this journal must take; what ends things still finds what was set aside before.
    pub async fn has_room(&self) -> bool {
        if self.is_waiting_for_room() {
            return false;
        }
        if !self.inner.shared.short_of_room.load(Ordering::Relaxed) {
            return true;
        }
        let (done, answer) = oneshot::channel();
        let asked = self.send(QUEUED_BYTES, WhenFull::Refuse, Command::Look { done });
        // A thread that has begun to wait for room does not answer before there is some.
        let looked = async { answer.await.unwrap_or(false) };
        asked.is_ok() && tokio::time::timeout(LOOK_WITHIN, looked).await.unwrap_or(false)
    }

    /// Whether the journal still takes events; for status and metrics.
    ///
    /// # Errors
    /// [`JournalError::Poisoned`] since a write or fsync failed.
    pub fn health(&self) -> Result<(), JournalError> {
        self.inner.shared.health()
    }
}

/// Resolves when an append or compaction is on the disk, or to why it is not.
#[derive(Debug)]
#[must_use = "nothing may be acknowledged before this has resolved (R1)"]
pub struct Durable {
    answer: oneshot::Receiver<Result<(), JournalError>>,
}

impl Durable {
    /// Waits for it on this thread, which must be one of the blocking pool or no runtime's at all.
    ///
    /// # Errors
    /// [`JournalError`]: then it is not in the journal, or not known to be.
    pub fn wait(self) -> Result<(), JournalError> {
        self.answer.blocking_recv().unwrap_or(Err(JournalError::Closed))
    }
}

impl Future for Durable {
    type Output = Result<(), JournalError>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| answer.unwrap_or(Err(JournalError::Closed)))
    }
}

fn log_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// The numbers of the files in `dir`, ascending.
fn list_logs(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let failed = |e| FileError::from_io(dir, "list", &e);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".log"));
        let number = stem.and_then(|stem| stem.parse::<u64>().ok());
        numbers.extend(number.filter(|n| log_path(dir, *n).file_name() == Some(name.as_os_str())));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Writes the records of the journal `number`, which has no batches, into the next one, which has them.
fn upgrade(dir: &Path, number: u64, good: u64) -> Result<(u64, PathBuf, u64), JournalError> {
    let (old, next) = (log_path(dir, number), log_path(dir, number + 1));
    let (good, _) = writer::write_anew(dir, (&old, good), None, &[], &next)?;
    tracing::info!("{} has a newer format than {}", next.display(), old.display());
    Ok((number + 1, next, good))
}

fn cut_tail(path: &Path, good: u64, length: u64) -> Result<(), FileError> {
    tracing::warn!(
        "{} ends in {} bytes of a write that was never acknowledged; they are cut off at byte {good}",
        path.display(),
        length - good
    );
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(good)?;
        file.sync_all()
    });
    cut.map_err(|e| FileError::from_io(path, "cut the torn tail of", &e))
}
