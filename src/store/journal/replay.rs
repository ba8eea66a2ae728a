//! Reads a journal file: finds where its whole batches end, and hands out their records in order. It never changes a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::files::FileError;
use super::batch::{BATCH_HEAD_BYTES, BATCH_HEAD_LEN, read_batch_head};
use super::error::JournalError;
use super::record::{self, HEAD_BYTES, HEADER, HEADER_V1, Record};
use super::writer::WRITE_BYTES_MAX;

/// Bytes read ahead.
const READ_BYTES: usize = 256 * 1024;
/// Longest tail that one interrupted write can leave.
const TORN_BYTES_MAX: u64 = WRITE_BYTES_MAX + BATCH_HEAD_LEN;

/// What is at the reading position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A whole frame; its body is in [`Frames::body`].
    Frame,
    /// The end of the file, right behind a whole frame that ends its batch.
    End,
    /// Bytes that are no whole frame or no batch.
    Bad,
}

/// Reads frames one after the other.
pub(super) struct Frames {
    path: PathBuf,
    reader: io::Take<BufReader<File>>,
    /// Where the next frame starts, or the next batch.
    pub(super) offset: u64,
    frame: Vec<u8>,
    /// Where the batch starts that is being read, and where it ends; `None` in a file without batches.
    batch: Option<(u64, u64)>,
}

impl Frames {
    /// The frames of `path` up to byte `end`; checks its header.
    pub(super) fn open(path: &Path, end: u64) -> Result<Self, JournalError> {
        let file = File::open(path).map_err(|e| FileError::from_io(path, "open", &e))?;
        let mut reader = BufReader::with_capacity(READ_BYTES, file).take(end);
        let mut header = Vec::new();
        let header_len = header_len();
        let read = reader.by_ref().take(header_len).read_to_end(&mut header);
        read.map_err(|e| FileError::from_io(path, "read", &e))?;
        let no_journal = |why: String| JournalError::NoJournal { path: path.to_path_buf(), why };
        let (mark, version) = HEADER.split_at(HEADER.len() - 1);
        let batch = match header.strip_prefix(mark) {
            _ if header.len() < HEADER.len() => {
                return Err(no_journal(format!("it has only {} bytes", header.len())));
            }
            None => return Err(no_journal("it has another mark at its start".to_owned())),
            Some(_) if header == HEADER => Some((header_len, header_len)),
            Some(_) if header == HEADER_V1 => None,
            Some(found) => {
                return Err(no_journal(format!("it has version {found:?}, this build reads up to {version:?}")));
            }
        };
        Ok(Self { path: path.to_path_buf(), reader, offset: header_len, frame: Vec::new(), batch })
    }

    /// Whether the file has batches, as all have that this build writes.
    pub(super) fn has_batches(&self) -> bool {
        self.batch.is_some()
    }

    /// Where what was read so far is whole: behind a frame, or, where there are batches, behind the last frame of one.
    pub(super) fn whole(&self) -> u64 {
        match self.batch {
            Some((start, end)) if self.offset < end => start,
            _ => self.offset,
        }
    }

    /// Reads the next frame.
    pub(super) fn next(&mut self) -> Result<Step, FileError> {
        if self.batch.is_some_and(|(_, end)| end == self.offset) {
            match self.next_batch()? {
                Step::Frame => {}
                other => return Ok(other),
            }
        }
        self.read(HEAD_BYTES)?;
        if self.frame.is_empty() && self.batch.is_none() {
            return Ok(Step::End);
        }
        let Some((length, sum)) = self.frame.first_chunk::<HEAD_BYTES>().and_then(|head| record::read_head(*head))
        else {
            return Ok(Step::Bad);
        };
        self.read_more(length)?;
        let end = self.offset.saturating_add(u64::try_from(HEAD_BYTES + length).unwrap_or(u64::MAX));
        let fits = self.batch.is_none_or(|(_, batch_end)| end <= batch_end);
        if !fits || self.body().len() != length || !record::body_is_whole(self.body(), sum) {
            return Ok(Step::Bad);
        }
        self.offset = end;
        Ok(Step::Frame)
    }

    /// Reads the head of the next batch; [`Step::Frame`] when its frames follow.
    fn next_batch(&mut self) -> Result<Step, FileError> {
        self.read(BATCH_HEAD_BYTES)?;
        if self.frame.is_empty() {
            return Ok(Step::End);
        }
        let Some(length) = read_batch_head(&self.frame, self.offset) else { return Ok(Step::Bad) };
        let start = self.offset;
        self.offset = self.offset.saturating_add(BATCH_HEAD_LEN);
        self.batch = Some((start, self.offset.saturating_add(length)));
        Ok(Step::Frame)
    }

    /// Puts the next `length` bytes in the place of the frame; fewer at the end.
    fn read(&mut self, length: usize) -> Result<(), FileError> {
        self.frame.clear();
        self.read_more(length)
    }

    fn read_more(&mut self, length: usize) -> Result<(), FileError> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let read = self.reader.by_ref().take(length).read_to_end(&mut self.frame);
        read.map(drop).map_err(|e: io::Error| FileError::from_io(&self.path, "read", &e))
    }

    /// The frame that was read, head and body.
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The body of the frame that was read.
    pub(super) fn body(&self) -> &[u8] {
        self.frame.get(HEAD_BYTES..).unwrap_or_default()
    }

    /// The name of the brain whose frame was read.
    pub(super) fn brain(&self) -> Result<&str, JournalError> {
        record::split_body(self.body()).map(|(brain, _)| brain).map_err(|why| self.unreadable(why))
    }

    fn unreadable(&self, why: String) -> JournalError {
        let length = u64::try_from(self.frame.len()).unwrap_or(0);
        JournalError::Unreadable { path: self.path.clone(), offset: self.offset.saturating_sub(length), why }
    }
}

/// Bytes of the header.
pub(super) fn header_len() -> u64 {
    u64::try_from(HEADER.len()).unwrap_or(u64::MAX)
}

/// What a journal file holds.
#[derive(Debug)]
pub(super) struct Found {
    /// Where its last whole batch ends.
    pub(super) good: u64,
    /// Its length; more than `good` when its tail is torn.
    pub(super) length: u64,
    /// Bytes of each brain's records.
    pub(super) by_brain: BTreeMap<String, u64>,
    /// Whether it has batches; one that has none is written anew.
    pub(super) has_batches: bool,
}

/// Checks every record of `path`.
pub(super) fn check(path: &Path) -> Result<Found, JournalError> {
    let length = std::fs::metadata(path).map_err(|e| FileError::from_io(path, "look at", &e))?.len();
    let mut frames = Frames::open(path, length)?;
    let has_batches = frames.has_batches();
    let mut by_brain: BTreeMap<String, u64> = BTreeMap::new();
    // Of a batch that is not read to its end yet.
    let mut of_batch: Vec<(String, u64)> = Vec::new();
    loop {
        match frames.next()? {
            Step::Frame => {
                of_batch.push((frames.brain()?.to_owned(), u64::try_from(frames.frame().len()).unwrap_or(u64::MAX)));
                if frames.whole() == frames.offset {
                    of_batch.drain(..).for_each(|(brain, bytes)| *by_brain.entry(brain).or_default() += bytes);
                }
            }
            Step::End => return Ok(Found { good: frames.offset, length, by_brain, has_batches }),
            Step::Bad => {
                let good = frames.whole();
                check_torn(path, good, length, has_batches)?;
                return Ok(Found { good, length, by_brain, has_batches });
            }
        }
    }
}

/// Whether all from `good` on can be what one interrupted write left. With batches: no batch follows the one that is bad,
/// since it would have been written only after that one was durable. Without: no whole record follows.
fn check_torn(path: &Path, good: u64, length: u64, has_batches: bool) -> Result<(), JournalError> {
    let damaged = |behind: String| JournalError::Damaged { path: path.to_path_buf(), offset: good, behind };
    let tail_len = length.saturating_sub(good);
    if tail_len > TORN_BYTES_MAX {
        return Err(damaged(format!("{tail_len} bytes follow it, more than one write leaves")));
    }
    let mut tail = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(good))?;
        file.take(tail_len).read_to_end(&mut tail)
    });
    read.map_err(|e| FileError::from_io(path, "read", &e))?;
    let place = |at: usize| good.saturating_add(u64::try_from(at).unwrap_or(0));
    if !has_batches {
        return match (1..tail.len()).find(|&at| record::starts_with_frame(&tail[at..])) {
            None => Ok(()),
            Some(at) => Err(damaged(format!("a whole record follows it at byte {}", place(at)))),
        };
    }
    let end = read_batch_head(&tail, good).map(|bytes| good.saturating_add(BATCH_HEAD_LEN).saturating_add(bytes));
    if let Some(end) = end.filter(|end| *end < length) {
        return Err(damaged(format!("what was written after it follows at byte {end}")));
    }
    match (1..tail.len()).find(|&at| read_batch_head(&tail[at..], place(at)).is_some()) {
        None => Ok(()),
        Some(at) => Err(damaged(format!("what was written after it follows at byte {}", place(at)))),
    }
}

/// The records of a journal as they were when it was opened, in the order they were appended.
pub struct Replay {
    frames: Frames,
    good: u64,
    done: bool,
}

impl Replay {
    /// The records of `path` up to byte `good`.
    pub(super) fn open(path: &Path, good: u64) -> Result<Self, JournalError> {
        Ok(Self { frames: Frames::open(path, good)?, good, done: false })
    }

    /// The same records from the start. The file is opened now: a later compaction takes nothing away from it.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be opened.
    pub fn again(&self) -> Result<Self, JournalError> {
        Self::open(&self.frames.path, self.good)
    }

    fn read(&mut self) -> Result<Option<Record>, JournalError> {
        match self.frames.next()? {
            Step::Frame => Record::from_body(self.frames.body()).map(Some).map_err(|why| self.frames.unreadable(why)),
            Step::End => Ok(None),
            Step::Bad => Err(JournalError::Damaged {
                path: self.frames.path.clone(),
                offset: self.frames.offset,
                behind: "it was whole when this start checked it".to_owned(),
            }),
        }
    }
}

impl Iterator for Replay {
    type Item = Result<Record, JournalError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.read().transpose();
        self.done = !matches!(read, Some(Ok(_)));
        read
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replay({} at {})", self.frames.path.display(), self.frames.offset)
    }
}
