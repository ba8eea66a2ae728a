//! Reads a journal file: finds where its whole records end, and hands them out in order. It never changes a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::files::FileError;
use super::error::JournalError;
use super::record::{self, HEAD_BYTES, HEADER, Record};
use super::writer::WRITE_BYTES_MAX;

/// Bytes read ahead.
const READ_BYTES: usize = 256 * 1024;
/// Longest tail that one interrupted write can leave; one more record may have been cut by a damaged length before it.
const TORN_BYTES_MAX: u64 = WRITE_BYTES_MAX;

/// What is at the reading position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A whole frame; its body is in [`Frames::body`].
    Frame,
    /// The end of the file, right behind a whole frame.
    End,
    /// Bytes that are no whole frame.
    Bad,
}

/// Reads frames one after the other.
pub(super) struct Frames {
    path: PathBuf,
    reader: io::Take<BufReader<File>>,
    /// Where the next frame starts.
    pub(super) offset: u64,
    frame: Vec<u8>,
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
        match header.strip_prefix(mark) {
            _ if header.len() < HEADER.len() => Err(no_journal(format!("it has only {} bytes", header.len()))),
            None => Err(no_journal("it has another mark at its start".to_owned())),
            Some(found) if found != version => {
                Err(no_journal(format!("it has version {found:?}, this build reads {version:?}")))
            }
            Some(_) => Ok(Self { path: path.to_path_buf(), reader, offset: header_len, frame: Vec::new() }),
        }
    }

    /// Reads the next frame.
    pub(super) fn next(&mut self) -> Result<Step, FileError> {
        let failed = |e: io::Error| FileError::from_io(&self.path, "read", &e);
        self.frame.clear();
        let head_len = u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX);
        self.reader.by_ref().take(head_len).read_to_end(&mut self.frame).map_err(failed)?;
        if self.frame.is_empty() {
            return Ok(Step::End);
        }
        let Some((length, sum)) = self.frame.first_chunk::<HEAD_BYTES>().and_then(|head| record::read_head(*head))
        else {
            return Ok(Step::Bad);
        };
        let body_len = u64::try_from(length).unwrap_or(u64::MAX);
        self.reader.by_ref().take(body_len).read_to_end(&mut self.frame).map_err(failed)?;
        if self.body().len() != length || !record::body_is_whole(self.body(), sum) {
            return Ok(Step::Bad);
        }
        self.offset += head_len + body_len;
        Ok(Step::Frame)
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
    /// Where its last whole record ends.
    pub(super) good: u64,
    /// Its length; more than `good` when its tail is torn.
    pub(super) length: u64,
    /// Bytes of each brain's records.
    pub(super) by_brain: BTreeMap<String, u64>,
}

/// Checks every record of `path`.
pub(super) fn check(path: &Path) -> Result<Found, JournalError> {
    let length = std::fs::metadata(path).map_err(|e| FileError::from_io(path, "look at", &e))?.len();
    let mut frames = Frames::open(path, length)?;
    let mut by_brain = BTreeMap::new();
    loop {
        let good = frames.offset;
        match frames.next()? {
            Step::Frame => *by_brain.entry(frames.brain()?.to_owned()).or_default() += frames.offset - good,
            Step::End => return Ok(Found { good, length, by_brain }),
            Step::Bad => {
                check_torn(path, good, length)?;
                return Ok(Found { good, length, by_brain });
            }
        }
    }
}

/// Whether all from `good` on can be what an interrupted write left: no whole record is in it.
fn check_torn(path: &Path, good: u64, length: u64) -> Result<(), JournalError> {
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
    match (1..tail.len()).find(|&at| record::starts_with_frame(&tail[at..])) {
        None => Ok(()),
        Some(at) => {
            let next = good.saturating_add(u64::try_from(at).unwrap_or(0));
            Err(damaged(format!("a whole record follows it at byte {next}")))
        }
    }
}

/// The records of a journal as they were when it was opened, in the order they were appended.
pub struct Replay {
    frames: Frames,
    done: bool,
}

impl Replay {
    /// The records of `path` up to byte `good`.
    pub(super) fn open(path: &Path, good: u64) -> Result<Self, JournalError> {
        Ok(Self { frames: Frames::open(path, good)?, done: false })
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
