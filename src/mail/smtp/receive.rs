//! One mail between DATA and its answer: streamed into the spool, checked on the way. Never holds more of it in memory than
//! its header block and one chunk.

use bytes::Bytes;

use super::complete::complete;
use super::data::DataReader;
use super::{Accepted, SmtpEnvelope, Spool, SubmitError, Submitted};
use crate::mime::address;
use crate::mime::{Splitter, ns_headers_len};
use crate::model::notification::NS_HEADERS_MAX;
use crate::model::{ByteSize, WallTime};

/// Bytes of a header block as submitted. More than an ns carries, because Bcc may be long and goes.
const HEADER_MAX: usize = 128 * 1024;
/// [`NS_HEADERS_MAX`] as a length of bytes in a mail.
const NS_HEADERS_LIMIT: u64 = 48 * 1024;
const _: () = assert!(NS_HEADERS_MAX == 48 * 1024);
/// Bytes that are read and thrown away beyond the largest mail, so that the answer can be heard.
const OVERRUN_MAX: u64 = 64 * 1024 * 1024;

/// What comes next.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Progress {
    /// More of the text.
    More,
    /// The text is over: call [`Receiving::finish`].
    Over,
    /// The text goes on far beyond the largest mail: call [`Receiving::finish`] and close the connection.
    TooMuch,
}

/// A mail that is coming in.
#[derive(Debug)]
pub struct Receiving<S> {
    reader: DataReader,
    /// The header block, until it is over.
    header: Option<Vec<u8>>,
    splitter: Splitter,
    /// The spool, or why the rest is only read and thrown away.
    spool: Result<S, SubmitError>,
    envelope: SmtpEnvelope,
    max_mail: ByteSize,
    /// Bytes that came, whatever became of them.
    came: u64,
    /// Bytes of the mail among them: what [`Receiving::max_mail`] counts. Neither dots that were stuffed nor fields that
    /// submission adds make a mail too large.
    text: u64,
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Where the header block in `bytes` ends, its empty line included; only what is after `seen` is new.
fn header_end(bytes: &[u8], seen: usize) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    let from = seen.saturating_sub(3);
    bytes[from..].windows(4).position(|w| w == b"\r\n\r\n").map(|at| from + at + 4)
}

impl<S: Spool> Receiving<S> {
    /// A mail of which nothing came yet.
    pub fn new(spool: S, envelope: SmtpEnvelope, max_mail: ByteSize) -> Self {
        Self {
            reader: DataReader::new(),
            header: Some(Vec::new()),
            splitter: Splitter::new(),
            spool: Ok(spool),
            envelope,
            max_mail,
            came: 0,
            text: 0,
        }
    }

    /// The largest mail when this one began.
    pub fn max_mail(&self) -> ByteSize {
        self.max_mail
    }

    /// Takes bytes as they came; tells how many were taken.
    pub async fn feed(&mut self, input: &[u8], now: WallTime) -> (usize, Progress) {
        let mut text = Vec::with_capacity(input.len());
        let taken = self.reader.feed(input, &mut text);
        self.came = self.came.saturating_add(length(&input[..taken]));
        let over = self.reader.is_over();
        if let Err(error) = self.take(text, over, now).await {
            if let Ok(spool) = std::mem::replace(&mut self.spool, Err(error)) {
                spool.abandon().await;
            }
            self.header = None;
        }
        let progress = if over {
            Progress::Over
        } else if self.came > self.max_mail.bytes().saturating_add(OVERRUN_MAX) {
            Progress::TooMuch
        } else {
            Progress::More
        };
        (taken, progress)
    }

    /// The answer. Only after this is the mail durable.
    ///
    /// # Errors
    /// [`SubmitError`], the first that was met; a bare CR or LF comes before all others.
    pub async fn finish(self) -> Result<Accepted, SubmitError> {
        let split = self.splitter.finish();
        let found = ns_headers_len(&split.structure, &split.header_block);
        let why_not = if self.reader.has_bare_line_break() {
            Some(SubmitError::BareLineBreak)
        } else if self.spool.is_ok() && (!split.header_is_whole() || found > NS_HEADERS_LIMIT) {
            Some(SubmitError::HeadersTooLarge { found })
        } else {
            None
        };
        match (self.spool, why_not) {
            (Ok(spool), None) => spool.commit(Submitted { envelope: self.envelope, split }).await,
            (Ok(spool), Some(why)) => {
                spool.abandon().await;
                Err(why)
            }
            (Err(error), why) => Err(why.unwrap_or(error)),
        }
    }

    async fn take(&mut self, text: Vec<u8>, over: bool, now: WallTime) -> Result<(), SubmitError> {
        if self.spool.is_err() {
            return Ok(());
        }
        self.text = self.text.saturating_add(length(&text));
        if self.text > self.max_mail.bytes() {
            return Err(SubmitError::TooLarge { limit: self.max_mail });
        }
        let Some(mut header) = self.header.take() else { return self.write(text).await };
        let seen = header.len();
        header.extend_from_slice(&text);
        match header_end(&header, seen) {
            Some(end) => {
                let body = header.split_off(end);
                self.begin(&header, now).await?;
                self.write(body).await
            }
            None if over => self.begin(&header, now).await,
            None if header.len() > HEADER_MAX => Err(SubmitError::HeadersTooLarge { found: length(&header) }),
            None => {
                self.header = Some(header);
                Ok(())
            }
        }
    }

    /// The header block is whole: checks who it is from, and writes it as it is sent.
    async fn begin(&mut self, header: &[u8], now: WallTime) -> Result<(), SubmitError> {
        let own = &self.envelope.from;
        let mismatch = |why: String| SubmitError::FromMismatch { why, own: own.clone() };
        let from = address::sender(header).map_err(|e| mismatch(e.to_string()))?;
        if from != *own {
            return Err(mismatch(format!("the From field says {from}")));
        }
        let Ok(spool) = &self.spool else { return Ok(()) };
        let header = complete(header, now, &spool.submission(), own.group());
        if length(&header) > NS_HEADERS_LIMIT {
            return Err(SubmitError::HeadersTooLarge { found: length(&header) });
        }
        self.write(header).await
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), SubmitError> {
        let Ok(spool) = &mut self.spool else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        self.splitter.feed(&bytes);
        spool.write(Bytes::from(bytes)).await
    }
}
