//! The spool: mails that the mail program was told "yes" to and that are not on their way yet. It knows files, never what becomes
//! of a mail.
//!
//! A mail is one file, `spool/SUBMISSION.mail`: the clear mail and its envelope (`store/spool_file.rs`). It gets its name when it is
//! durable: the commit point. A long mail that could be sealed while it came in (`presealer.rs`) is kept sealed, in a file beside.

use std::fs::File;
use std::io::{self, BufReader, Read, Take, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::presealer::{PresealError, Presealed, Presealer, Presealing};
use crate::clock::Clock;
use crate::mime::{Split, address, header};
use crate::model::structure::Structure;
use crate::model::{Address, SubmissionId, WallTime};
use crate::seal::{SealError, SecretIdentity, open_mail};
use crate::store::files::{DurableWriter, FileError, commit_together, remove_all, remove_durable, remove_known};
use crate::store::home::Home;
use crate::store::spool_file::{self, Kept};
use crate::wire::{WireError, decode, encode};

/// Largest envelope: 48 KiB of header block and structure, 100 receivers, and slack.
const ENVELOPE_MAX: u64 = 256 * 1024;

/// A mail waits in memory until so many bytes of it came, one block: most mails are never longer, and are written in one step.
const SHORT: usize = 64 * 1024;
/// Bytes of a sealed mail that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Largest mail that is opened, bytes: above every policy's bound.
const OPENED_MAX: u64 = 1 << 40;
/// A longer one is written in steps of so many bytes: each costs a change of threads.
const STEP: usize = 256 * 1024;

/// Why the spool did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// A write failed in the middle.
    #[error("the spool cannot be written: {source}")]
    Write {
        /// What the operating system says.
        #[from]
        source: std::io::Error,
    },
    /// The envelope is damaged.
    #[error("the envelope of submission {submission} is damaged: {source}; its mail stays in spool/")]
    Envelope {
        /// Which one.
        submission: SubmissionId,
        /// What the decoder says.
        source: WireError,
    },
    /// What was sealed while it came in does not open.
    #[error("mail {submission} in spool/ was sealed while it came in, and does not open: {source}; it stays there")]
    Sealed {
        /// Which one.
        submission: SubmissionId,
        /// What OpenPGP says.
        source: SealError,
    },
    /// This peer stops, or has no randomness.
    #[error("the spool cannot take mail now: {why}")]
    Unavailable {
        /// Why.
        why: String,
    },
}

impl SpoolError {
    /// Whether there is no room.
    pub fn is_disk_full(&self) -> bool {
        match self {
            SpoolError::File(e) => e.is_disk_full(),
            SpoolError::Write { source } => crate::store::files::is_disk_full(source),
            SpoolError::Sealed { source: SealError::Io { source, .. }, .. } => {
                crate::store::files::is_disk_full(source)
            }
            SpoolError::Envelope { .. } | SpoolError::Sealed { .. } | SpoolError::Unavailable { .. } => false,
        }
    }
    fn stopping(e: &tokio::task::JoinError) -> Self {
        SpoolError::Unavailable { why: e.to_string() }
    }
}

impl From<PresealError> for SpoolError {
    fn from(error: PresealError) -> Self {
        match error {
            PresealError::Sealing(error) if error.is_disk_full() => {
                SpoolError::Write { source: io::Error::new(io::ErrorKind::StorageFull, error) }
            }
            other => SpoolError::Unavailable { why: other.to_string() },
        }
    }
}

/// Everything about a spooled mail but its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Receivers; `true` for one that is in no To or Cc.
    #[serde(rename = "r")]
    pub receivers: Vec<(Address, bool)>,
    /// When it was accepted.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// Its Message-ID.
    #[serde(rename = "m")]
    pub message_id: Option<String>,
    /// Its header block.
    #[serde(rename = "h", with = "serde_bytes")]
    pub header_block: Vec<u8>,
    /// Its structure.
    #[serde(rename = "s")]
    pub structure: Structure,
}

/// The folder `spool/`.
#[derive(Clone)]
pub struct Spool {
    home: Home,
    clock: Clock,
    /// Seals long mails while they come in.
    presealer: Option<Presealer>,
}

impl Spool {
    /// The spool of a home, which keeps every mail in clear.
    pub fn new(home: Home, clock: Clock) -> Self {
        Self { home, clock, presealer: None }
    }

    /// A spool that keeps a long mail sealed where it can.
    pub fn sealing(presealer: Presealer) -> Self {
        Self { home: presealer.home.clone(), clock: presealer.clock.clone(), presealer: Some(presealer) }
    }

    /// What was sealed of a submission while it came in, since this peer started; its sealed mail is in the spool.
    pub(super) fn presealed(&self, submission: &SubmissionId) -> Option<Arc<Presealed>> {
        self.presealer.as_ref().and_then(|presealer| presealer.presealed(submission))
    }

    /// Begins a mail to these receivers.
    ///
    /// # Errors
    /// [`SpoolError`] when there is no randomness.
    pub fn begin(&self, receivers: &[Address]) -> Result<Begun, SpoolError> {
        let mut id = [0; SubmissionId::LEN];
        getrandom::fill(&mut id).map_err(|e| SpoolError::Unavailable { why: e.to_string() })?;
        let (submission, text) = (SubmissionId::new(id), Some(Text::Clear(ClearText::Short(Vec::new()))));
        Ok(Begun { spool: self.clone(), receivers: receivers.to_vec(), submission, text })
    }

    /// The envelope of a spooled mail. Blocking.
    ///
    /// # Errors
    /// [`SpoolError`] when it is missing or damaged.
    pub fn envelope(&self, submission: &SubmissionId) -> Result<Envelope, SpoolError> {
        read_envelope(&self.home, submission)
    }

    /// Every mail in the spool, for the start. What was never acknowledged is removed. Blocking.
    ///
    /// # Errors
    /// [`SpoolError`] when the folder cannot be read. A damaged envelope is logged, and its mail stays where it is.
    pub fn spooled(&self) -> Result<Vec<(SubmissionId, Envelope)>, SpoolError> {
        let mut found = Vec::new();
        self.home.sweep_spool()?;
        for submission in self.home.spooled()? {
            match self.envelope(&submission) {
                Ok(envelope) => found.push((submission, envelope)),
                // Only an earlier version left a clear mail without its envelope.
                Err(SpoolError::File(e)) if e.is_not_found() => {
                    remove_durable(&self.home.spool_mail_of_version_1(&submission))?;
                }
                Err(error) => tracing::error!(%error, "a spooled mail cannot be sent"),
            }
        }
        Ok(found)
    }

    /// Removes a mail: the envelope first where it is apart, so that a crash between leaves nothing that would be sent. Blocking.
    ///
    /// # Errors
    /// [`SpoolError`] when the disk fails.
    pub fn remove(&self, submission: &SubmissionId) -> Result<(), SpoolError> {
        let home = &self.home;
        if let Some(presealer) = &self.presealer {
            presealer.forget(submission);
        }
        let was_there = remove_known(&home.spool_file(submission))?;
        remove_all(&[home.spool_sealed(submission)])?;
        if was_there {
            return Ok(());
        }
        let earlier = [home.spool_envelope_of_version_1(submission), home.spool_mail_of_version_1(submission)];
        Ok(remove_all(&earlier)?)
    }
}

/// The envelope of a mail that is in the spool of a home. Blocking.
///
/// # Errors
/// [`SpoolError`] when it is missing or damaged.
pub fn read_envelope(home: &Home, submission: &SubmissionId) -> Result<Envelope, SpoolError> {
    let bytes = spool_file::read_envelope(home, submission, ENVELOPE_MAX)?;
    decode(&bytes).map_err(|source| SpoolError::Envelope { submission: *submission, source })
}

/// The clear mail of a submission; what was sealed while it came in is opened into a file without a name first. Blocking.
///
/// # Errors
/// [`SpoolError`] when it is missing or damaged.
pub fn read_mail(home: &Home, me: &SecretIdentity, submission: &SubmissionId) -> Result<Take<File>, SpoolError> {
    let sealed = match spool_file::open_mail(home, submission)? {
        Kept::Clear(mail) => return Ok(mail),
        Kept::Sealed(sealed) => BufReader::with_capacity(CHUNK, sealed),
    };
    let mut opened = DurableWriter::create(&home.spool_dir())?;
    open_mail(sealed, me, me.certificate(), OPENED_MAX, &mut opened)
        .map_err(|source| SpoolError::Sealed { submission: *submission, source })?;
    let path = opened.settle()?;
    let mail = File::open(path).map_err(|e| FileError::from_io(path, "open", &e))?;
    // The name goes here; whoever reads keeps the file.
    drop(opened);
    Ok(mail.take(u64::MAX))
}

/// What came of a mail so far.
#[derive(Debug)]
enum Text {
    /// In clear.
    Clear(ClearText),
    /// On its way through the thread that seals it.
    Sealing(Presealing),
}

#[derive(Debug)]
enum ClearText {
    /// At most [`SHORT`] bytes, which need no file yet.
    Short(Vec<u8>),
    /// In a file without a name, but for the last bytes, fewer than [`STEP`].
    Long(DurableWriter, Vec<u8>),
}

impl ClearText {
    /// Blocking.
    fn push(self, spool: &Spool, chunk: &[u8]) -> Result<Self, SpoolError> {
        let is_short = self.stays_in_memory(chunk.len());
        match self {
            ClearText::Short(mut bytes) if is_short => {
                bytes.extend_from_slice(chunk);
                Ok(ClearText::Short(bytes))
            }
            ClearText::Long(writer, mut waiting) if is_short => {
                waiting.extend_from_slice(chunk);
                Ok(ClearText::Long(writer, waiting))
            }
            full => {
                let mut writer = full.into_file(spool)?;
                writer.write_all(chunk)?;
                Ok(ClearText::Long(writer, Vec::with_capacity(STEP)))
            }
        }
    }
    /// Whether so many bytes more do not touch the disk yet.
    fn stays_in_memory(&self, more: usize) -> bool {
        match self {
            ClearText::Short(bytes) => bytes.len() + more <= SHORT,
            ClearText::Long(_, waiting) => waiting.len() + more <= STEP,
        }
    }
    /// Blocking.
    fn into_file(self, spool: &Spool) -> Result<DurableWriter, SpoolError> {
        match self {
            ClearText::Long(mut writer, waiting) => {
                writer.write_all(&waiting)?;
                Ok(writer)
            }
            ClearText::Short(bytes) => {
                let mut writer = DurableWriter::create(&spool.home.spool_dir())?;
                writer.write_all(&bytes)?;
                Ok(writer)
            }
        }
    }
}

/// A mail on its way into the spool. Dropped without a commit it leaves nothing.
pub struct Begun {
    spool: Spool,
    receivers: Vec<Address>,
    submission: SubmissionId,
    /// Away only while a write is under way.
    text: Option<Text>,
}

impl Begun {
    /// Its submission id.
    pub fn submission(&self) -> SubmissionId {
        self.submission
    }

    fn text(&mut self) -> Result<Text, SpoolError> {
        let broken = || SpoolError::Unavailable { why: "an earlier write of this mail failed".to_owned() };
        self.text.take().ok_or_else(broken)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`SpoolError`] when the disk fails; the mail cannot be committed then.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), SpoolError> {
        let text = match self.text()? {
            Text::Clear(text) if text.stays_in_memory(chunk.len()) => Text::Clear(text.push(&self.spool, &chunk)?),
            Text::Clear(text) => match self.seal_from_now_on(text) {
                Ok(mut sealing) => {
                    sealing.write(chunk).await?;
                    Text::Sealing(sealing)
                }
                Err(text) => {
                    let spool = self.spool.clone();
                    let written = tokio::task::spawn_blocking(move || text.push(&spool, &chunk));
                    Text::Clear(written.await.map_err(|e| SpoolError::stopping(&e))??)
                }
            },
            Text::Sealing(mut sealing) => {
                sealing.write(chunk).await?;
                Text::Sealing(sealing)
            }
        };
        self.text = Some(text);
        Ok(())
    }

    /// A mail that is found to be long is sealed while the rest comes in, if it can be.
    fn seal_from_now_on(&self, text: ClearText) -> Result<Presealing, ClearText> {
        match (text, &self.spool.presealer) {
            (ClearText::Short(beginning), Some(presealer)) => {
                let beginning = Bytes::from(beginning);
                let begun = presealer.begin(&self.receivers, beginning.clone());
                begun.ok_or_else(|| ClearText::Short(Vec::from(beginning)))
            }
            (text, _) => Err(text),
        }
    }

    /// Whether it is being sealed while it comes in.
    #[cfg(test)]
    pub(super) fn is_sealing(&self) -> bool {
        matches!(self.text, Some(Text::Sealing(_)))
    }

    /// Removes what is there of it.
    pub async fn abandon(self) {
        if let Some(Text::Sealing(sealing)) = self.text {
            sealing.abandon().await;
        }
    }

    /// Makes mail and envelope durable (R1). `split` describes the bytes that were written.
    ///
    /// # Errors
    /// [`SpoolError`] when the disk fails; then nothing of the mail stays.
    pub async fn commit(mut self, receivers: Vec<Address>, split: Split) -> Result<Envelope, SpoolError> {
        let named = address::named_receivers(&split.header_block);
        let receivers = receivers.into_iter().map(|r| (!named.contains(&r), r)).map(|(bcc, r)| (r, bcc)).collect();
        let message_id = header::first(&split.header_block, "Message-ID").map(|field| field.text());
        let at = self.spool.clock.now().wall;
        let Split { structure, header_block } = split;
        let envelope = Envelope { receivers, at, message_id, header_block, structure };
        let (spool, submission) = (self.spool.clone(), self.submission);
        let whole: Whole = match self.text()? {
            Text::Clear(text) => Whole::Clear(text),
            Text::Sealing(sealing) => {
                let (file, keep) = sealing.finish().await?;
                Whole::Sealed(file, Box::new(keep))
            }
        };
        let committed = tokio::task::spawn_blocking(move || {
            let committed = whole.commit(&spool, &submission, &encode(&envelope));
            if committed.is_err() {
                // It may have its name already; nobody was told so.
                let _ = spool.remove(&submission);
            }
            committed.map(|()| envelope)
        });
        committed.await.map_err(|e| SpoolError::stopping(&e))?
    }
}

/// A mail that is whole, and not durable yet.
enum Whole {
    Clear(ClearText),
    /// And what keeps the word of it.
    Sealed(DurableWriter, Box<dyn FnOnce(SubmissionId) + Send>),
}

impl Whole {
    /// Blocking.
    fn commit(self, spool: &Spool, submission: &SubmissionId, envelope: &[u8]) -> Result<(), SpoolError> {
        let path = spool.home.spool_file(submission);
        match self {
            Whole::Clear(text) => {
                let mut file = text.into_file(spool)?;
                spool_file::write_envelope(&mut file, envelope)?;
                file.commit(&path)?;
            }
            Whole::Sealed(mail, keep) => {
                let mut file = DurableWriter::create(&spool.home.spool_dir())?;
                spool_file::write_envelope_of_sealed(&mut file, envelope)?;
                // The envelope last: the commit point.
                commit_together(vec![(mail, spool.home.spool_sealed(submission)), (file, path)])?;
                keep(*submission);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::mime::split::split;

    const MAIL: &[u8] = b"From: alice@acme\r\nTo: bob@acme\r\nMessage-ID: <1@acme>\r\n\r\nhello\r\n";

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        (dir, Spool::new(home, Clock::system()))
    }

    #[tokio::test]
    async fn a_committed_mail_is_found_with_its_envelope() {
        let (_dir, spool) = spool();
        let mut begun = spool.begin(&[]).unwrap();
        let submission = begun.submission();
        begun.write(Bytes::from_static(&MAIL[..10])).await.unwrap();
        begun.write(Bytes::from_static(&MAIL[10..])).await.unwrap();
        let receivers = vec!["bob@acme".parse().unwrap(), "carol@acme".parse().unwrap()];
        let envelope = begun.commit(receivers, split(MAIL)).await.unwrap();
        assert_eq!(envelope.receivers.iter().map(|(_, bcc)| *bcc).collect::<Vec<_>>(), [false, true]);
        assert_eq!(envelope.message_id.as_deref(), Some("<1@acme>"));
        let mut text = Vec::new();
        let me = SecretIdentity::generate(&"alice@acme".parse().unwrap(), WallTime(0)).unwrap();
        read_mail(&spool.home, &me, &submission).unwrap().read_to_end(&mut text).unwrap();
        assert_eq!(text, MAIL);
        assert_eq!(spool.spooled().unwrap(), [(submission, envelope)]);
        spool.remove(&submission).unwrap();
        assert!(spool.spooled().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_was_never_acknowledged_is_removed_at_the_start() {
        let (_dir, spool) = spool();
        let mut begun = spool.begin(&[]).unwrap();
        begun.write(Bytes::from_static(MAIL)).await.unwrap();
        drop(begun);
        let orphan = SubmissionId::new([7; 16]);
        let left = spool.home.spool_mail_of_version_1(&orphan);
        std::fs::write(&left, MAIL).unwrap();
        assert!(spool.spooled().unwrap().is_empty());
        assert!(!left.exists());
    }
}
