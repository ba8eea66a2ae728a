//! What asking a peer comes to: typed errors, bodies of bounded size, and bodies that stream. It never trusts a length, a
//! range or a body it is told; what bytes mean is checked by whoever asked.

use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_RANGE, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::GD_VERSION;
use super::dial::DialError;
use super::range::parse_content_range;
use crate::model::PeerId;
use crate::wire::http::TOMBSTONE_BYTES_MAX;

/// Most bytes of an error's sentence that are read.
const TEXT_BYTES_MAX: usize = 1024;

/// Why a peer's answer cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// No connection, or it broke.
    #[error("{peer} cannot be reached: {why}")]
    Unreachable {
        /// Who was asked.
        peer: PeerId,
        /// What failed.
        why: String,
    },
    /// Somebody else answers at its address.
    #[error("{answered} answers at the address of {peer}; its descriptor is out of date")]
    WrongPeer {
        /// Who was asked.
        peer: PeerId,
        /// Who answered.
        answered: PeerId,
    },
    /// Silence for too long.
    #[error("{peer} sent no {what} within {after_ms} ms; ask again later or ask another peer")]
    Timeout {
        /// Who was asked.
        peer: PeerId,
        /// What did not come.
        what: &'static str,
        /// How long was waited.
        after_ms: u64,
    },
    /// It answers, and the answer is no.
    #[error("{peer} answers {code}: {text}")]
    Status {
        /// Who was asked.
        peer: PeerId,
        /// The HTTP status.
        code: u16,
        /// Its one sentence, cut to 1 KiB and without control characters.
        text: String,
        /// When to come again, seconds.
        retry_after_s: Option<u64>,
        /// Refused for membership: the version of the gd that says so.
        gd_version: Option<u64>,
    },
    /// The mail is gone; the bytes claim to be the owner's signed tombstone.
    #[error("{peer} says that the mail is gone")]
    Gone {
        /// Who was asked.
        peer: PeerId,
        /// Not yet verified.
        tombstone: Vec<u8>,
    },
    /// More bytes than are taken.
    #[error("the {what} of {peer} has more than {limit} bytes; it was not read")]
    TooLarge {
        /// Who was asked.
        peer: PeerId,
        /// What was asked for.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Not what was asked for, or not readable.
    #[error("the {what} of {peer} is malformed: {why}")]
    Malformed {
        /// Who was asked.
        peer: PeerId,
        /// What was asked for.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The body ended, or the connection broke, before all of it was here.
    #[error("the connection to {peer} broke after {received} bytes: {why}")]
    Broken {
        /// Who was asked.
        peer: PeerId,
        /// Bytes of the body that are here.
        received: u64,
        /// What failed.
        why: String,
    },
    /// This peer has too many requests under way itself.
    #[error("{limit} requests to other peers are under way, which is the most; try again when some are done")]
    Busy {
        /// The bound.
        limit: usize,
    },
}

impl NetError {
    /// What a failed dial is to the one who asked.
    pub(super) fn from_dial(peer: PeerId, error: &DialError) -> Self {
        match error {
            DialError::WrongPeer { answered, .. } => Self::WrongPeer { peer, answered: *answered },
            DialError::NoAddress { .. } => Self::Unreachable { peer, why: "no address of it is known".to_owned() },
            DialError::Failed { why, .. } => Self::Unreachable { peer, why: why.clone() },
            DialError::NoPeer { .. } => Self::Unreachable { peer, why: error.to_string() },
        }
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What came back, before its body is read.
pub(super) struct Answer {
    pub(super) peer: PeerId,
    pub(super) what: &'static str,
    pub(super) response: Response<Incoming>,
    /// Longest silence inside the body.
    pub(super) idle: Duration,
    /// Held until the body is done, so that requests under way are bounded.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Answer {
    /// The answer, if its status says yes.
    pub(super) async fn accepted(self) -> Result<Self, NetError> {
        let status = self.response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NO_CONTENT) {
            return Ok(self);
        }
        let peer = self.peer;
        if status == StatusCode::GONE {
            let tombstone = self.collect(TOMBSTONE_BYTES_MAX).await?.to_vec();
            return Err(NetError::Gone { peer, tombstone });
        }
        let number = |name: &str| self.response.headers().get(name)?.to_str().ok()?.parse().ok();
        let (retry_after_s, gd_version) = (number(RETRY_AFTER.as_str()), number(GD_VERSION));
        // The sentence only helps whoever reads it; when it cannot be had the status says enough.
        let text = self.collect(TEXT_BYTES_MAX).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).collect();
        Err(NetError::Status { peer, code: status.as_u16(), text, retry_after_s, gd_version })
    }

    /// The whole body, at most `limit` bytes.
    pub(super) async fn collect(self, limit: usize) -> Result<Bytes, NetError> {
        let too_large = NetError::TooLarge { peer: self.peer, what: self.what, limit };
        let said = self.response.body().size_hint().lower();
        if usize::try_from(said).map_or(true, |said| said > limit) {
            return Err(too_large);
        }
        let mut chunks = Chunks::new(self);
        let mut whole = BytesMut::new();
        while let Some(chunk) = chunks.next().await? {
            if whole.len() + chunk.len() > limit {
                return Err(too_large);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// The body as a stream, which must be what `wanted` asked for.
    pub(super) fn stream(self, wanted: Option<Range<u64>>) -> Result<PeerBody, NetError> {
        let malformed = |why: &str| NetError::Malformed { peer: self.peer, what: self.what, why: why.to_owned() };
        let Some(said) = self.response.body().size_hint().exact() else {
            return Err(malformed("it does not say how long it is"));
        };
        let (range, total) = match wanted {
            None if self.response.status() == StatusCode::OK => (0..said, said),
            Some(wanted) if self.response.status() == StatusCode::PARTIAL_CONTENT => {
                let header = self.response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let (range, total) =
                    header.and_then(parse_content_range).ok_or_else(|| malformed("it names no range"))?;
                if range.start != wanted.start || range.end != wanted.end.min(total) {
                    return Err(malformed("it has another range than was asked for"));
                }
                (range, total)
            }
            _ => return Err(malformed("its status does not fit what was asked for")),
        };
        if range.end - range.start != said {
            return Err(malformed("its length does not fit its range"));
        }
        Ok(PeerBody { range, total, chunks: Chunks::new(self) })
    }
}

/// Frames of a body, none of them waited for too long.
#[derive(Debug)]
struct Chunks {
    peer: PeerId,
    what: &'static str,
    incoming: Incoming,
    idle: Duration,
    received: u64,
    _permit: OwnedSemaphorePermit,
}

impl Chunks {
    fn new(answer: Answer) -> Self {
        let Answer { peer, what, response, idle, permit } = answer;
        Self { peer, what, incoming: response.into_body(), idle, received: 0, _permit: permit }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.incoming.frame()).await;
            let frame = frame.map_err(|_| NetError::Timeout {
                peer: self.peer,
                what: self.what,
                after_ms: millis(self.idle),
            })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(NetError::Broken { peer: self.peer, received: self.received, why: error.to_string() });
                }
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    let Ok(chunk) = frame.into_data() else { continue };
                    self.received += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                    return Ok(Some(chunk));
                }
            }
        }
    }
}

/// A body that streams. Dropping it before its end closes its connection and so stops the other side.
#[derive(Debug)]
pub struct PeerBody {
    range: Range<u64>,
    total: u64,
    chunks: Chunks,
}

impl PeerBody {
    /// The bytes of the whole that this body has.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }
    /// How long the whole is, as the peer says.
    pub fn total(&self) -> u64 {
        self.total
    }
    /// The next bytes; `None` after the last, and then exactly [`PeerBody::range`] was received.
    ///
    /// # Errors
    /// [`NetError::Timeout`] after too long a silence, [`NetError::Broken`] when it ends too early.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        let next = self.chunks.next().await?;
        let expected = self.range.end - self.range.start;
        let (peer, received) = (self.chunks.peer, self.chunks.received);
        if next.is_none() && received != expected {
            return Err(NetError::Broken { peer, received, why: format!("{expected} were announced") });
        }
        Ok(next)
    }
    /// All of it, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`PeerBody::next`], and [`NetError::TooLarge`] before a byte is read.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, NetError> {
        let size = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        if size > limit {
            return Err(NetError::TooLarge { peer: self.chunks.peer, what: self.chunks.what, limit });
        }
        let mut whole = BytesMut::with_capacity(size);
        while let Some(chunk) = self.next().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }
}
